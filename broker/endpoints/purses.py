"""What one process holds of allowances that many share, so that few requests have to ask for one."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import structlog

from broker.endpoints.allowances import LocalAllowances
from broker.errors import TemporarilyUnavailable
from broker.interfaces import Allowances
from broker.model import Portion, Quota

MOST_PURSES: Final = 16_384
PORTIONS: Final = 128
"""
Into how many portions a burst is divided, so that 64 processes together hold half of it at most.

With one process more or less nobody is refused who keeps to the rate and half of the burst; and over any
time nobody gets more than the rate brings, and one and a half bursts.
"""

_APART_SECONDS: Final = 1.0

_log = structlog.get_logger("broker.limits")


class _Purse:
    """What is held for one party under its quota, or until which moment there is known to be nothing."""

    __slots__ = ("empty_until", "lock", "number", "quota")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.quota: Quota | None = None
        self.number = 0
        self.empty_until = 0.0

    def follow(self, quota: Quota) -> None:
        """Forget what was found under another quota, which a reload has replaced."""
        if self.quota is not quota and self.quota != quota:
            self.quota = quota
            self.number = 0
            self.empty_until = 0.0


class Purses:
    """
    Takes from the shared allowances a portion at a time, and spends it one by one.

    While ``shared`` cannot be asked, each process keeps quotas by itself: a limit protects availability,
    and a store that is away must not take it. It is asked again every second, by one thread. Of more than
    ``most`` parties those are forgotten who came longest ago, with what is held for them. It may be used
    by any thread.
    """

    def __init__(
        self,
        shared: Allowances,
        *,
        most: int = MOST_PURSES,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared = shared
        self._apart = LocalAllowances(now=monotonic, most=most)
        self._most = most
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._purses: OrderedDict[str, _Purse] = OrderedDict()
        self._apart_until = 0.0
        self._is_apart = False

    def __len__(self) -> int:
        """How many parties are remembered."""
        return len(self._purses)

    def take(self, party: str, quota: Quota, number: int = 1) -> float:
        """
        Take one for the party, or a ``number`` that is no more than its burst, all or none.

        The value is 0, or how many seconds it takes until there are so many.
        """
        purse = self._purse(party)
        # The first to find it empty draws, and the others wait for that.
        with purse.lock:
            purse.follow(quota)
            missing = number - purse.number
            if missing > 0:
                wait = self._fill(party, purse, quota, missing)
                if wait > 0:
                    return wait
            purse.number -= number
            return 0.0

    def _fill(self, party: str, purse: _Purse, quota: Quota, missing: int) -> float:
        """Draw what is missing, and a portion if that is more: 0, or how many seconds that takes."""
        now = self._monotonic()
        further = (missing - 1) / quota.rate
        if now < purse.empty_until:
            return purse.empty_until - now + further
        portion = self._draw(party, quota, missing)
        if portion.number == 0:
            # Where there are too few for many there may still be one.
            purse.empty_until = now + max(0.0, portion.wait - further)
            # What comes back at once is still nothing now.
            return max(portion.wait, 1e-6)
        purse.number += portion.number
        return 0.0

    def give_back(self, party: str, number: int = 1) -> None:
        """Put back what was taken for nothing, up to a burst."""
        purse = self._purses.get(party)
        if purse is not None:
            with purse.lock:
                most = number if purse.quota is None else purse.quota.burst
                purse.number = min(purse.number + number, most)

    def wait_of(self, party: str) -> float:
        """For how many seconds the party is known to have nothing left; nothing is asked or taken."""
        purse = self._purses.get(party)
        if purse is None or purse.number:
            return 0.0
        return max(0.0, purse.empty_until - self._monotonic())

    def close(self) -> None:
        """Close the shared allowances."""
        self._shared.close()

    def _purse(self, party: str) -> _Purse:
        with self._lock:
            purse = self._purses.get(party)
            if purse is None:
                purse = self._purses[party] = _Purse()
                if len(self._purses) > self._most:
                    self._purses.popitem(last=False)
            else:
                self._purses.move_to_end(party)
            return purse

    def _draw(self, party: str, quota: Quota, least: int) -> Portion:
        if self._may_ask():
            wanted = max(least, quota.burst // PORTIONS)
            try:
                portion = self._shared.draw(party, quota, wanted, least=least)
            except TemporarilyUnavailable as failure:
                self._go_apart(failure.detail)
            else:
                self._come_together()
                return portion
        return self._apart.draw(party, quota, least, least=least)

    def _may_ask(self) -> bool:
        """Whether to ask the store: always while it answers, and one thread a second while it does not."""
        if not self._is_apart:
            return True
        with self._lock:
            now = self._monotonic()
            if now < self._apart_until:
                return False
            self._apart_until = now + _APART_SECONDS
            return True

    def _go_apart(self, detail: str) -> None:
        with self._lock:
            self._apart_until = self._monotonic() + _APART_SECONDS
            was_apart, self._is_apart = self._is_apart, True
        if not was_apart:
            _log.warning("limits_kept_apart", detail=detail)

    def _come_together(self) -> None:
        if self._is_apart:
            self._is_apart = False
            _log.warning("limits_shared_again")
