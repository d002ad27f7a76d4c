"""Bounds on the wait for request messages, which the gRPC server does not keep by itself."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import grpc

from broker.rpc.call import peer_address

_LONGEST_TICK: Final = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class _Wait:
    """A call whose message is awaited, and since when on the monotonic clock."""

    since: float
    context: grpc.ServicerContext


class MessageReads:
    """
    Takes the first message of a call, and gives up calls whose message does not come.

    A call may open without a message, and holds a thread while it waits for one: for ``limit`` at
    most, and ``places`` calls at a time. None is turned away. Beyond that number the oldest wait of
    the address that has most of them ends, so that who sends no messages displaces nobody but himself
    and his neighbours behind one address; and those only if they take longer than all that he opens.
    """

    def __init__(self, limit: timedelta, *, places: int = 512) -> None:
        self._limit = limit.total_seconds()
        self._tick = min(_LONGEST_TICK, self._limit / 5)
        self._places = places
        self._lock = threading.Lock()
        # By address, the oldest first.
        self._waits: dict[str, dict[_Wait, None]] = {}
        self._number = 0
        self._stopped = threading.Event()

    def first(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes | None:
        """The call's message as it came, or ``None`` when the caller is done without sending one."""
        address = peer_address(context.peer())
        wait = _Wait(time.monotonic(), context)
        with self._lock:
            self._waits.setdefault(address, {})[wait] = None
            self._number += 1
            displaced = self._displaced() if self._number > self._places else None
        if displaced is not None:
            displaced.context.cancel()
        try:
            return next(messages, None)
        finally:
            with self._lock:
                self._remove(address, wait)

    def start(self) -> None:
        """Begin to watch, in a thread that ends with ``stop`` or the process."""
        threading.Thread(target=self._run, name="overdue-messages", daemon=True).start()

    def stop(self) -> None:
        """End the watch."""
        self._stopped.set()

    def _displaced(self) -> _Wait:
        address, waits = max(self._waits.items(), key=lambda item: len(item[1]))
        oldest = next(iter(waits))
        self._remove(address, oldest)
        return oldest

    def _remove(self, address: str, wait: _Wait) -> None:
        """Forget a wait that has ended; nothing for one that was displaced before."""
        waits = self._waits.get(address, {})
        if wait in waits:
            del waits[wait]
            self._number -= 1
            if not waits:
                del self._waits[address]

    def _run(self) -> None:
        while not self._stopped.wait(self._tick):
            latest = time.monotonic() - self._limit
            with self._lock:
                overdue = [
                    wait for waits in self._waits.values() for wait in waits if wait.since < latest
                ]
            for wait in overdue:
                wait.context.cancel()
