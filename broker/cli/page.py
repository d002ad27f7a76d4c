"""How wide a page is that people read, and telling them something beside the output."""

import shutil
import sys
import textwrap
from typing import Final, TextIO

import rich_click as click

_NARROWEST: Final = 40


def page_width() -> int | None:
    """
    How many columns there are for people, or ``None`` where a program reads.

    What programs read is never broken, cut or left out: it is the same however wide a terminal is.
    """
    return _width_of(sys.stdout)


def told_width() -> int | None:
    """The same of standard error."""
    return _width_of(sys.stderr)


def tell(text: str) -> None:
    """
    Print sentences on standard error, on a terminal broken between words.

    A line that begins with blanks is to be copied, or stands below another, and stays as it is.
    """
    width = told_width()
    for line in text.split("\n"):
        click.echo(line if width is None else _wrapped(line, width), err=True)


def _wrapped(line: str, width: int) -> str:
    if len(line) <= width or line.startswith(" "):
        return line
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)


def _width_of(stream: TextIO | None) -> int | None:
    if stream is None or not stream.isatty():
        return None
    return max(shutil.get_terminal_size().columns, _NARROWEST)
