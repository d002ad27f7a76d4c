"""What a face does with more requests than the core is to work on at once."""

import threading
import time
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Final

import structlog

from broker.errors import Reason, TemporarilyUnavailable

_SECONDS_BETWEEN_LINES: Final = 1.0

_log = structlog.get_logger("broker.overload")


class Overloaded(TemporarilyUnavailable):
    """
    A request was turned away before anything looked at it.

    There is no audit record of it, so the answer may not name one: a record for each would be more
    work than what was refused.
    """

    grpc_status = "RESOURCE_EXHAUSTED"

    def __init__(self) -> None:
        super().__init__(Reason.OVERLOADED)


class Places:
    """
    A number of places, one of which ``with`` takes.

    Raises ``Overloaded`` when none becomes free within ``patience`` seconds, and logs how often that
    was, at most once a second. Handing tokens round in a queue is what a semaphore does, at a fifth
    of its cost.
    """

    def __init__(self, number: int, *, patience: float) -> None:
        self._patience = patience
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(number):
            self._free.put(None)
        self._lock = threading.Lock()
        self._turned_away = 0
        self._next_line = 0.0

    def __enter__(self) -> None:
        try:
            self._free.get(timeout=self._patience)
        except Empty:
            self._tell()
            raise Overloaded from None

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _raised: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._free.put(None)

    def _tell(self) -> None:
        with self._lock:
            self._turned_away += 1
            now = time.monotonic()
            if now < self._next_line:
                return
            count, self._turned_away = self._turned_away, 0
            self._next_line = now + _SECONDS_BETWEEN_LINES
        _log.warning("requests_turned_away", count=count)
