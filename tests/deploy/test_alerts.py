"""The rules for alerts ask for what the broker measures, and each says what to do."""

import re
from datetime import timedelta
from typing import Any

import promql_parser
import pytest

from tests.deploy.chart import DEPLOY, ROOT, Document, read_yaml
from tests.deploy.promql import Selector, complaints, family, selectors, templates

_FILE = DEPLOY / "alerts" / "rules.yaml"
_MEMBERS = {"alert", "expr", "for", "labels", "annotations"}
RULES: dict[str, Document] = {
    rule["alert"]: rule
    for group in read_yaml(_FILE.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}


def test_the_file_is_made_as_prometheus_reads_it() -> None:
    document: dict[str, Any] = read_yaml(_FILE.read_text(encoding="utf-8"))

    assert set(document) == {"groups"}
    (group,) = document["groups"]
    assert set(group) == {"name", "rules"}
    assert len(group["rules"]) == len(RULES)
    for rule in group["rules"]:
        assert set(rule) <= _MEMBERS
        assert re.fullmatch(r"Broker[A-Z]\w+", rule["alert"])
        assert promql_parser.parse_duration(rule.get("for", "1m")) > timedelta(0)


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_asks_for_what_the_broker_measures(alert: str) -> None:
    asked = selectors(RULES[alert]["expr"])

    assert asked
    assert [one for selector in asked for one in complaints(selector)] == []


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_says_what_happened_and_what_to_do(alert: str) -> None:
    rule = RULES[alert]

    assert set(rule["annotations"]) == {"summary", "action"}
    assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    for text in rule["annotations"].values():
        assert len(text) > 25
        assert text.endswith(".")
    known = {label for one in selectors(rule["expr"]) for label in _labels(one)}
    assert templates(str(rule["annotations"])) <= known
    pages = re.findall(r"docs/\w+\.md", rule["annotations"]["action"])
    assert all((ROOT / page).exists() for page in pages)


def _labels(selector: Selector) -> set[str]:
    measure = family(selector.name)
    return {"instance", *(measure.labels if measure else ())}


@pytest.mark.parametrize(
    "alert",
    [
        *("BrokerNotReady", "BrokerAuditFails", "BrokerRefusesMuch", "BrokerSignerUnavailable"),
        *("BrokerStateUnavailable", "BrokerKeySourceStale", "BrokerReloadFailed"),
    ],
)
def test_nobody_has_to_look_for(alert: str) -> None:
    assert alert in RULES


@pytest.mark.parametrize("alert", RULES)
def test_a_rule_about_single_events_sees_the_first_one(alert: str) -> None:
    """A counter begins with it, so that there is no increase yet."""
    expression = RULES[alert]["expr"]

    if "increase(" in expression:
        assert "unless" in expression
        assert "offset" in expression


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("broker_request_total > 0", "there is no broker_request_total"),
        ("broker_request_seconds > 0", "there is no broker_request_seconds"),
        ('broker_requests_total{client="a"} > 0', "has no label client"),
        ('broker_requests_total{reason="signer_missing"} > 0', "is never signer_missing"),
        ('broker_requests_total{reason=~"replay|reply"} > 0', "is never replay|reply"),
        ('broker_check_passed{check="audits"} == 0', "is never audits"),
        ("sum(rate(broker_sign_seconds_bukcet[5m]))", "there is no broker_sign_seconds_bukcet"),
    ],
)
def test_a_mistake_in_an_expression_would_be_noticed(expression: str, complaint: str) -> None:
    told = [one for selector in selectors(expression) for one in complaints(selector)]

    assert any(complaint in one for one in told), told


@pytest.mark.parametrize(
    "expression",
    ["sum(rate(broker_requests_total))", "broker_ready ==", "sum by instance (broker_ready)"],
)
def test_an_expression_that_prometheus_does_not_read_would_be_noticed(expression: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        selectors(expression)
