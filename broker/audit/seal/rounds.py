"""A thread that does one thing again and again, whatever comes of it."""

import threading
from collections.abc import Callable
from typing import Final

import structlog

_log = structlog.get_logger("broker.audit")

_LONGEST_PAUSE: Final = 60.0
LAST_ROUND_SECONDS: Final = 5.0
"""How long the last round is waited for."""


class Rounds:
    """
    Calls ``work`` at once and then ``interval`` seconds after the end of the round before.

    A failure is told in the log as ``<name>_failed``, once for each kind, and counted; ``failure`` is what
    the last round came to, and empty when it went well. After several failures in a row the rounds are
    farther apart, a minute at most. To be made and begun in the process that uses it, after any fork.
    """

    def __init__(self, name: str, work: Callable[[], object], *, interval: float) -> None:
        self.failure = ""
        self.failures = 0
        self._in_a_row = 0
        self._name = name
        self._work = work
        self._interval = interval
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        """Whether the last round is over, or none was begun."""
        return not self._thread.is_alive()

    def ask_to_end(self) -> None:
        """Have the last round begun, so that several can end at the same time."""
        self._is_closing.set()

    def close(self, *, within: float = LAST_ROUND_SECONDS) -> None:
        """Have one more round done, and end; waits for it so many seconds."""
        self._is_closing.set()
        self._thread.join(within)
        if self._thread.is_alive():
            _log.error(f"{self._name}_not_ended", seconds=round(within, 1))

    def _run(self) -> None:
        is_last = False
        while not is_last:
            # Whatever was done before the order to close came is seen by one more round.
            is_last = self._is_closing.is_set()
            self._once()
            if not is_last:
                self._is_closing.wait(self._pause())

    def _pause(self) -> float:
        doubled: float = self._interval * 2 ** min(self._in_a_row, 8)
        return min(doubled, max(_LONGEST_PAUSE, self._interval))

    def _once(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - whatever it was, the next round tries again.
            self._fail(error)
        else:
            if self.failure:
                _log.warning(f"{self._name}_works_again", after=self.failure)
            self.failure, self._in_a_row = "", 0

    def _fail(self, error: Exception) -> None:
        failure = f"{type(error).__name__}: {getattr(error, 'detail', '') or error}"
        if failure != self.failure:
            _log.error(f"{self._name}_failed", reason=failure)
        self.failure = failure
        self.failures += 1
        self._in_a_row += 1
