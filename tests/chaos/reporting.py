"""What a long run tells while it goes on, and the figures that are left of it."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MINUTES: Final = float(os.environ.get("CHAOS_MINUTES") or "10")
"""How long the whole run shall take, about."""

_TELL_EVERY: Final = 2.0

Figure = float | int | str


def share(percent: float) -> float:
    """The seconds that a case may take which has this share of the run."""
    return MINUTES * 60 * percent / 100


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
            document = {"minutes": MINUTES, "cases": self.figures}
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
