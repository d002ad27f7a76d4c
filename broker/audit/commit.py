"""The group commit: many threads wait, one thread writes, one sync serves all of them."""

import errno
import os
import threading
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Final

import structlog

from broker.audit.disk import DiskChain
from broker.audit.record import Record
from broker.audit.sinks.destination import SinkFailed
from broker.audit.sinks.required import RequiredSinks
from broker.errors import Reason, TemporarilyUnavailable

_log = structlog.get_logger("broker.audit")

_MOST_WAITING: Final = 4096
_LARGEST_BATCH: Final = 512
_PROBE_INTERVAL: Final = 0.25


class _Waiting:
    """Records and the thread that waits for them to be on disk, or without any the wish to stop."""

    __slots__ = ("is_durable", "is_settled", "records")

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.is_durable = False
        self.is_settled = threading.Lock()
        self.is_settled.acquire()

    def settle(self, *, is_durable: bool) -> None:
        self.is_durable = is_durable
        self.is_settled.release()


class GroupCommit:
    """
    Writes the records of many threads to one chain, from a thread of its own.

    After a failure it refuses at once and tries four times a second to begin a new segment; when
    that works it accepts again, by itself. ``timeout`` is in seconds and bounds every wait; a write
    that takes longer refuses those who come after it at once. What the chain notes goes to ``sinks``
    too, after the disk has it, before anybody is told that it is kept; a sink that does not take it closes
    the log as a disk does, and has it first when it takes again.
    """

    def __init__(
        self, chain: DiskChain, *, timeout: float, sinks: RequiredSinks | None = None
    ) -> None:
        self._chain = chain
        self._sinks = sinks
        self._timeout = timeout
        self._process = os.getpid()
        self._queue: SimpleQueue[_Waiting] = SimpleQueue()
        self._failure = ""
        self._busy_since: float | None = None
        self._is_closed = False
        try:
            chain.open("start")
            self._deliver()
        except (OSError, SinkFailed) as failure:
            self._fail(failure)
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def write(self, records: Sequence[Record]) -> None:
        """
        Return once the records are kept, one after the other, in one segment.

        Raises ``TemporarilyUnavailable`` when they are not; after a timeout they may still get there.
        """
        self.check()
        if self._queue.qsize() >= _MOST_WAITING:
            raise _unavailable("too many records are waiting")
        waiting = _Waiting(records)
        self._queue.put(waiting)
        if not waiting.is_settled.acquire(timeout=self._timeout):
            raise _unavailable("the write takes too long")
        if not waiting.is_durable:
            raise _unavailable(self._failure or "the write failed")

    def check(self) -> None:
        """Raise ``TemporarilyUnavailable`` while nothing can be written."""
        if self._is_closed:
            raise _unavailable("closed")
        if self._failure:
            raise _unavailable(self._failure)
        if os.getpid() != self._process:
            raise _unavailable("opened by another process")
        since = self._busy_since
        if since is not None and time.monotonic() - since > self._timeout:
            raise _unavailable("the write takes too long")

    def close(self) -> None:
        """Write what waits, close the chain, and stop."""
        if self._is_closed or os.getpid() != self._process:
            return
        self._is_closed = True
        self._queue.put(_Waiting(()))
        self._thread.join(self._timeout)

    def _run(self) -> None:
        is_running = True
        while is_running:
            batch = self._next_batch()
            self._busy_since = time.monotonic()
            waiting = [one for one in batch if one.records]
            is_running = len(waiting) == len(batch)
            if waiting:
                self._commit(waiting)
            elif self._failure and is_running:
                self._reopen("recovery")
            self._busy_since = None
        self._chain.close()
        if self._sinks is not None:
            self._sinks.close()

    def _deliver(self) -> None:
        if self._sinks is not None:
            self._sinks.deliver()

    def _next_batch(self) -> Sequence[_Waiting]:
        """All that wait; none when it is time to probe a failed disk."""
        try:
            batch = [self._queue.get(timeout=_PROBE_INTERVAL if self._failure else None)]
        except Empty:
            return []
        # Nobody else takes from the queue, so what it holds now is there.
        more = min(self._queue.qsize(), _LARGEST_BATCH - 1)
        batch += [self._queue.get_nowait() for _ in range(more)]
        return batch

    def _commit(self, batch: Sequence[_Waiting]) -> None:
        is_durable = False
        if not self._failure:
            try:
                self._chain.append([record for one in batch for record in one.records])
                self._deliver()
                is_durable = True
            except Exception as failure:  # noqa: BLE001 - whatever it was, nothing may leave.
                self._fail(failure)
        for waiting in batch:
            waiting.settle(is_durable=is_durable)
        if not self._chain.is_open and not self._failure:
            self._reopen("rotation")

    def _reopen(self, cause: str) -> None:
        """Begin a segment where there is none; who refuses it closes the log until it is accepted."""
        try:
            if not self._chain.is_open:
                self._chain.open(cause, detail=self._failure)
            self._deliver()
        except Exception as failure:  # noqa: BLE001 - the thread outlives whatever it was.
            self._fail(failure)
        else:
            if self._failure:
                _log.warning("audit_log_open_again", after=self._failure)
            self._failure = ""

    def _fail(self, failure: Exception) -> None:
        number = failure.errno if isinstance(failure, OSError) else None
        reason = errno.errorcode.get(number or 0) or type(failure).__name__
        if isinstance(failure, SinkFailed):
            reason = failure.reason
        if reason != self._failure:
            _log.error("audit_log_closed", reason=reason, error=str(failure))
        self._failure = reason


def _unavailable(detail: str) -> TemporarilyUnavailable:
    return TemporarilyUnavailable(Reason.AUDIT_UNAVAILABLE, detail=f"audit log: {detail}")
