"""A small record on disk, by the real writer, and the questions to it by the real index."""

from pathlib import Path

from broker.audit.disk import DiskChain
from broker.audit.record import Record
from tests.audit.telling import records


def write(directory: Path, *told: Record, writer: str = "http-0") -> Path:
    """The records as a chain of their own, closed in order."""
    directory.mkdir(mode=0o700, exist_ok=True)
    chain = DiskChain(directory, writer=writer, now=lambda: float(records.NOW), segment_bytes=2**20)
    chain.open("start")
    chain.append(list(told))
    chain.close()
    return directory


def write_usual(directory: Path) -> Path:
    """A login, an exchange, one that was refused, and a question about the token."""
    asked = records.of_event("token.introspect")
    asked.event_id = "01a2-asked"
    refused = records.denied(event_id="01a2-refused")
    return write(directory, records.login(), records.exchange(), refused, asked)
