"""Waiting for something to come about, for a bounded time."""

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def until(ask: Callable[[], _T], *, seconds: float, what: str) -> _T:
    """The first true answer of ``ask``; fails the test when there is none within the time."""
    end = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < end, f"it did not come about within {seconds} s: {what}"
        time.sleep(0.02)
    return answer


def is_swift(act: Callable[[], float], *, seconds: float, tries: int = 10) -> bool:
    """
    Whether what takes as many seconds as ``act`` returns takes less than these, when nothing holds it up.

    A busy machine holds up now one try and now another; what is slow by itself is slow each time.
    """
    return any(act() < seconds for _ in range(tries))
