"""A thread that looks after keys, and more often while something is amiss."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

_LOGGER: Final = logging.getLogger(__name__)
_RETRY_SECONDS: Final = 0.5
_FIRST_ROUND_SECONDS: Final = 3.0
_JOIN_SECONDS: Final = 5.0


def _nothing() -> None:
    return


class Care:
    """
    Calls ``tend`` at once, then every ``interval`` seconds, and every half second in trouble.

    ``choose`` is called every half second in any case, for what time alone decides. Whatever either
    raises is logged, and the thread goes on. It is made and started in the process that uses it, after
    any fork.
    """

    def __init__(
        self,
        tend: Callable[[], None],
        *,
        interval: float,
        is_troubled: Callable[[], bool],
        choose: Callable[[], None] = _nothing,
    ) -> None:
        self._tend = tend
        self._interval = interval
        self._is_troubled = is_troubled
        self._choose = choose
        self._closing = threading.Event()
        self._first_round = threading.Event()
        self._thread = threading.Thread(target=self._run, name="broker-keys", daemon=True)

    def start(self) -> None:
        """Begin, and return when the first round is over, or has taken seconds."""
        self._thread.start()
        self._first_round.wait(_FIRST_ROUND_SECONDS)

    @property
    def is_over(self) -> bool:
        """Whether it was told to end."""
        return self._closing.is_set()

    @property
    def is_alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End the thread; what it is doing is waited for, within bounds."""
        self._closing.set()
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        due_at = time.monotonic()
        while not self._closing.is_set():
            if time.monotonic() >= due_at or self._is_troubled():
                self._go_on_after(self._tend)
                due_at = time.monotonic() + self._interval
            self._go_on_after(self._choose)
            self._first_round.set()
            self._closing.wait(_RETRY_SECONDS)

    def _go_on_after(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            # Without this thread nothing that is amiss now would ever be put right.
            _LOGGER.exception("the signing keys could not be looked after")
