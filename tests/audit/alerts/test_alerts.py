"""What is told of alerts: enough, not too often, nothing that could mislead, and in bounded memory."""

import json
from collections.abc import Iterator
from typing import ClassVar

import pytest
import structlog

from broker.audit.alerts.alerts import Alerts
from broker.audit.alerts.known import Known, Rate
from broker.audit.alerts.rule import Finding, Rule
from broker.audit.alerts.table import RULE_NAMES, RULES
from broker.audit.alerts.terms import AlertTerms, RuleTerms
from broker.audit.record import Record
from tests.audit.alerts.telling import DAY, NOW, Telling, denied, issued

HOSTILE = 'x"}\r\n{"event":"forged"} \x1b[2J\u2028\u202e<script> =cmd()'
TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0." + "s" * 86


class Always(Rule):
    """Finds something in every record."""

    name: ClassVar = "always"

    def see(self, record: Record, at: float) -> Iterator[Finding]:
        yield Finding(record.client_id or "", record, {"at": int(at), "said": record.detail or ""})


def always(*, cool_down: float = 3600) -> Telling:
    return Telling("always", rules=(Always,), cool_down=cool_down)


def test_a_rule_is_one_class_and_its_line_in_the_table() -> None:
    assert len(set(RULE_NAMES)) == len(RULES) == 10
    assert all(name.isidentifier() and name.islower() for name in RULE_NAMES)
    assert always().see(issued()) == 1


def test_the_same_is_told_again_only_after_the_cool_down() -> None:
    telling = always(cool_down=60)

    assert telling.see(*[issued()] * 100) == 1
    telling.clock = 59.9
    assert telling.see(issued()) == 0
    telling.clock = 60
    assert telling.see(issued()) == 1
    assert telling.counted == ["always"] * 2


def test_many_alerts_at_once_are_counted_and_not_all_told() -> None:
    telling = always(cool_down=60)

    assert telling.see(*(issued(client_id=f"c{number}") for number in range(500))) == 20
    assert len(telling.counted) == 500
    telling.clock = 61
    assert telling.see(issued(client_id="later")) == 1
    assert telling.told[-1]["untold_before"] == 480


def test_a_rule_that_is_off_says_nothing_and_remembers_nothing() -> None:
    alerts = Alerts(AlertTerms(rules={name: RuleTerms(is_on=False) for name in RULE_NAMES}))
    with structlog.testing.capture_logs() as told:
        alerts.see(denied(reason="replay"))

    assert told == []
    assert alerts.memory() == {}


def test_the_past_is_learnt_from_and_not_told() -> None:
    telling = Telling("first_use")
    past = [issued(NOW - 30 * DAY + hour * 3600, client_id=f"c{hour}") for hour in range(100)]

    assert telling.see(*past, is_past=True) == 0
    assert telling.see(issued(NOW, client_id="c99")) == 0
    assert telling.see(issued(NOW, client_id="new")) == 1
    assert always().see(issued(), is_past=True) == 0


@pytest.mark.requirement("LOG-02")
@pytest.mark.requirement("LOG-03")
def test_hostile_values_are_text_in_the_event_and_override_nothing() -> None:
    telling = always()
    record = issued(
        client_id=HOSTILE, resource=HOSTILE, event_id=HOSTILE, detail=HOSTILE, mcp_client="rule"
    )

    assert telling.see(record) == 1
    (told,) = telling.told
    assert (told["event"], told["rule"], told["log_level"]) == ("audit_alert", "always", "warning")
    for name in ("client_id", "resource", "event_id", "said"):
        assert told[name].isprintable()
        assert "forged" in told[name]
    line = json.dumps(told)
    assert json.loads(line)["event"] == "audit_alert"


@pytest.mark.requirement("LOG-01")
def test_a_token_where_an_id_belongs_is_not_told() -> None:
    telling = always()
    telling.see(issued(client_id=TOKEN, resource=f"https://a.test/{TOKEN}", detail=TOKEN))

    assert "eyJ" not in json.dumps(telling.told)


@pytest.mark.requirement("LOG-06")
def test_giant_values_are_cut() -> None:
    telling = always()
    telling.see(issued(client_id="c" * 10**6, detail="d" * 10**6))

    assert len(json.dumps(telling.told)) < 4_000


@pytest.mark.parametrize("time", ["", "yesterday", "2027-01-15T08:00:00", "9" * 400])
def test_a_record_without_a_moment_is_passed_over(time: str) -> None:
    record = issued()
    record.time = time

    assert always().see(record) == 0


@pytest.mark.requirement("LOG-08")
def test_what_is_remembered_is_bounded_whatever_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        ("first_use", "_MOST_PAIRS"),
        ("denials", "_MOST_CLIENTS"),
        ("replays", "_MOST_CLIENTS"),
        ("depth", "_MOST_RESOURCES"),
        ("alerts", "_MOST_REMEMBERED"),
    ):
        monkeypatch.setattr(f"broker.audit.alerts.{module}.{name}", 50)
    counted: list[str] = []
    alerts = Alerts(AlertTerms(), count=counted.append)
    with structlog.testing.capture_logs():
        for number in range(2_000):
            facts = {"client_id": f"c{number}", "resource": f"https://r{number}.test/"}
            alerts.see(issued(NOW + number * 100, chain_depth=number % 9, **facts))
            alerts.see(denied(NOW + number * 100, reason="replay", **facts))

    sizes = [len(lines) for lines in alerts.memory().values()]
    assert max(sizes) <= 51
    assert len(alerts._told) == 50
    for rule in alerts._rules:
        for held in vars(rule).values():
            assert not isinstance(held, Known) or len(held) <= 64
    assert set(counted) <= set(RULE_NAMES)


def test_what_was_touched_last_is_known_longest() -> None:
    known: Known[int] = Known(2)
    known.put("a", 1)
    known.put("b", 2)
    assert known.get("a") == 1
    known.put("c", 3)

    assert (known.get("a"), known.get("b"), known.get("c")) == (1, None, 3)


def test_a_rate_forgets_what_is_long_ago_and_is_never_far_off() -> None:
    rate = Rate(60)
    assert [rate.count(1000.0 + second) for second in range(3)] == [1, 2, 3]
    assert rate.count(5000.0) == 1
    assert rate.count(1000.0) <= 2, "what comes late counts no more"

    steady = Rate(60)
    counts = [steady.count(float(second)) for second in range(10_000)]
    assert 50 <= min(counts[200:]) <= max(counts) <= 70
