"""The deadline for request bodies, which the server underneath does not keep."""

import contextlib
import sys
import threading
import time
from types import TracebackType
from typing import Final

import structlog

from broker.web.sockets import connections

_LONGEST_TICK: Final = 1.0

_log = structlog.get_logger("broker.web")


class BodyReads:
    """
    The reads of request bodies under way; ``with`` marks one.

    A read blocks its thread for as long as the sender takes.
    """

    def __init__(self) -> None:
        self._since: dict[int, float] = {}

    def __enter__(self) -> None:
        self._since[threading.get_ident()] = time.monotonic()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _raised: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        del self._since[threading.get_ident()]

    def oldest(self) -> float | None:
        """Since when the slowest one has been waiting, on the monotonic clock."""
        return min(list(self._since.values()), default=None)


class OverdueBodies:
    """
    A thread that cuts connections whose request body does not arrive within ``limit`` seconds.

    The server reads bodies without a deadline and tells nobody which connection a request came on.
    But a connection to us is silent only while it idles, sends us a request or waits for an answer.
    The server ends idling after ``idle`` seconds, and an answer takes no such time as a slow sender
    does. So, while a body is overdue, whatever has been silent for ``idle`` and ``limit`` together is
    what we are waiting for. ``port`` is the port that the connections were accepted on.

    It needs Linux, which alone tells how long a connection has been silent; elsewhere ``start`` does
    nothing, and slow senders are the proxy's business.
    """

    def __init__(self, reads: BodyReads, *, port: int, limit: float, idle: float) -> None:
        self._reads = reads
        self._port = port
        self._limit = limit
        self._tick = min(_LONGEST_TICK, limit / 5)
        # Looking once a tick, so much earlier, keeps the sum of both as a bound.
        self._silence = idle + limit - self._tick

    def start(self) -> None:
        """Begin to watch, in a thread that ends with the process."""
        if sys.platform == "linux":
            threading.Thread(target=self._run, name="overdue-bodies", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(self._tick)
            oldest = self._reads.oldest()
            if oldest is not None and time.monotonic() - oldest > self._limit:
                # Descriptors may have run out, and connections end while they are looked at; the
                # next look comes soon.
                with contextlib.suppress(OSError):
                    self._cut_silent()

    def _cut_silent(self) -> None:
        cut = 0
        for connection in connections(self._port):
            if connection.silence > self._silence:
                connection.cut()
                cut += 1
        if cut:
            _log.warning("slow_connections_cut", count=cut)
