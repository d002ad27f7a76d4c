"""From what rules find to alerts: each told once in a while, in a log event and a count."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from broker.audit.alerts.known import Known
from broker.audit.alerts.rule import Finding, Rule, Status, Terms
from broker.audit.alerts.table import RULES
from broker.audit.alerts.terms import AlertTerms, RuleTerms
from broker.audit.facts import bounded_id
from broker.audit.record import Record

_MOST_REMEMBERED: Final = 4096
_MOST_AT_ONCE: Final = 20
"""So many different alerts of one rule are told in one cool-down; the others are counted."""
_STEP: Final = 5.0
"""By so many seconds a clock goes back only where somebody sets it."""
_PARTIES: Final = (
    "event_id",
    "writer",
    "seq",
    "time",
    "client_id",
    "unverified_client_id",
    "mcp_client",
    "mcp_server",
    "resource",
    "subject",
    "tenant",
    "face",
    "reason",
)

_log = structlog.get_logger("broker.audit.alerts")


@dataclass(slots=True)
class _Turn:
    """What a rule has told since its cool-down began anew, and what it has kept to itself."""

    ends_at: float = 0.0
    told: int = 0
    untold: int = 0


class Alerts:
    """
    Shows every record to every rule, for one thread.

    ``count`` is given the name of the rule of each alert, whether there is a log event of it or not. The same
    is told again after a cool-down. ``clock`` is monotonic, in seconds; no record is taken to be
    of later than ``now``, in unix seconds.
    """

    def __init__(
        self,
        terms: AlertTerms,
        *,
        count: Callable[[str], None] = lambda _rule: None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = lambda: math.inf,
        rules: Sequence[type[Rule]] = RULES,
    ) -> None:
        self._cool_down = terms.cool_down.total_seconds()
        self._count = count
        self._clock = clock
        self._now = now
        self._rules = [
            made for rule in rules if (made := _made(rule, terms.rules.get(rule.name))) is not None
        ]
        self._ahead = -math.inf
        self._told: Known[float] = Known(_MOST_REMEMBERED)
        self._turns = {
            (rule.name, is_proved): _Turn() for rule in self._rules for is_proved in (False, True)
        }

    def see(self, record: Record, *, is_past: bool = False) -> None:
        """Look at a record; at one of the past only to learn from it."""
        at = _moment(record)
        if at is None:
            return
        # A clock that was ahead for a moment must not make all that comes later look old.
        at = min(at, self._moment())
        for rule in self._rules:
            findings = rule.see(record, at)
            if is_past:
                list(findings)
            else:
                self._tell(rule, findings)

    def look(self, status: Status) -> None:
        """Look at how things stand."""
        for rule in self._rules:
            self._tell(rule, rule.look(status))

    def memory(self) -> Mapping[str, Sequence[str]]:
        """What the rules want to know after a restart, by their names."""
        return {rule.name: rule.memory() for rule in self._rules}

    def recall(self, memory: Mapping[str, Sequence[str]]) -> None:
        """Give the rules what they wanted to know."""
        for rule in self._rules:
            rule.recall(memory.get(rule.name, ()))

    def _moment(self) -> float:
        now = self._now()
        ahead = now - self._clock()
        if ahead < self._ahead - _STEP:
            # Else all would look old until the clock is where it was.
            for rule in self._rules:
                rule.begin_anew()
            self._ahead = ahead
        self._ahead = max(self._ahead, ahead)
        return now

    def _tell(self, rule: Rule, findings: Iterable[Finding]) -> None:
        for finding in findings:
            now = self._clock()
            name = f"{rule.name}\0{finding.about}"
            until = self._told.get(name)
            if until is None or now >= until:
                self._told.put(name, now + self._cool_down)
                self._count(rule.name)
                self._log(rule, finding, now)

    def _log(self, rule: Rule, finding: Finding, now: float) -> None:
        # What anybody can cause without a credential uses up nothing that clients are told of by.
        is_proved = finding.record is None or finding.record.client_id is not None
        turn = self._turns[rule.name, is_proved]
        untold = 0
        if now >= turn.ends_at:
            untold, turn.untold = turn.untold, 0
            turn.told, turn.ends_at = 0, now + self._cool_down
        if turn.told >= _MOST_AT_ONCE:
            turn.untold += 1
            return
        turn.told += 1
        facts = {**_parties(finding.record), **_bounded(finding.facts)}
        if untold:
            facts["untold_before"] = untold
        tell = _log.critical if rule.is_grave else _log.warning
        tell("audit_alert", rule=rule.name, **facts)


def _made(rule: type[Rule], said: RuleTerms | None) -> Rule | None:
    said = said or RuleTerms()
    if not said.is_on:
        return None
    threshold = rule.usual_threshold if said.threshold is None else said.threshold
    within = rule.usual_within if said.within is None else said.within
    return rule(Terms(threshold, within.total_seconds()))


def _parties(record: Record | None) -> dict[str, str | int]:
    found = {name: getattr(record, name, None) for name in _PARTIES}
    return _bounded({name: fact for name, fact in found.items() if fact not in {None, ""}})


def _bounded(facts: Mapping[str, str | int | None]) -> dict[str, str | int]:
    """The facts as a record would hold them: whoever can write to the files could write anything there."""
    return {
        name: bounded_id(fact) if isinstance(fact, str) else int(fact)
        for name, fact in facts.items()
        if fact is not None
    }


def _moment(record: Record) -> float | None:
    try:
        moment = datetime.fromisoformat(record.time)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo is not None else None
