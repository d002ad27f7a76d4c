"""Quotas as a rule of arithmetic, and kept in the memory of one process."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from broker.model import Portion, Quota

MOST_PARTIES: Final = 100_000
"""How many parties are remembered at once in a store; beyond it, the one that drew longest ago is not."""

PURGE_STEP: Final = 20
"""How many parties are let go of with one draw at most; more go than come."""


def draw_from(
    full_at: float, quota: Quota, wanted: int, *, now: float, least: int = 1
) -> tuple[float, Portion]:
    """
    What a party gets that has its whole burst again at ``full_at``, and when that will be from now on.

    Where there are fewer than ``least``, which is no more than the burst, it gets nothing.
    Moments are seconds of any one clock (the generic cell rate algorithm, ITU-T I.371). A moment that the
    burst cannot explain is one of another quota, or of a clock that went back, and counts as none left.
    """
    each, burst = 1 / quota.rate, quota.burst / quota.rate
    full_at = min(max(full_at, now), now + burst)
    # Sums of what cannot be written exactly fall a little short of whole numbers.
    left = math.floor((now + burst - full_at) / each + 1e-6)
    number = min(wanted, left)
    if number < least:
        return full_at, Portion(0, max(0.0, full_at + least * each - burst - now))
    return full_at + number * each, Portion(number)


class LocalAllowances:
    """Allowances of one process; of more than ``most`` parties it forgets who drew longest ago."""

    def __init__(
        self, *, now: Callable[[], float] = time.monotonic, most: int = MOST_PARTIES
    ) -> None:
        self._now = now
        self._most = most
        self._lock = threading.Lock()
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """How many parties are remembered."""
        return len(self._full_at)

    def draw(self, party: str, quota: Quota, wanted: int, *, least: int = 1) -> Portion:
        with self._lock:
            now = self._now()
            found = self._full_at.get(party, now)
            full_at, portion = draw_from(found, quota, wanted, now=now, least=least)
            self._full_at[party] = full_at
            self._full_at.move_to_end(party)
            self._forget(now)
        return portion

    def _forget(self, now: float) -> None:
        """Let go of those that are full and drew longest ago, and of one more where there is no room."""
        for _ in range(PURGE_STEP):
            oldest = next(iter(self._full_at))
            if self._full_at[oldest] > now and len(self._full_at) <= self._most:
                return
            del self._full_at[oldest]
            if not self._full_at:
                return

    def close(self) -> None:
        with self._lock:
            self._full_at.clear()
