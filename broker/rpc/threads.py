"""Threads for calls: as many as there are calls, and fewer again when there are fewer."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any, Final, ParamSpec, TypeVar

_IDLE_SECONDS: Final = 10.0

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Job = Callable[[], None]
_Inbox = SimpleQueue[_Job]


class CallThreads(Executor):
    """
    Runs every call at once, on the thread that fell idle last or on a new one.

    So those that a wave of calls left behind stay idle, and end after ``idle`` seconds; the executor
    of the standard library keeps what it once started. It sets no bound: whoever submits must.
    """

    def __init__(self, *, idle: float = _IDLE_SECONDS) -> None:
        self._idle_seconds = idle
        self._idle: list[_Inbox] = []
        self._lock = threading.Lock()

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> "Future[_T]":
        """Begin ``fn``; what it returns or raises is in the future."""
        future: Future[_T] = Future()

        def job() -> None:
            _run(future, lambda: fn(*args, **kwargs))

        with self._lock:
            inbox = self._idle.pop() if self._idle else None
        if inbox is not None:
            inbox.put(job)
        else:
            threading.Thread(target=self._work, args=(job,), name="grpc", daemon=True).start()
        return future

    def _work(self, job: _Job | None) -> None:
        inbox: _Inbox = SimpleQueue()
        while job is not None:
            job()
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


def _run(future: "Future[Any]", call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - It belongs to whoever holds the future.
        future.set_exception(error)
    else:
        future.set_result(result)
