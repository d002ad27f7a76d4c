"""How much may be fetched for callers at once, so that no host and no stranger takes every thread."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from broker.errors import RateLimited, Reason

MOST_AT_ONCE: Final = 6
MOST_AT_ONCE_PER_HOST: Final = 2
MOST_NEW_PER_MINUTE: Final = 60
_MINUTE: Final = 60.0
_MOST_HOSTS: Final = 1000


@dataclass(slots=True)
class _Use:
    """What a host is used for: fetches under way, and new documents in the minute that began then."""

    began_at: float
    under_way: int = 0
    new: int = 0


class FetchPlaces:
    """
    Places for fetches that callers wait for: few in all, fewer for each host.

    Of each host only so many documents are fetched in a minute that were not known before: whoever
    makes up addresses at it uses up what there is for that host alone.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._hosts: dict[str, _Use] = {}
        self._under_way = 0

    def enter(self, host: str, *, is_new: bool) -> None:
        """Take a place, which ``leave`` gives back. Raises ``RateLimited`` (``fetch_limit``)."""
        now = self._monotonic()
        with self._lock:
            use = self._use_of(host, now)
            if self._under_way >= MOST_AT_ONCE or use.under_way >= MOST_AT_ONCE_PER_HOST:
                raise RateLimited(Reason.FETCH_LIMIT, detail="too many fetches at once")
            if is_new and use.new >= MOST_NEW_PER_MINUTE:
                wait = max(1, math.ceil(use.began_at + _MINUTE - now))
                detail = "too many new documents of one host"
                raise RateLimited(Reason.FETCH_LIMIT, retry_after=wait, detail=detail)
            use.new += is_new
            use.under_way += 1
            self._under_way += 1

    def leave(self, host: str) -> None:
        """Give a place back."""
        with self._lock:
            self._hosts[host].under_way -= 1
            self._under_way -= 1

    def _use_of(self, host: str, now: float) -> _Use:
        if len(self._hosts) > _MOST_HOSTS:
            # Hosts come from the registry alone, so there are more only after it changed a lot.
            self._hosts = {name: use for name, use in self._hosts.items() if use.under_way}
        use = self._hosts.setdefault(host, _Use(now))
        if now - use.began_at >= _MINUTE:
            use.began_at, use.new = now, 0
        return use
