"""How long and how often to try."""

import random
import time
from dataclasses import dataclass
from typing import Final

from broker.client.failures import Unavailable

TOO_LATE: Final = "The broker did not answer in time."
CLOSED: Final = "The broker's client was closed."


@dataclass(frozen=True, slots=True)
class Patience:
    """
    How long to wait for the broker: ``deadline`` seconds for a question with all its ``attempts``.

    Only what may succeed later is tried again, each time with a fresh assertion.
    """

    deadline: float = 10.0
    attempts: int = 3

    def begin(self) -> "Attempts":
        """The attempts at one question, whose time runs from now on."""
        return Attempts(self)


class Attempts:
    """What is left of the patience with one question."""

    def __init__(self, patience: Patience) -> None:
        self._end = time.monotonic() + patience.deadline
        self._left = patience.attempts

    def time_left(self) -> float:
        """How many seconds the next attempt may take; raises ``Unavailable`` when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise Unavailable(TOO_LATE)
        return left

    def pause_after(self, failure: Unavailable) -> float:
        """How many seconds to wait after an attempt that failed; raises its failure to give up."""
        # Those who were turned away together should not come back together, and nobody too early.
        pause = failure.retry_after * (1 + random.random() / 2)  # noqa: S311 - it need not be secret.
        self._left -= 1
        if self._left <= 0 or time.monotonic() + pause >= self._end:
            raise failure
        return pause
