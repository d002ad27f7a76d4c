"""What a long run tells while it goes on, and the figures that are left of it."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MINUTES: Final = float(os.environ.get("CHAOS_MINUTES") or "10")
"""How long the whole run may take."""

_TELL_EVERY: Final = 2.0
_STARTING: Final = 25.0
"""The seconds in which the servers of a case start and end, about."""

_began: Final = time.monotonic()
_weights: Final = [1.0]
"""How much of the time each case wants that is not over yet, the present one first."""

Figure = float | int | str


def next_case(weights: Sequence[float]) -> None:
    """Give the present case its part of what is left, beside those that come after it."""
    _weights[:] = weights


def minutes_left() -> float:
    """What is left of the run."""
    return MINUTES - (time.monotonic() - _began) / 60


def budget() -> float:
    """
    The seconds that the present case may go on for.

    That is its part of the time that is left, so that the run ends in time however long servers take to
    start. What a case has to do once, it does without a budget as well.
    """
    left = minutes_left() * 60 - _STARTING * (len(_weights) - 1)
    return max(0.0, left * _weights[0] / sum(_weights))


@dataclass
class Report:
    """
    The figures of all cases, told as they come and written to ``file`` after each.

    ``figures`` has for each case what was measured, by names that say the unit.
    """

    file: Path | None
    figures: dict[str, dict[str, Figure]] = field(default_factory=dict)

    def add(self, case: str, **figures: Figure) -> None:
        """Take down what was measured."""
        self.figures.setdefault(case, {}).update(figures)
        for name, figure in figures.items():
            tell(f"{case}: {name} = {figure}")
        if self.file is not None:
            took = round((time.monotonic() - _began) / 60, 1)
            document = {"minutes": MINUTES, "minutes_taken": took, "cases": self.figures}
            self.file.write_text(json.dumps(document, indent=2) + "\n")

    def summary(self) -> str:
        """All figures, a line for each."""
        return "\n".join(
            f"  {case:<34} {name:<34} {figure}"
            for case, figures in self.figures.items()
            for name, figure in figures.items()
        )


def tell(line: str) -> None:
    """Say it to whoever waits."""
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)  # noqa: T201 - it is meant to be seen.


@contextmanager
def progress(case: str, state: Callable[[], str]) -> Iterator[None]:
    """Tell every two seconds how a case stands, until it is over."""
    over = threading.Event()
    began = time.monotonic()

    def go_on() -> None:
        while not over.wait(_TELL_EVERY):
            tell(f"{case}: {state()} ({time.monotonic() - began:.0f} s)")

    teller = threading.Thread(target=go_on, daemon=True)
    tell(f"{case}: begins")
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def rounded(seconds: float) -> float:
    """Seconds as they are reported: to the millisecond."""
    return round(seconds, 3)


def p99(seconds: list[float]) -> float:
    """The time within which 99 of 100 came; 0 of none."""
    return rounded(sorted(seconds)[int(len(seconds) * 0.99)]) if seconds else 0.0
