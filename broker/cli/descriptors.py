"""The three descriptors that every process has, whoever started it."""

import os
import sys
from typing import Final

STANDARD_OUTPUT: Final = 1

_STANDARD: Final = (0, STANDARD_OUTPUT, 2)


def fill_standard_descriptors() -> frozenset[int]:
    """
    Open the null device in place of standard input, output and error where they were closed; tells which.

    Else the next file or connection would get such a number, and be written to by whoever prints.
    """
    missing = frozenset(number for number in _STANDARD if not _is_open(number))
    for number in sorted(missing):
        opened = os.open(os.devnull, os.O_RDWR)
        # All lower numbers are taken by now, so this is the number, and children have it too.
        os.set_inheritable(opened, True)
        _name(number)
    return missing


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _name(number: int) -> None:
    """Let Python know of the descriptor, which it found closed when it began."""
    if number == STANDARD_OUTPUT and sys.stdout is None:
        sys.stdout = os.fdopen(number, "w", closefd=False)
    if number == 2 and sys.stderr is None:
        sys.stderr = os.fdopen(number, "w", closefd=False)
