"""Records as the rules see them, and what they make of them."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import structlog

from broker.audit.alerts.alerts import Alerts
from broker.audit.alerts.rule import Rule, Status
from broker.audit.alerts.table import RULES
from broker.audit.alerts.terms import AlertTerms, RuleTerms
from broker.audit.record import VERSION, Record, rfc3339

NOW = 1_800_000_000.0
DAY = 86_400.0
CLIENT, RESOURCE = "agent-x", "https://tickets.mcp.test/mcp"


def issued(at: float = NOW, **facts: Any) -> Record:
    """A token that was issued."""
    told = {"client_id": CLIENT, "resource": RESOURCE, "event": "token.issue", "decision": "permit"}
    return Record(**{"v": VERSION, "event_id": f"at-{at}", "time": rfc3339(at), **told, **facts})


def denied(at: float = NOW, **facts: Any) -> Record:
    """A request that was refused."""
    return issued(at, **{"decision": "deny", "reason": "policy_no_permit", **facts})


class Telling:
    """Alerts of one rule, and everything that they told."""

    def __init__(
        self,
        rule: str,
        *,
        cool_down: float = 3600,
        threshold: int | None = None,
        within: float | None = None,
        rules: Sequence[type[Rule]] = RULES,
    ) -> None:
        self.clock = 0.0
        self.counted: list[str] = []
        self.told: list[Mapping[str, Any]] = []
        self.rule = rule
        terms = {one.name: RuleTerms(is_on=False) for one in rules}
        terms[rule] = RuleTerms(
            threshold=threshold, within=None if within is None else timedelta(seconds=within)
        )
        self.alerts = Alerts(
            AlertTerms(timedelta(seconds=cool_down), terms),
            count=self.counted.append,
            clock=lambda: self.clock,
            rules=rules,
        )

    def see(self, *records: Record, is_past: bool = False) -> int:
        """Show the records; how many alerts came of them."""

        def show() -> None:
            for one in records:
                self.alerts.see(one, is_past=is_past)

        return self._heard(show)

    def look(self, at: float = NOW, **facts: Any) -> int:
        """Show how things stand; how many alerts came of it."""
        return self._heard(lambda: self.alerts.look(Status(at, **facts)))

    def _heard(self, act: Any) -> int:
        with structlog.testing.capture_logs() as told:
            act()
        assert all(one["event"] == "audit_alert" for one in told)
        assert all(one["rule"] == self.rule for one in told)
        self.told += told
        return len(told)
