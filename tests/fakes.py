"""Fakes of the seams, which pass the same contract tests as the real parts."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from broker.audit.entry import Clock, Entry, audit_logger
from broker.audit.record import Record
from broker.errors import Reason, TemporarilyUnavailable
from broker.model import RequestContext


class RecordingAuditLog:
    """
    An audit log that keeps finished records in ``records``, oldest first, as they would be written.

    While ``is_available`` is false it keeps nothing and refuses.
    """

    def __init__(self, *, now: Clock = lambda: 1_800_000_000) -> None:
        self.records: list[Mapping[str, Any]] = []
        self.is_available = True
        self._logger = audit_logger(self, now=now)

    def entry(self, event: str, context: RequestContext) -> Entry:
        return Entry(self._logger, event, context, lambda: f"{'0' * 16}/w1/{len(self.records)}")

    def append(self, records: Sequence[Record]) -> None:
        """Keep finished records: the end of the pipeline."""
        self.check()
        self.records.extend(msgspec.to_builtins(record) for record in records)

    def check(self) -> None:
        if not self.is_available:
            raise TemporarilyUnavailable(Reason.AUDIT_UNAVAILABLE, detail="audit log: fake")

    def close(self) -> None:
        self.is_available = False
