"""Notices when the clock leaps, by which the lives of the keys are reckoned."""

import time
from collections.abc import Callable
from datetime import timedelta

from broker.interfaces import Now


class ClockLeapt(Exception):
    """The clock shows another time than has passed; the sentence says by how much."""


class LeapGuard:
    """
    Compares the clock with the time that has passed since this was made.

    After a leap by more than ``allowance`` ``check`` raises ``ClockLeapt`` until the clock is back, or
    has gone on for the whole of ``patience`` as it does then: that is time for whoever sets clocks to put
    it right, and a clock that was wrong before and was put right by the leap is believed in the end.
    ``steady`` is in seconds, and goes on while the machine sleeps.
    """

    def __init__(
        self,
        now: Now,
        *,
        allowance: timedelta,
        patience: timedelta,
        steady: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._now = now
        self._steady = steady
        # A clock of whole seconds is up to one behind the time, and at every look by another part of it.
        self._least_leap = allowance.total_seconds() + 1
        self._patience = patience.total_seconds()
        self._believed = self._difference()
        self._leapt_to = self._believed
        self._leapt_at = steady()

    def check(self) -> None:
        """Raise ``ClockLeapt`` while the clock is not to be acted upon."""
        found = self._difference()
        if abs(found - self._believed) < self._least_leap:
            return
        if abs(found - self._leapt_to) >= self._least_leap:
            self._leapt_to, self._leapt_at = found, self._steady()
        waited = self._steady() - self._leapt_at
        if waited < self._patience:
            raise ClockLeapt(
                f"the clock leapt by {found - self._believed:.0f} s, so nothing is rotated by age and"
                f" nothing closed off for {self._patience:.0f} s, unless it leaps back before"
            )
        self._believed = found

    def _difference(self) -> float:
        return self._now() - self._steady()
