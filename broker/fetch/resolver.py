"""Names become addresses, in bounded time."""

import socket
import threading
from collections.abc import Callable, Sequence
from typing import Final

from broker.fetch.refusals import FetchReason, FetchRefused

Resolve = Callable[[str, int], Sequence[str]]
"""All addresses of a host, as numeric text. Raises ``OSError`` when there are none."""

_MAX_LOOKUPS: Final = 8


def resolve(host: str, port: int) -> Sequence[str]:
    """All addresses that the system's resolver knows for the host."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


class TimedResolver:
    """
    Resolves within a deadline, which the system's resolver does not know.

    A lookup that takes too long is left behind on a daemon thread, so that it holds up neither its
    caller nor the end of the process. At most ``max_lookups`` are under way; a caller who finds no
    place within his deadline is told that it passed.
    """

    def __init__(self, resolve: Resolve = resolve, *, max_lookups: int = _MAX_LOOKUPS) -> None:
        self._resolve = resolve
        self._places = threading.BoundedSemaphore(max_lookups)

    def resolve(self, host: str, port: int, *, within: float) -> Sequence[str]:
        """All addresses of the host; ``within`` is in seconds. Raises ``FetchRefused``."""
        lookup = _Lookup(self._resolve, self._places)
        return lookup.run(host, port, within=within)
