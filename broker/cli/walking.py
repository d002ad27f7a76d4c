"""A bar for commands that walk through large files."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

_PATIENCE: Final = 2.0


@contextmanager
def walking(name: str) -> Iterator[Callable[[int, int], None]]:
    """
    Is told how many bytes were walked, and how many there are.

    Shows a bar on a terminal, once it takes longer than anybody waits without one.
    """
    begun = time.monotonic()
    bar = Progress(
        name,
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    task = bar.add_task(name)

    def tell(walked: int, whole: int) -> None:
        if time.monotonic() - begun > _PATIENCE and not bar.live.is_started:
            bar.start()
        bar.update(task, completed=walked, total=whole)

    try:
        yield tell
    finally:
        if bar.live.is_started:
            bar.stop()
