"""How commands print: plain text for people, JSON for programs."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import rich_click as click
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from broker.cli.page import page_width
from broker.config.problems import printable

_LONGEST_SHOWN: Final = 512
_WIDEST: Final = 4096
_HEIGHT: Final = 25
_GAP: Final = 2
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
    widths = _widths(rows)
    screen = console()
    for row in rows:
        line = Text()
        for cell, width in zip(row, widths, strict=True):
            line.append_text(cell).append(" " * (width - cell.cell_len + _GAP))
        line.rstrip()
        screen.print(line)


def print_wrapped(text: Text, *, indent: int = 0) -> None:
    """
    Print a sentence, on a terminal broken between words, its later lines so many columns further in.

    A word is never broken, so that what is longer than a line can still be copied from it.
    """
    width, screen = page_width(), console()
    if width is None or text.cell_len <= width:
        screen.print(text)
        return
    text.overflow = "ignore"
    for number, line in enumerate(text.wrap(screen, width - indent)):
        line.rstrip()
        screen.print(Text(" " * indent).append_text(line) if number else line)


def print_tree(tree: Tree) -> None:
    """Print a tree, on a terminal with its lines broken between words."""
    width = page_width()
    if width is None:
        console().print(tree)
        return
    # Without a height the width would not count on terminals that know no sequences.
    Console(markup=False, highlight=False, emoji=False, width=width, height=_HEIGHT).print(tree)


def packed(parts: Sequence[Text], *, width: int) -> list[Text]:
    """
    The parts on as few lines as hold them, two blanks between two of them.

    None is broken. One that is too long for a line of its own is cut, and shows that by its end, ``…``.
    """
    lines: list[Text] = []
    for part in parts:
        shown = part.copy()
        shown.truncate(width, overflow="ellipsis")
        if lines and lines[-1].cell_len + _GAP + shown.cell_len <= width:
            lines[-1].append(" " * _GAP).append_text(shown)
        else:
            lines.append(shown)
    return lines


def is_wider(rows: Sequence[Sequence[Text]], width: int) -> bool:
    """Whether rows with their columns aligned have no room in so many columns."""
    return _whole_width(_widths(rows)) > width


def print_table(rows: Sequence[Sequence[Text]], *, spare: Sequence[int] = ()) -> None:
    """
    Print rows below their heading, the first of them, with no line wider than a terminal.

    ``spare`` are the places of the columns that can be done without, the first of them to go first; which
    went is told. What is too wide then is cut, and shows that by its end, ``…``.
    """
    width = page_width()
    if width is None:
        print_columns(rows)
        return
    left, gone = list(range(len(rows[0]))), []
    for place in spare:
        if not is_wider([[row[one] for one in left] for row in rows], width):
            break
        left.remove(place)
        gone.append(rows[0][place].plain)
    print_columns(_fitted([[row[one] for one in left] for row in rows], width))
    if gone:
        told = f"No room for: {', '.join(gone)}. A wider terminal shows all, and so does -o json."
        print_wrapped(Text(told, style="dim"))


def _fitted(rows: Sequence[Sequence[Text]], width: int) -> Sequence[Sequence[Text]]:
    """The rows with their widest cells cut as far as it takes."""
    widths = _widths(rows)
    while _whole_width(widths) > width and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1
    fitted = [[cell.copy() for cell in row] for row in rows]
    for row in fitted:
        for cell, room in zip(row, widths, strict=True):
            cell.truncate(room, overflow="ellipsis")
    return fitted


def _widths(rows: Sequence[Sequence[Text]]) -> list[int]:
    return [max(cell.cell_len for cell in column) for column in zip(*rows, strict=True)]


def _whole_width(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def plain(value: object, style: str = "") -> Text:
    """
    A value from somewhere else as text that cannot move the cursor or colour the screen.

    What is longer than 512 characters is cut, and says so.
    """
    text = printable(str(value))
    cut = "" if len(text) <= _LONGEST_SHOWN else f"… ({len(text)} characters)"
    return Text(text[:_LONGEST_SHOWN] + cut, style=style)
