"""The durable audit log: no answer leaves before its record is on disk."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from broker.audit.commit import GroupCommit
from broker.audit.disk import DEFAULT_SEGMENT_BYTES, DiskChain
from broker.audit.entry import Clock, Entry, audit_logger
from broker.audit.log_id import make_log_id
from broker.audit.people.naming import Naming
from broker.audit.record import Record
from broker.audit.segments import AuditLogRefused
from broker.audit.sinks.destination import Sink
from broker.audit.sinks.required import RequiredSinks
from broker.errors import Reason, TemporarilyUnavailable
from broker.model import RequestContext

Observer = Callable[[Mapping[str, Any]], None]
"""
Is told of each record once it is on disk: its id and what can be counted, as far as there is any: event,
decision, face and reason. What it raises is logged and changes nothing.
"""

_log = structlog.get_logger("broker.audit")


class FileAuditLog:
    """
    The audit log of one process, as a chain of its own in files ``<writer>.<number>.jsonl``.

    Construct it in the process that uses it, after any fork: it starts a thread and holds a lock on
    the writer id. A disk that fails closes the log, and with it everything that needs a record; the
    log opens again by itself when the disk works. ``required`` sinks must take every record as well, after
    the disk has. ``write_timeout`` is in seconds. People are named as they are called, until
    ``name_people``. Raises ``AuditLogRefused`` when the directory is not safe, the writer id is in use, or
    the chain on disk cannot be continued.
    """

    def __init__(  # noqa: PLR0913 - where the chain is, how it is written, and who else is told.
        self,
        directory: Path,
        *,
        writer: str,
        now: Clock,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
        write_timeout: float = 2.0,
        observe: Observer | None = None,
        required: Sequence[Sink] = (),
    ) -> None:
        sinks = RequiredSinks(required, directory, writer=writer, timeout=write_timeout)
        chain = DiskChain(
            directory,
            writer=writer,
            now=now,
            segment_bytes=segment_bytes,
            note=sinks.note if required else None,
        )
        self._directory = directory
        self._log_id = ""
        with suppress(OSError):
            # A disk that fails now may work when the first record is written.
            self._log_id = make_log_id(directory)
        self._writer = writer
        self._chain = chain
        self._commit = GroupCommit(chain, timeout=write_timeout, sinks=sinks if required else None)
        self._observe = observe
        self._now = now
        self._logger = audit_logger(self, now=now)

    def name_people(self, naming: Naming) -> None:
        """Have people named otherwise than as they are called, from the next record on."""
        self._logger = audit_logger(self, now=self._now, naming=naming)

    def entry(self, event: str, context: RequestContext) -> Entry:
        return Entry(self._logger, event, context, self._place)

    def _place(self) -> str:
        if not self._log_id:
            try:
                self._log_id = make_log_id(self._directory)
            except (OSError, AuditLogRefused) as failure:
                detail = f"audit log: it has no name, {type(failure).__name__}"
                raise TemporarilyUnavailable(Reason.AUDIT_UNAVAILABLE, detail=detail) from None
        return f"{self._log_id}/{self._writer}/{self._chain.next_number}"

    def append(self, records: Sequence[Record]) -> None:
        """Keep finished records; the end of the pipeline. Raises ``TemporarilyUnavailable``."""
        self._commit.write(records)
        if self._observe is not None:
            try:
                for record in records:
                    self._observe(_counted(record))
            except Exception:  # noqa: BLE001 - the record is kept, whatever metrics make of it.
                _log.exception("audit_observer_failed")

    def check(self) -> None:
        self._commit.check()

    def close(self) -> None:
        self._commit.close()


def _counted(record: Record) -> Mapping[str, Any]:
    told = {"event_id": record.event_id, "event": record.event, "decision": record.decision}
    if record.face is not None:
        told["face"] = record.face
    if record.reason is not None:
        told["reason"] = record.reason
    return told
