"""A terminal of a given width, for commands that run in the process of the tests."""

import os
import pty
import re
import threading
from collections.abc import Sequence

import pytest

from broker.cli import main

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def shown(
    monkeypatch: pytest.MonkeyPatch, *arguments: str, columns: int, term: str = "dumb"
) -> list[str]:
    """The lines that a command prints to a terminal, with whatever colours the terminal knows."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", term)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        printed: list[bytes] = []
        reader = threading.Thread(target=_read, args=(terminal.fileno(), printed))
        reader.start()
        with os.fdopen(theirs, "w", encoding="utf-8") as screen, monkeypatch.context() as patch:
            patch.setattr("sys.stdout", screen)
            main.main(arguments, prog_name="broker", standalone_mode=False)
        reader.join(60)
    return b"".join(printed).decode().replace("\r\n", "\n").splitlines()


def without_colours(lines: Sequence[str]) -> list[str]:
    """The lines as a terminal shows them that has no colours."""
    return [_COLOURS.sub("", line) for line in lines]


def _read(descriptor: int, printed: list[bytes]) -> None:
    # The last who has the other end open closes it, and that is told as a fault.
    try:
        while data := os.read(descriptor, 65_536):
            printed.append(data)
    except OSError:
        return
