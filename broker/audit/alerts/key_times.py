"""Keys that sign before or after their time."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import ClassVar, Final

from broker.audit.alerts.known import Known
from broker.audit.alerts.rule import Finding, Rule, Status, Terms, is_issue
from broker.audit.record import KEY_EVENTS, KeyChangeFact, Record

_MOST_KEYS: Final = 1024
_MOST_ANNOUNCED: Final = 64
_MOST_DOUBTFUL: Final = 1024


@dataclass(frozen=True, slots=True)
class _Life:
    """When a key signs, as far as the record tells, in unix seconds; ``None`` is not, or not yet known."""

    from_: int | None = None
    until: int | None = None

    def changed(self, change: KeyChangeFact) -> "_Life":
        """The life after a change that was announced or seen."""
        if change.from_state == change.to_state:
            # What was announced for the key is not to come.
            return _Life() if change.to_state == "pending" else replace(self, until=None)
        if change.to_state == "active":
            return _Life(change.at, None)
        if change.to_state == "pending":
            return replace(self, from_=None)
        is_earlier = self.until is None or change.at < self.until
        return replace(self, until=change.at if is_earlier else self.until)


class KeyTimes(Rule):
    """
    A token was signed by a key before that was to sign, or after it was to sign no more.

    Clocks may differ by ``within``. Doubts are kept for twice that time, until what is known of the key in
    other chains has been read too. A key that the record says nothing of is not judged. The threshold has
    no meaning.
    """

    name: ClassVar = "key_times"
    usual_within: ClassVar = timedelta(minutes=1)

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._lives: Known[_Life] = Known(_MOST_KEYS)
        self._announced: Known[dict[str, _Life | None]] = Known(_MOST_ANNOUNCED)
        self._doubtful: deque[tuple[float, Record]] = deque(maxlen=_MOST_DOUBTFUL)

    def see(self, record: Record, at: float) -> Iterator[Finding]:
        if record.event in KEY_EVENTS:
            self._learn(record)
        elif is_issue(record) and self._fault(record):
            self._doubtful.append((at + 2 * self._terms.within, record))
        yield from ()

    def look(self, status: Status) -> Iterator[Finding]:
        while self._doubtful and self._doubtful[0][0] <= status.at:
            _, record = self._doubtful.popleft()
            if fault := self._fault(record):
                yield Finding(f"{record.kid}", record, {"kid": record.kid or "", "wrong": fault})

    def _learn(self, record: Record) -> None:
        if record.event == "key.failed":
            self._take_back(record.about or "")
            return
        before: dict[str, _Life | None] = {}
        for change in record.key_changes or ():
            life = self._lives.get(change.kid)
            before.setdefault(change.kid, life)
            self._lives.put(change.kid, (life or _Life()).changed(change))
        self._announced.put(record.event_id, before)

    def _take_back(self, about: str) -> None:
        for kid, life in (self._announced.get(about) or {}).items():
            if life is not None:
                self._lives.put(kid, life)

    def _fault(self, record: Record) -> str:
        life = self._lives.get(record.kid or "")
        if life is None or record.issued_at is None:
            return ""
        if life.until is not None and record.issued_at > life.until + self._terms.within:
            return "signed after its time"
        if life.from_ is None:
            return "" if life.until is not None else "signed while it was pending"
        is_early = record.issued_at < life.from_ - self._terms.within
        return "signed before its time" if is_early else ""
