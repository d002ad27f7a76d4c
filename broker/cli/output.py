"""How commands print: plain text for people, JSON for programs."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import rich_click as click
from rich.console import Console
from rich.text import Text

from broker.config.problems import printable

_LONGEST_SHOWN: Final = 512
_WIDEST: Final = 4096
_Function = TypeVar("_Function", bound=Callable[..., Any])


def output_option(*choices: str) -> Callable[[_Function], _Function]:
    """The option that chooses between what people and what programs read."""
    return click.option(
        "--output", "-o", type=click.Choice(choices), default=choices[0], help="How to print it."
    )


def echo_json(value: Any) -> None:
    """Print a value as JSON, which escapes whatever a terminal would obey."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=True, default=str))


def console() -> Console:
    """A console that takes nothing it is given for markup, and neither breaks nor cuts lines."""
    return Console(markup=False, highlight=False, emoji=False, soft_wrap=True, width=_WIDEST)


def print_columns(rows: Sequence[Sequence[Text]]) -> None:
    """Print rows with their columns aligned, one line each, however wide the terminal is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    screen = console()
    for row in rows:
        line = Text()
        for cell, width in zip(row, widths, strict=True):
            line.append_text(cell).append(" " * (width - len(cell) + 2))
        line.rstrip()
        screen.print(line)


def plain(value: object, style: str = "") -> Text:
    """
    A value from somewhere else as text that cannot move the cursor or colour the screen.

    What is longer than 512 characters is cut, and says so.
    """
    text = printable(str(value))
    cut = "" if len(text) <= _LONGEST_SHOWN else f"… ({len(text)} characters)"
    return Text(text[:_LONGEST_SHOWN] + cut, style=style)
