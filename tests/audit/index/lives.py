"""Small audit directories with something to ask about."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from broker.audit.disk import DiskChain
from broker.audit.index.reader import SqliteAuditReader
from broker.audit.query import Found
from broker.audit.record import VERSION, InputFact, Record, rfc3339

NOW = 1_800_000_000


def issue(number: int, *, at: float | None = None, **facts: Any) -> Record:
    """A record of a token that was issued, unless the facts say otherwise."""
    told: dict[str, Any] = {
        "v": VERSION,
        "event": "token.issue",
        "event_id": f"event-{number}",
        "time": rfc3339(NOW + number if at is None else at),
        "decision": "permit",
        "jti": f"token-{number}",
    }
    return Record(**told | facts)


def presented(
    jti: str, *, slot: str = "subject", issuer: str = "https://broker.example"
) -> InputFact:
    """A token that was presented."""
    return InputFact(slot=slot, issuer=issuer, expires_at=NOW + 300, jti=jti)


class Life:
    """A directory to which records are added, and its reader."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.directory = directory
        self.reader = SqliteAuditReader(directory, **options)
        self._chains: dict[str, DiskChain] = {}

    def write(self, *records: Record, writer: str = "w1") -> None:
        """Add records to the chain of a writer."""
        self.chain(writer).append(records)

    def chain(self, writer: str = "w1", *, segment_bytes: int = 1_000_000) -> DiskChain:
        """The chain of a writer, open."""
        chain = self._chains.get(writer)
        if chain is None:
            chain = DiskChain(
                self.directory, writer=writer, now=lambda: float(NOW), segment_bytes=segment_bytes
            )
            self._chains[writer] = chain
        if not chain.is_open:
            chain.open("start")
        return chain

    def tell(self, *records: Record, writer: str = "w1") -> SqliteAuditReader:
        """Add records, and let the index know."""
        self.write(*records, writer=writer)
        self.reader.catch_up()
        return self.reader

    def close(self) -> None:
        """Let go of all files."""
        for chain in self._chains.values():
            chain.close()
        self.reader.close()


def ids(found: Sequence[Found]) -> list[str]:
    """The ids of the records, as they came."""
    return [one.record.event_id for one in found]
