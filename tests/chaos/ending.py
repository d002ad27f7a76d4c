"""An order to end that is carried out: whatever a run of tests has started is ended by whoever started it."""

import signal
from types import FrameType
from typing import NoReturn


def end_in_order() -> None:
    """Take SIGTERM as Ctrl-C is taken, so that fixtures end the servers that they began."""
    signal.signal(signal.SIGTERM, _interrupt)


def pytest_configure() -> None:
    """For runs that this module is a plug-in of (``-p tests.chaos.ending``)."""
    end_in_order()


def _interrupt(_signum: int, _frame: FrameType | None) -> NoReturn:
    # A second order must not interrupt what the first has begun.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt
