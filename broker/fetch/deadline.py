"""One deadline for a whole fetch."""

import time
from dataclasses import dataclass
from typing import Self

from broker.fetch.refusals import FetchReason, FetchRefused


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment of the monotonic clock, in seconds, after which nothing is waited for."""

    moment: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """The deadline that passes so many seconds from now."""
        return cls(time.monotonic() + seconds)

    def remaining(self) -> float:
        """The seconds that are left: more than none, or ``FetchRefused`` (``fetch_timeout``)."""
        seconds = self.moment - time.monotonic()
        if seconds <= 0:
            raise FetchRefused(FetchReason.TIMEOUT)
        return seconds
