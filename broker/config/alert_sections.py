"""What may stand in ``broker.yaml`` about alerts on the audit record."""

from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

from broker.audit.alerts.table import RULE_NAMES
from broker.config.kinds import Duration, between, lasting
from broker.config.section import Section
from broker.config.values import refusal


def _read_rule(value: str) -> str:
    if value not in RULE_NAMES:
        raise refusal(f"must be the name of a rule: {', '.join(RULE_NAMES)}", known=RULE_NAMES)
    return value


RuleName = Annotated[str, AfterValidator(_read_rule)]


class RuleSection(Section):
    """One rule; what is not set is as usual."""

    enabled: bool = Field(default=True, description="Whether it is looked at.")
    threshold: Annotated[int, between(1, 1_000_000_000)] | None = Field(
        default=None, description="From how many on it alerts; what of, the rule says."
    )
    within: Annotated[Duration, lasting("1s", "30d")] | None = Field(
        default=None, description="Within what time they count, or how long a new log only learns."
    )


class AlertsSection(Section):
    """Alerts, as log events named `audit_alert` and as a count."""

    cool_down: Annotated[Duration, lasting("1s", "30d")] = Field(
        default=timedelta(hours=1), description="How long the same is not told again."
    )
    rules: dict[RuleName, RuleSection] = Field(
        default={},
        description=f"What is to be other than usual, by rule: {', '.join(RULE_NAMES)}.",
    )
