"""Fairness between addresses when connections run out."""

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog

from broker.web.sockets import DESCRIPTORS, connections

_SECONDS_BETWEEN_LOOKS: Final = 0.5
_SECONDS_OF_SILENCE: Final = 1.0

_log = structlog.get_logger("broker.web")


class Crowds:
    """
    A thread that makes room when three quarters of ``most`` connections are taken.

    An address that has more than an eighth of ``most`` then loses those that we have sent nothing for
    a second: they idle, or dawdle over a request. An honest client there may lose one, and connects
    again; but nobody elsewhere waits until the usual limits have passed. Addresses that ``is_spared``
    tells speak for many and are left alone. ``port`` is the port that the connections were accepted
    on. It needs Linux; elsewhere ``start`` does nothing.
    """

    def __init__(self, *, port: int, most: int, is_spared: Callable[[str], bool]) -> None:
        self._port = port
        self._crowded = most * 3 // 4
        self._crowd = most // 8
        self._is_spared = is_spared

    def start(self) -> None:
        """Begin to watch, in a thread that ends with the process."""
        if sys.platform == "linux":
            threading.Thread(target=self._run, name="crowds", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            # Descriptors may have run out, and connections end while they are looked at; the next
            # look comes soon.
            with contextlib.suppress(OSError):
                # To count descriptors is cheap; to look at each connection is not.
                if sum(1 for _ in DESCRIPTORS.iterdir()) >= self._crowded:
                    self._thin_out()

    def _thin_out(self) -> None:
        number = Counter(one.address for one in connections(self._port))
        if number.total() < self._crowded:
            return
        crowds = {
            address
            for address, count in number.items()
            if count > self._crowd and not self._is_spared(address)
        }
        cut = 0
        for connection in connections(self._port):
            if connection.address in crowds and connection.silence > _SECONDS_OF_SILENCE:
                connection.cut()
                cut += 1
        if cut:
            _log.warning("crowding_connections_cut", count=cut, addresses=len(crowds))
