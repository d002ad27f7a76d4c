"""From the checked section about alerts to their terms."""

from broker.audit.alerts.terms import AlertTerms, RuleTerms
from broker.config.alert_sections import AlertsSection


def build_alerts(section: AlertsSection) -> AlertTerms:
    """The terms of a section in which the checks found nothing."""
    rules = {
        name: RuleTerms(rule.enabled, rule.threshold, rule.within)
        for name, rule in section.rules.items()
    }
    return AlertTerms(section.cool_down, rules)
