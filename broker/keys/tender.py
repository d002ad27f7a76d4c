"""The thread that has a rotator do what is due."""

import logging
import threading
from collections.abc import Callable
from typing import Final

_LOGGER: Final = logging.getLogger(__name__)
_JOIN_SECONDS: Final = 5.0


class KeyTender:
    """
    Calls ``tend`` at once and then every ``interval`` seconds, and goes on whatever comes of it.

    What went wrong is logged once for each kind, until it went well again.
    """

    def __init__(self, tend: Callable[[], None], *, interval: float) -> None:
        self._tend = tend
        self._interval = interval
        self._told = ""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="broker-rotator", daemon=True)

    def start(self) -> None:
        """Begin. Made and started in the process that uses it, after any fork."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; what it is doing is waited for, within bounds."""
        self._closing.set()
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._once()
            self._closing.wait(self._interval)

    def _once(self) -> None:
        try:
            self._tend()
        except Exception as error:  # noqa: BLE001 -- without this thread no key is rotated again.
            fault = f"{type(error).__name__}: {getattr(error, 'detail', '') or error}"
            if fault != self._told:
                _LOGGER.warning("the keys cannot be looked after: %s", fault)
            self._told = fault
        else:
            self._told = ""
