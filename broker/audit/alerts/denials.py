"""More denials than usual, of one client and of all together."""

from collections.abc import Iterator
from typing import ClassVar, Final

from broker.audit.alerts.known import Known, Rate
from broker.audit.alerts.rule import Finding, Rule, Terms, client_named
from broker.audit.record import Record

_MOST_CLIENTS: Final = 4096


class ClientDenials(Rule):
    """One client was refused more than ``threshold`` times ``within`` that time, proved to be it or not."""

    name: ClassVar = "client_denials"
    usual_threshold: ClassVar = 30

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._rates: Known[Rate] = Known(_MOST_CLIENTS)

    def see(self, record: Record, at: float) -> Iterator[Finding]:
        client = client_named(record)
        if record.decision != "deny" or not client:
            return
        rate = self._rates.get(client)
        if rate is None:
            rate = Rate(self._terms.within)
            self._rates.put(client, rate)
        if (count := rate.count(at)) > self._terms.threshold:
            yield Finding(client, record, {"denials": count})

    def begin_anew(self) -> None:
        self._rates = Known(_MOST_CLIENTS)


class Denials(Rule):
    """More than ``threshold`` requests were refused ``within`` that time, whosever they were."""

    name: ClassVar = "denials"
    usual_threshold: ClassVar = 300

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._rate = Rate(terms.within)

    def see(self, record: Record, at: float) -> Iterator[Finding]:
        if record.decision != "deny":
            return
        if (count := self._rate.count(at)) > self._terms.threshold:
            yield Finding("all", record, {"denials": count})

    def begin_anew(self) -> None:
        self._rate = Rate(self._terms.within)
