"""What a face does with more requests than the core is to work on at once."""

import threading
import time
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Final

import structlog

from broker.errors import Reason, TemporarilyUnavailable, scattered

_SECONDS_BETWEEN_LINES: Final = 1.0
_STANDING_SECONDS: Final = 0.5
"""A queue that has not been empty for so long does not go away by itself."""
_TARGET_SECONDS: Final = 0.2
"""How long anybody waits in a queue that stands."""
_LONGEST_RETURN: Final = 10

_log = structlog.get_logger("broker.overload")


class Overloaded(TemporarilyUnavailable):
    """
    A request was turned away before anything looked at it.

    There is no audit record of it: a record for each would be more work than what was refused.
    """

    grpc_status = "RESOURCE_EXHAUSTED"
    is_recorded = False

    def __init__(self, *, retry_after: int | None = None) -> None:
        super().__init__(Reason.OVERLOADED, retry_after=retry_after)


class Places:
    """
    A number of places, one of which ``with`` takes.

    After a pause, a burst is served: up to ``waiting`` wait, for ``patience`` seconds at most. But a queue
    that stands serves everybody late and nobody more, so when nobody has found a place at once for half
    a second, as many may wait as there are places, for a fifth of a second. All others are turned away at
    once: with ``Overloaded``, which tells them to come back when those before them can have been
    served. It logs how often that was, at most once a second.

    Handing tokens round in a queue is what a semaphore does, at a fifth of its cost.
    """

    def __init__(self, number: int, *, patience: float, waiting: int = 256) -> None:
        self._number = number
        self._patience = patience
        self._most_waiting = waiting
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(number):
            self._free.put(None)
        self._lock = threading.Lock()
        self._waiting = 0
        self._idle_at = 0.0
        self._served = 0
        self._turned_away = 0
        self._retry_after = 1
        self._next_line = 0.0

    def check(self) -> None:
        """
        Raise ``Overloaded`` when there is no room even to wait, before any work is put into a request.

        Refusing must cost next to nothing, or those who are refused take the time of those who are not.
        """
        if self._waiting and self._waiting >= self._room():
            raise self._refusal()

    def __enter__(self) -> None:
        if self._waiting:
            self._wait()
            return
        try:
            self._free.get_nowait()
        except Empty:
            self._wait()
        else:
            self._idle_at = time.monotonic()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _raised: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._served += 1
        self._free.put(None)

    def _is_standing(self) -> bool:
        return time.monotonic() - self._idle_at > _STANDING_SECONDS

    def _room(self) -> int:
        """How many may wait now."""
        return min(self._number, self._most_waiting) if self._is_standing() else self._most_waiting

    def _wait(self) -> None:
        room = self._room()
        with self._lock:
            has_room = self._waiting < room
            if has_room:
                self._waiting += 1
        if not has_room:
            raise self._refusal()
        try:
            patience = (
                min(_TARGET_SECONDS, self._patience)
                if room < self._most_waiting
                else self._patience
            )
            self._free.get(timeout=patience)
        except Empty:
            raise self._refusal() from None
        finally:
            with self._lock:
                self._waiting -= 1

    def _refusal(self) -> Overloaded:
        """Count it, and tell how long it takes to serve as many as were turned away in the last second."""
        count = 0
        with self._lock:
            self._turned_away += 1
            now = time.monotonic()
            if now >= self._next_line:
                count, served = self._turned_away, max(1, self._served)
                self._turned_away = self._served = 0
                self._next_line = now + _SECONDS_BETWEEN_LINES
                self._retry_after = max(1, min(_LONGEST_RETURN, count // served))
        if count:
            _log.warning("requests_turned_away", count=count)
        return Overloaded(retry_after=scattered(self._retry_after))
