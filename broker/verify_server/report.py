"""The report of a trial: a table for people, JSON for programs."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from textwrap import fill
from typing import Any, Final

from broker.verify_server.cases import Result, Verdict

_COLUMNS: Final = ("", "case", "sent", "must happen", "happened")
_WRONG: Final = frozenset({Verdict.FAIL, Verdict.WARN})
_STYLES: Final = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.WARN: "yellow",
    Verdict.SKIP: "dim",
}
_LONGEST: Final = 160
_NARROWEST: Final = 100
_WIDTH_OF_TEXT: Final = 100


def print_report(results: Sequence[Result]) -> None:
    """Print a line for every case, and then how to mend what is wrong and why some were not tried."""
    rows = [_row(result) for result in results]
    if find_spec("rich") is None:
        _print_plainly(rows)
    else:
        _print_richly(rows, [_STYLES[result.verdict] for result in results])
    skipped = [(result.case.name, shown(result.happened)) for result in results if _is_skip(result)]
    _print_list("How to mend it", [(result.case.name, _mend(result)) for result in results])
    _print_list("Not tried", skipped)
    counted = Counter(result.verdict for result in results)
    total = ", ".join(f"{counted[one]} {one.value}" for one in Verdict if counted[one])
    print(f"\n{total}")  # noqa: T201 - the report is what this is for.


def print_json(results: Sequence[Result], *, url: str, issuer: str) -> None:
    """Print the same as JSON."""
    document = {
        "url": url,
        "issuer": issuer,
        "is_passed": not has_failed(results),
        "cases": [_member(result) for result in results],
    }
    print(json.dumps(document, indent=2))  # noqa: T201 - the report is what this is for.


def has_failed(results: Sequence[Result]) -> bool:
    """Whether anything that must be so is not."""
    return any(result.verdict is Verdict.FAIL for result in results)


def shown(text: str) -> str:
    """Text that may come from a server, so that it cannot move the cursor or colour the screen."""
    return "".join(one if one.isprintable() else "?" for one in text[:_LONGEST])


def _is_skip(result: Result) -> bool:
    return result.verdict is Verdict.SKIP


def _mend(result: Result) -> str:
    return result.case.mend if result.verdict in _WRONG else ""


def _row(result: Result) -> tuple[str, ...]:
    case = result.case
    happened = "" if _is_skip(result) else shown(result.happened)
    return (result.verdict.value, case.name, case.sent, case.must, happened)


def _print_list(title: str, items: Sequence[tuple[str, str]]) -> None:
    """Print every sentence once, with the names of the cases that it is about."""
    names: dict[str, list[str]] = {}
    for name, sentence in items:
        if sentence:
            names.setdefault(sentence, []).append(name)
    if names:
        print(f"\n{title}:")  # noqa: T201 - the report is what this is for.
    for sentence, about in names.items():
        text = f"{', '.join(about)}: {sentence}"
        print(fill(text, _WIDTH_OF_TEXT, initial_indent="  ", subsequent_indent="    "))  # noqa: T201 - the same.


def _member(result: Result) -> dict[str, Any]:
    case = result.case
    return {
        "case": case.name,
        "verdict": result.verdict.value,
        "sent": case.sent,
        "must": case.must,
        "happened": shown(result.happened),
        "mend": _mend(result),
        "is_advice": case.is_advice,
    }


def _print_plainly(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    for row in (_COLUMNS, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())  # noqa: T201 - the report is what this is for.


def _print_richly(rows: Sequence[Sequence[str]], styles: Sequence[str]) -> None:
    from rich.console import Console  # noqa: PLC0415 - it is used only where it is there.
    from rich.table import Table  # noqa: PLC0415 - the same.
    from rich.text import Text  # noqa: PLC0415 - the same.

    table = Table(box=None, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, overflow="fold", no_wrap=column in _COLUMNS[:2])
    for row, style in zip(rows, styles, strict=True):
        table.add_row(Text(row[0], style=style), *(Text(cell) for cell in row[1:]))
    # A file has no width at all, and nobody reads a table of five columns that is narrower.
    width = max(shutil.get_terminal_size((160, 24)).columns, _NARROWEST)
    Console(width=width, markup=False, highlight=False, emoji=False).print(table)
