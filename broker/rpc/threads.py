"""Threads for calls: as many as there are calls, and fewer again when there are fewer."""

import threading
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Final, ParamSpec

import structlog

_IDLE_SECONDS: Final = 10.0

_P = ParamSpec("_P")
_Job = tuple[Callable[[], object], "CallEnd"]
_Inbox = SimpleQueue[_Job]

_log = structlog.get_logger("broker.rpc")


class CallEnd:
    """The end of a call, of which gRPC wants to be told; a future of which nobody takes the result."""

    __slots__ = ("_is_over", "_lock", "_tell")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_over = False
        self._tell: Callable[[CallEnd], object] | None = None

    def add_done_callback(self, tell: Callable[["CallEnd"], object]) -> None:
        """Call ``tell`` once the call is over, or now when it is. There is one to be told."""
        with self._lock:
            if not self._is_over:
                self._tell = tell
                return
        tell(self)

    def come(self) -> None:
        """The call is over."""
        with self._lock:
            self._is_over = True
        if self._tell is not None:
            self._tell(self)


class CallThreads:
    """
    Runs every call at once, on the thread that fell idle last or on a new one.

    So those that a wave of calls left behind stay idle, and end after ``idle`` seconds; the executor
    of the standard library keeps what it once started. It sets no bound: whoever submits must.
    """

    def __init__(self, *, idle: float = _IDLE_SECONDS) -> None:
        self._idle_seconds = idle
        self._idle: list[_Inbox] = []
        self._lock = threading.Lock()

    def submit(self, call: Callable[_P, object], /, *args: _P.args, **kwargs: _P.kwargs) -> CallEnd:
        """Begin ``call``. What it raises is logged, by its kind: gRPC's own code lets nothing out."""
        end = CallEnd()
        job = partial(call, *args, **kwargs), end
        with self._lock:
            inbox = self._idle.pop() if self._idle else None
        if inbox is not None:
            inbox.put(job)
        else:
            threading.Thread(target=self._work, args=(job,), name="grpc", daemon=True).start()
        return end

    def _work(self, job: _Job | None) -> None:
        inbox: _Inbox = SimpleQueue()
        while job is not None:
            _run(*job)
            # What the call brought must not stay in memory while the thread is idle.
            job = None
            with self._lock:
                self._idle.append(inbox)
            job = self._next(inbox)

    def _next(self, inbox: _Inbox) -> _Job | None:
        try:
            return inbox.get(timeout=self._idle_seconds)
        except Empty:
            with self._lock:
                if inbox in self._idle:
                    self._idle.remove(inbox)
                    return None
            # It was taken in that very moment, so a job is on its way.
            return inbox.get()


def _run(call: Callable[[], object], end: CallEnd) -> None:
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - The thread serves the next call all the same.
        _log.error("call_thread_failed", kind=type(error).__name__)
    finally:
        end.come()
