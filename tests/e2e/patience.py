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
    """Whether what takes as many seconds as ``act`` returns takes less than these, as ``holds`` tells."""
    return holds(lambda: act() < seconds, tries=tries)


def holds(ask: Callable[[], bool], *, tries: int = 10, pause: float = 0.0) -> bool:
    """
    Whether something is so, when nothing holds it up.

    A busy machine holds up now one try and now another. Where the first came to nothing more than half of the
    others must not, so that what fails more often than not is told. ``pause`` is in seconds, between two.
    """
    if ask():
        return True
    good = 0
    for _ in range(tries - 1):
        time.sleep(pause)
        good += ask()
    return 2 * good > tries - 1
