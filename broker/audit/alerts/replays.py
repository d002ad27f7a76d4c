"""One-time tokens that come again."""

from collections.abc import Iterator
from typing import ClassVar, Final

from broker.audit.alerts.known import Known, Rate
from broker.audit.alerts.rule import Finding, Rule, Terms, client_named
from broker.audit.record import Record
from broker.errors import Reason

_MOST_CLIENTS: Final = 4096


class Replays(Rule):
    """A client presented spent assertions or other one-time tokens, ``threshold`` times ``within``."""

    name: ClassVar = "replays"

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._rates: Known[Rate] = Known(_MOST_CLIENTS)

    def see(self, record: Record, at: float) -> Iterator[Finding]:
        if record.reason != Reason.REPLAY.code:
            return
        client = client_named(record)
        rate = self._rates.get(client)
        if rate is None:
            rate = Rate(self._terms.within)
            self._rates.put(client, rate)
        if (count := rate.count(at)) >= self._terms.threshold:
            yield Finding(client, record, {"replays": count})

    def begin_anew(self) -> None:
        self._rates = Known(_MOST_CLIENTS)
