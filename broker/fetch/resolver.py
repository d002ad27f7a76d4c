"""Names become addresses, in bounded time."""

import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final

from broker.fetch.deadline import Deadline
from broker.fetch.refusals import FetchReason, FetchRefused

Resolve = Callable[[str, int], Sequence[str]]
"""All addresses of a host, as numeric text. Raises ``OSError`` when there are none."""

_MAX_LOOKUPS: Final = 16


def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """All addresses that the system's resolver knows for the host, each once."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


class TimedResolver:
    """
    Resolves within a deadline, which the system's resolver does not know.

    A lookup that takes too long is left behind on a daemon thread, where it holds up neither its
    caller nor the end of the process. At most ``max_lookups`` are under way; a caller who finds no
    place before the deadline is told that it passed.
    """

    def __init__(self, resolve: Resolve, *, max_lookups: int = _MAX_LOOKUPS) -> None:
        self._resolve = resolve
        self._places = threading.BoundedSemaphore(max_lookups)

    def resolve(self, host: str, port: int, *, deadline: Deadline) -> Sequence[str]:
        """All addresses of the host, or ``FetchRefused``."""
        if not self._places.acquire(timeout=deadline.remaining()):
            raise FetchRefused(FetchReason.TIMEOUT, "too many lookups are under way")
        found: Future[Sequence[str]] = Future()
        thread = threading.Thread(
            target=self._look_up, args=(host, port, found), name="broker-resolve", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            self._places.release()
            raise FetchRefused(FetchReason.FAILED, "no thread for a lookup") from None
        try:
            return found.result(timeout=deadline.remaining())
        except TimeoutError:
            raise FetchRefused(FetchReason.TIMEOUT, "the lookup took too long") from None
        except (OSError, UnicodeError):
            raise FetchRefused(FetchReason.FAILED, "the name does not resolve") from None

    def _look_up(self, host: str, port: int, found: Future[Sequence[str]]) -> None:
        try:
            found.set_result(self._resolve(host, port))
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits for it.
            found.set_exception(error)
        finally:
            self._places.release()
