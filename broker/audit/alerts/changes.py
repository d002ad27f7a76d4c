"""Changes of what is in force."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

from broker.audit.alerts.rule import Finding, Rule, Terms
from broker.audit.record import Record


class Changes(Rule):
    """
    Another configuration or policy set came in force or was refused, or the broker starts with another.

    Neither the threshold nor ``within`` has a meaning.
    """

    name: ClassVar = "changes"

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._digest = ""

    def see(self, record: Record, at: float) -> Iterator[Finding]:  # noqa: ARG002 - it is the order that counts.
        digest = record.policy_digest or ""
        if record.event in {"config.loaded", "config.rejected"}:
            self._digest = digest if record.event == "config.loaded" else self._digest
            facts = {"record_event": record.event, "policy_digest": digest}
            yield Finding(f"{record.event}\0{digest}\0{record.detail or ''}", record, facts)
        elif record.event == "service.started" and digest:
            before, self._digest = self._digest, digest
            if before not in {"", digest}:
                facts = {"record_event": record.event, "policy_digest": digest}
                yield Finding(f"{record.event}\0{digest}", record, facts)

    def memory(self) -> Sequence[str]:
        return [self._digest]

    def recall(self, lines: Sequence[str]) -> None:
        for line in lines[:1]:
            self._digest = line[:128]
