"""More denials than usual, of one client and of all together."""

from collections.abc import Iterator
from typing import ClassVar, Final

from broker.audit.alerts.known import Known, Rate
from broker.audit.alerts.rule import Finding, Rule, Terms
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
        # Whoever only says to be a client uses up no alert of that client.
        client = record.client_id or f"\0{record.unverified_client_id or ''}".rstrip("\0")
        if record.decision != "deny" or not client:
            return
        rate = self._rates.get(client)
        if rate is None:
            rate = Rate(self._terms.within)
            self._rates.put(client, rate)
        if (count := rate.count(at)) > self._terms.threshold:
            yield Finding(client, record, {"denials": count})


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
