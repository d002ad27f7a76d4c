"""What ties a worker process to its supervisor: orders downwards, a short report upwards, one fate."""

import ctypes
import os
import select
import signal
import socket
import sys
from dataclasses import dataclass
from types import FrameType
from typing import Annotated, Self

import msgspec

from broker.orders import Order, OrderBoard

REPORT_LIMIT = 4096
"""The greatest size of a report in bytes. A larger one is neither sent nor read."""

ORPHANED = 71
"""The exit status of a process that ended because its supervisor did."""

_PR_SET_PDEATHSIG = 1
# It is found before any fork, since a process of many threads may do little between fork and exec.
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

Name = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_.-]{0,31}$")]
ReasonCode = Annotated[str, msgspec.Meta(pattern="^[a-z0-9_]{0,63}$")]


def end_with_parent(signum: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent dies, in whatever way; Linux alone can."""
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)


@dataclass(frozen=True, slots=True)
class CheckStatus:
    """
    How one check of a worker stands: ``reason`` is the code of why it fails, empty while it is well.

    ``since`` is the moment of the monotonic clock, in seconds, since which it has stood so, and
    ``well_at`` the one at which it will be well by itself, where that is known.
    """

    name: Name
    reason: ReasonCode
    since: float
    well_at: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """
    What a worker says about itself. ``generation`` is the newest reload order that it carried out.

    ``at`` is the moment of the monotonic clock, in seconds, at which it was said. All processes of
    a machine share that clock, so a report that lay in a queue does not pass for a fresh one.
    """

    worker: Name
    pid: int
    at: float
    generation: int
    checks: Annotated[tuple[CheckStatus, ...], msgspec.Meta(max_length=16)]

    def encode(self) -> bytes:
        """The report as it travels. Nothing in it is secret."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, report: bytes) -> Self:
        """Read a report. Raises ``ValueError`` for anything that is not exactly one."""
        if len(report) > REPORT_LIMIT:
            raise ValueError("The report is too large.")
        return msgspec.json.decode(report, type=cls)


class Lifeline:
    """
    A worker's end of the ties.

    It is made in the supervisor, before the fork, and passes through every further fork. ``inbox``
    is where the reports of all workers arrive; only the control process reads it. ``first`` is the
    number of the newest order at that time: what the supervisor had loaded by then is what the worker
    starts from.
    """

    def __init__(
        self,
        name: str,
        board: OrderBoard,
        *,
        parent: int,
        outbox: socket.socket,
        inbox: socket.socket,
    ) -> None:
        self.name = name
        self.inbox = inbox
        self.first = board.generation
        self._board = board
        self._parent = parent
        self._outbox = outbox
        self._tied_pid = 0
        self._is_stopping = False
        self._wake: tuple[int, int] | None = None

    @property
    def draining(self) -> bool:
        """Whether the broker is about to stop and wants no new requests."""
        return self._board.is_draining

    @property
    def generation(self) -> int:
        """How often a reload was ordered; 0 is the configuration that the supervisor started with."""
        return self._board.generation

    @property
    def order(self) -> Order | None:
        """The newest order; ``None`` when it was just replaced, so ask again."""
        return self._board.newest()

    @property
    def is_orphaned(self) -> bool:
        """Whether the supervisor is gone. A worker that finds itself so must end at once."""
        return self._ready(self._parent, timeout=0)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What becomes readable, and stays so, when ``wait`` would end; for an event loop to watch."""
        return (self._parent,) if self._wake is None else (self._parent, self._wake[0])

    def tie(self, supervisor_pid: int) -> None:
        """
        Bind the calling process, a direct child of the supervisor, to orders and fate.

        From here on SIGTERM ends ``wait`` instead of the process. Called in the main thread.
        """
        self._tied_pid = os.getpid()
        self._wake = os.pipe()
        os.set_blocking(self._wake[1], False)
        signal.signal(signal.SIGTERM, self._ask_to_stop)
        # Handlers run in the main thread alone, but any thread may be the one that takes the signal;
        # the main one would then sleep on in ``wait``. This writes from whichever it is.
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        self._die_with(supervisor_pid)

    def share_fate(self) -> None:
        """
        Bind a process that a tied process forked, such as a server's own worker, to its parent.

        Does nothing in the tied process itself. Called in the main thread, which must live on: the
        kernel forgets the wish with the thread that made it.
        """
        if self._tied_pid not in {0, os.getpid()}:
            # The pipe is the parent's, and so are the signals that it tells of.
            signal.set_wakeup_fd(-1)
            self._die_with(self._tied_pid)

    def wait(self, timeout: float | None = None) -> bool:
        """
        Wait until this process is asked to stop, or ``timeout`` seconds; tell whether it is.

        A supervisor that is gone counts as having asked.
        """
        return self._ready(*self.descriptors, timeout=timeout) or self._is_stopping

    def report(self, status: WorkerStatus) -> bool:
        """Send a report without waiting; it is dropped, and ``False`` told, when nobody takes it."""
        report = status.encode()
        if len(report) > REPORT_LIMIT:
            return False
        try:
            self._outbox.send(report)
        except OSError:
            return False
        return True

    def _ask_to_stop(self, _signum: int, _frame: FrameType | None) -> None:
        self._is_stopping = True
        if self._wake is not None and os.getpid() == self._tied_pid:
            _poke(self._wake[1])

    @staticmethod
    def _ready(*descriptors: int, timeout: float | None) -> bool:
        # Polling needs no descriptor of its own, so it works even when these have run out.
        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))

    def _die_with(self, parent_pid: int) -> None:
        """
        Ask the kernel to kill this process as soon as its parent dies, in whatever way.

        Where the kernel cannot, the pipe's end tells whoever asks ``is_orphaned`` or ``wait``.
        """
        end_with_parent(signal.SIGKILL)
        # The parent may have died before the kernel was asked.
        if os.getppid() != parent_pid or self.is_orphaned:
            os._exit(ORPHANED)


class Anchor:
    """The supervisor's end of the ties: it gives the orders, and lifelines notice its death."""

    def __init__(self) -> None:
        self._board = OrderBoard()
        self._alive_read, self._alive_write = os.pipe()
        self._inbox, self._outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._inbox.setblocking(False)
        self._outbox.setblocking(False)

    @property
    def generation(self) -> int:
        """How often a reload was ordered."""
        return self._board.generation

    def drain(self) -> None:
        """Tell all processes that the broker is about to stop."""
        self._board.drain()

    def order_reload(self, order: Order) -> None:
        """Tell all workers what is in force now; the order gets its number here."""
        self._board.order(order)

    def lifeline(self, name: str) -> Lifeline:
        """A lifeline for the worker of that name, to be tied in its own process."""
        return Lifeline(
            name, self._board, parent=self._alive_read, outbox=self._outbox, inbox=self._inbox
        )

    def let_go(self) -> None:
        """
        Close the end that only the supervisor may hold.

        Each forked process calls this first: a pipe ends only when its last writer is gone.
        """
        if self._alive_write >= 0:
            os.close(self._alive_write)
            self._alive_write = -1

    def close(self) -> None:
        """Close all; whoever still hangs on a lifeline is orphaned."""
        self.let_go()
        os.close(self._alive_read)
        self._inbox.close()
        self._outbox.close()


def _poke(descriptor: int) -> None:
    # A full pipe already wakes its reader.
    try:
        os.write(descriptor, b"!")
    except BlockingIOError:
        return
