"""The deadline for request messages, which the gRPC server does not keep by itself."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import grpc

_LONGEST_TICK: Final = 1.0


class MessageReads:
    """
    Takes the first message of a call, and gives up calls whose message does not come.

    A call may open without a message, and the thread that waits for it would wait for ever: a handful
    of such calls would stop the server.
    """

    def __init__(self, limit: timedelta) -> None:
        self._limit = limit.total_seconds()
        self._tick = min(_LONGEST_TICK, self._limit / 5)
        self._waiting: dict[int, tuple[float, grpc.ServicerContext]] = {}
        self._stopped = threading.Event()

    def first(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes | None:
        """The call's message as it came, or ``None`` when the caller is done without sending one."""
        thread = threading.get_ident()
        self._waiting[thread] = (time.monotonic(), context)
        try:
            return next(messages, None)
        finally:
            del self._waiting[thread]

    def start(self) -> None:
        """Begin to watch, in a thread that ends with ``stop`` or the process."""
        threading.Thread(target=self._run, name="overdue-messages", daemon=True).start()

    def stop(self) -> None:
        """End the watch."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._tick):
            latest = time.monotonic() - self._limit
            for since, context in list(self._waiting.values()):
                if since < latest:
                    context.cancel()
