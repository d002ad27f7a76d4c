"""One writer's chain on disk: segments that open by naming what they follow and close when full."""

import errno
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from broker.audit.chain import Head, link
from broker.audit.durable import DurableHead
from broker.audit.entry import Clock
from broker.audit.follow import Position
from broker.audit.log_id import read_log_id
from broker.audit.record import VERSION, Event, Record, rfc3339
from broker.audit.segments import (
    AuditLogRefused,
    SegmentFile,
    WriterLock,
    find_segments,
    prepare_directory,
    read_tail,
    segment_name,
    sync_directory,
)

DEFAULT_SEGMENT_BYTES: Final = 64 * 1024 * 1024

Note = Callable[[bytes, int, Position], None]
"""Is given lines that are on disk now, the number of the first, and where the chain goes on after them."""


class DiskChain:
    """
    The chain of one writer id, for one thread of one process.

    Each segment begins with a ``chain.opened`` record, which names the log, linked to the last line of the
    segment before, and ends with ``chain.closed`` unless its process died. After any ``OSError`` the chain
    accepts nothing until ``open`` has begun a new segment: what a file holds after a failed sync
    is not known, so nothing is ever added to it. ``note`` is told of every line once it is durable, those
    of the chain itself included, and must not raise.
    """

    def __init__(
        self,
        directory: Path,
        *,
        writer: str,
        now: Clock,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
        note: Note | None = None,
    ) -> None:
        self._note = note
        self._directory = directory
        self._writer = writer
        self._now = now
        self._segment_bytes = segment_bytes
        self._lock = WriterLock(directory, writer=writer)
        self._durable = DurableHead(directory, writer=writer)
        self._boot_id = secrets.token_hex(8)
        self._log_id: str | None = None
        self._head: Head | None = None
        self._number = 0
        self._torn_bytes = 0
        self._segment: SegmentFile | None = None

    @property
    def is_open(self) -> bool:
        """Whether records can be added; when not, ``open`` must come first."""
        return self._segment is not None

    @property
    def next_number(self) -> int:
        """No record that is still to be added gets a lower number; any thread may ask."""
        head = self._head
        return 0 if head is None else head.seq

    def open(self, cause: str, *, detail: str = "") -> None:
        """
        Begin a new segment after whatever is on disk, the chain's own last word first.

        Raises ``OSError`` when the disk does not let it, ``AuditLogRefused`` when the chain cannot
        be continued as it is.
        """
        prepare_directory(self._directory)
        self._lock.hold()
        try:
            self._begin_segment(cause, detail)
        except AuditLogRefused:
            self._lock.release()
            raise

    def append(self, records: Sequence[Record]) -> None:
        """
        Link the records, write them and sync; on return they are on disk.

        When they fill the segment it is closed with them. Raises ``OSError`` when they could not be
        kept: then they are no part of the chain, and ``open`` must come before any others.
        """
        segment = self._segment
        if segment is None or self._head is None:
            raise OSError(errno.EBADF, "the audit chain is not open")
        data, head = link(records, self._head, writer=self._writer)
        is_last = segment.size + len(data) >= self._segment_bytes
        if is_last:
            closing = self._own_record("chain.closed", self._number, cause="rotation")
            closing_data, head = link([closing], head, writer=self._writer)
            data += closing_data
        try:
            segment.append(data)
        except OSError:
            self._leave_segment()
            raise
        since, self._head = self._head.seq, head
        self._tell(data, since, segment)
        if is_last:
            self._leave_segment()

    def close(self) -> None:
        """Close the chain with a last record, where the disk lets it, and release the writer id."""
        if self._segment is not None:
            with suppress(OSError):
                self.append([self._own_record("chain.closed", self._number, cause="stop")])
        self._leave_segment()
        self._durable.close()
        self._lock.release()

    def _begin_segment(self, cause: str, detail: str) -> None:
        self._log_id = self._log_id or read_log_id(self._directory)
        segments = find_segments(self._directory).get(self._writer, {})
        if self._head is None:
            tail = read_tail(segments)
            self._head, self._torn_bytes = tail.head, tail.torn_bytes
        self._durable.begin(self._head)
        number = self._free_number(max(self._number, *segments, 0) + 1)
        opening = self._own_record("chain.opened", number, cause=cause, detail=detail or None)
        opening.log_id, opening.torn_bytes = self._log_id, self._torn_bytes or None
        data, head = link([opening], self._head, writer=self._writer)
        segment = SegmentFile.create(self._directory / segment_name(self._writer, number))
        try:
            segment.append(data)
            sync_directory(self._directory)
        except OSError:
            segment.discard()
            raise
        since = self._head.seq
        self._segment, self._head, self._number, self._torn_bytes = segment, head, number, 0
        self._tell(data, since, segment)

    def _free_number(self, number: int) -> int:
        """The number, or the next one whose name is not taken by what is no segment."""
        while os.path.lexists(self._directory / segment_name(self._writer, number)):
            number += 1
        return number

    def _tell(self, data: bytes, since: int, segment: SegmentFile) -> None:
        """What was written is durable."""
        if self._head is None:
            return
        self._durable.tell(self._head)
        if self._note is not None:
            self._note(data, since, Position(self._number, segment.size, self._head))

    def _leave_segment(self) -> None:
        """Close the segment, and remember how much it holds that does not belong to the chain."""
        if self._segment is not None:
            self._torn_bytes = self._segment.loose_bytes
            self._segment.close()
            self._segment = None

    def _own_record(
        self, event: Event, number: int, *, cause: str, detail: str | None = None
    ) -> Record:
        """A record about the chain itself. Its id is unique, as the number of a segment is."""
        return Record(
            v=VERSION,
            event=event,
            event_id=f"{segment_name(self._writer, number)}#{event}",
            time=rfc3339(self._now()),
            decision="info",
            boot_id=self._boot_id,
            cause=cause,
            detail=detail,
        )
