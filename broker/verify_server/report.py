"""The report of a trial: a table for people, JSON for programs."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Final

from broker.verify_server.cases import Result, Verdict

_COLUMNS: Final = ("", "case", "sent", "must happen", "happened")
_STYLES: Final = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.WARN: "yellow",
    Verdict.SKIP: "dim",
}
_LONGEST: Final = 160
_NARROWEST: Final = 100


def print_report(results: Sequence[Result]) -> None:
    """Print a line for every case, with a column on how to mend what is wrong."""
    is_wrong = any(_mend(result) for result in results)
    columns = (*_COLUMNS, "how to mend it") if is_wrong else _COLUMNS
    rows = [_row(result)[: len(columns)] for result in results]
    if find_spec("rich") is None:
        _print_plainly(columns, rows)
    else:
        _print_richly(columns, rows, [_STYLES[result.verdict] for result in results])
    print(_sum(results))  # noqa: T201 - the report is what this is for.


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


def _mend(result: Result) -> str:
    return result.case.mend if result.verdict in {Verdict.FAIL, Verdict.WARN} else ""


def _row(result: Result) -> tuple[str, ...]:
    case = result.case
    return (
        result.verdict.value,
        case.name,
        case.sent,
        case.must,
        shown(result.happened),
        _mend(result),
    )


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


def _sum(results: Sequence[Result]) -> str:
    counted = Counter(result.verdict for result in results)
    return ", ".join(f"{counted[one]} {one.value}" for one in Verdict if counted[one])


def _print_plainly(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())  # noqa: T201 - the report is what this is for.


def _print_richly(
    columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str]
) -> None:
    from rich.console import Console  # noqa: PLC0415 - it is used only where it is there.
    from rich.table import Table  # noqa: PLC0415 - the same.
    from rich.text import Text  # noqa: PLC0415 - the same.

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row, style in zip(rows, styles, strict=True):
        table.add_row(Text(row[0], style=style), *(Text(cell) for cell in row[1:]))
    # Nobody reads a table of five columns that is narrower, and a file has no width at all.
    width = max(shutil.get_terminal_size((160, 24)).columns, _NARROWEST)
    Console(width=width, markup=False, highlight=False, emoji=False).print(table)
