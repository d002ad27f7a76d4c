"""Requests as an audit log sees them, and waiting until it serves again."""

import threading
import time
from pathlib import Path

from broker.audit.log import FileAuditLog
from broker.audit.reader import read_records
from broker.errors import TemporarilyUnavailable
from broker.interfaces import AuditLog
from broker.model import RequestContext

NOW = 1_800_000_000


def open_log(directory: Path, *, writer: str = "w1", write_timeout: float = 30.0) -> FileAuditLog:
    """A log with a clock that stands and patience with a busy machine."""
    return FileAuditLog(directory, writer=writer, now=lambda: NOW, write_timeout=write_timeout)


def write(log: AuditLog, *event_ids: str) -> None:
    """Permitted requests, one after the other."""
    for event_id in event_ids:
        with log.entry("token.issue", RequestContext("grpc", event_id)) as entry:
            entry.note(client_id="agent-x")


def write_group(log: AuditLog, event_id: str, *, parts: int) -> None:
    """A permitted request for several tokens, each with much to record."""
    with log.entry("token.issue", RequestContext("grpc", event_id)) as entry:
        for _ in range(parts):
            with entry.part() as part:
                part.note(client_id="agent-x", detail="much to tell " * 70)


def try_to_write(log: AuditLog, event_id: str, *, parts: int = 0) -> bool:
    """Whether the request was recorded, and so may be answered."""
    try:
        if parts:
            write_group(log, event_id, parts=parts)
        else:
            write(log, event_id)
    except TemporarilyUnavailable:
        return False
    return True


def is_serving(log: AuditLog) -> bool:
    """Whether the log passes its check."""
    try:
        log.check()
    except TemporarilyUnavailable:
        return False
    return True


def wait_until_serving(log: AuditLog) -> None:
    """Return once the log has recovered by itself."""
    deadline = time.monotonic() + 60
    while not is_serving(log):
        assert time.monotonic() < deadline, "the log never recovered"
        threading.Event().wait(0.01)


def recorded(directory: Path) -> list[str]:
    """The ids of the requests recorded, in order."""
    records = read_records(directory)
    return [record.event_id for record in records if record.event == "token.issue"]
