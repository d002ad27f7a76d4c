"""What the run is doing, for whoever waits: one line, on a terminal alone."""

import sys


def tell(what: str) -> None:
    """Put it in the place of what was told before; nothing where nobody watches."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what[:100]}", end="", file=sys.stderr, flush=True)


def told() -> None:
    """Leave the line empty again."""
    tell("")
