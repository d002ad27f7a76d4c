"""A breaker: after a failure nobody asks for a while, then one asks for all."""

import random
import threading
import time
from collections.abc import Callable
from typing import Final

_SHORTEST: Final = 0.05
_LONGEST: Final = 1.0


class BreakerOpen(Exception):
    """Nobody is to ask now; ``detail`` is why the last one failed."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Breaker:
    """
    Keeps callers from a server that failed, for 50 ms at first and for a second in the end.

    Each pause is shortened by chance to between a half and the whole of it, so that many processes do not
    come back at once. After it one caller may try, while the others are still refused.
    """

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._monotonic = monotonic
        self._chance = chance
        self._lock = threading.Lock()
        self._detail = ""
        self._failures = 0
        self._closed_until = 0.0
        self._is_tried = False

    def enter(self) -> None:
        """Return when the caller may ask, who then has to tell how it went; raises ``BreakerOpen``."""
        with self._lock:
            if not self._failures:
                return
            if self._is_tried or self._monotonic() < self._closed_until:
                raise BreakerOpen(self._detail)
            self._is_tried = True

    def succeed(self) -> None:
        """Let everybody through again."""
        with self._lock:
            self._failures = 0
            self._is_tried = False

    def fail(self, detail: str) -> None:
        """
        Begin a pause, or a longer one when the caller was the one to try.

        Those who were under way when the pause began say nothing new.
        """
        with self._lock:
            if self._failures and not self._is_tried:
                return
            pause = min(_LONGEST, _SHORTEST * 2**self._failures)
            self._failures = min(self._failures + 1, 16)
            self._closed_until = self._monotonic() + pause * (0.5 + self._chance() / 2)
            self._detail = detail
            self._is_tried = False
