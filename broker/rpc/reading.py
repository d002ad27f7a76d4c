"""Bounds on the wait for request messages, which the gRPC server does not keep by itself."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import grpc

from broker.rpc.call import peer_address

_LONGEST_TICK: Final = 1.0


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
        # By address, the calls and since when each waits on the monotonic clock, the oldest first.
        self._waits: dict[str, dict[grpc.ServicerContext, float]] = {}
        self._number = 0
        self._stopped = threading.Event()

    def first(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes | None:
        """The call's message as it came, or ``None`` when the caller is done without sending one."""
        address = peer_address(context.peer())
        with self._lock:
            self._waits.setdefault(address, {})[context] = time.monotonic()
            self._number += 1
            displaced = self._displaced() if self._number > self._places else None
        if displaced is not None:
            displaced.cancel()
        try:
            return next(messages, None)
        finally:
            with self._lock:
                self._remove(address, context)

    def start(self) -> None:
        """Begin to watch, in a thread that ends with ``stop`` or the process."""
        threading.Thread(target=self._run, name="overdue-messages", daemon=True).start()

    def stop(self) -> None:
        """End the watch."""
        self._stopped.set()

    def _displaced(self) -> grpc.ServicerContext:
        address, waits = max(self._waits.items(), key=lambda item: len(item[1]))
        oldest = next(iter(waits))
        self._remove(address, oldest)
        return oldest

    def _remove(self, address: str, call: grpc.ServicerContext) -> None:
        """Forget a wait that has ended; nothing for one that was displaced before."""
        waits = self._waits.get(address, {})
        if call in waits:
            del waits[call]
            self._number -= 1
            if not waits:
                del self._waits[address]

    def _run(self) -> None:
        while not self._stopped.wait(self._tick):
            latest = time.monotonic() - self._limit
            with self._lock:
                overdue = [
                    call
                    for waits in self._waits.values()
                    for call, since in waits.items()
                    if since < latest
                ]
            for call in overdue:
                call.cancel()
