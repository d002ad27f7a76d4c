"""Records as rows: a line for each where there is room for that, and several on a narrow terminal."""

from collections.abc import Sequence
from itertools import compress
from typing import Final

from rich.text import Text

from broker.audit.index.entries import deciding
from broker.audit.query import Found
from broker.audit.telling.question import question
from broker.cli.output import console, is_wider, packed, plain, print_columns
from broker.cli.page import page_width

DECISIONS: Final = {
    "permit": ("✔ permit", "green"),
    "deny": ("✖ deny", "bold red"),
    "info": ("· info", "dim"),
}
"""What came of a request, in a word and its style."""

_COLUMNS: Final = (
    "time",
    "decision",
    "event",
    "subject",
    "auditor",
    "client",
    "MCP server",
    "resource",
    "why",
    "id",
)
_HEAD: Final = 3
_INDENT: Final = 4
_NOTHING: Final = "-"


def print_record_table(found: Sequence[Found]) -> None:
    """Print records below a heading, without the columns in which nothing is told."""
    rows = [[plain(name, "dim") for name in _COLUMNS], *map(_cells, found)]
    told = [any(row[place].plain != _NOTHING for row in rows[1:]) for place in range(len(_COLUMNS))]
    table = [list(compress(row, told)) for row in rows]
    width = page_width()
    if width is not None and is_wider(table, width):
        _print_folded(rows[1:], width)
    else:
        print_columns(table)


def print_record_lines(found: Sequence[Found]) -> None:
    """Print records that come one by one, so that nobody knows how wide their columns will be."""
    rows, width, screen = [_cells(one) for one in found], page_width(), console()
    lines = [Text("  ").join(row) for row in rows]
    if width is not None and any(line.cell_len > width for line in lines):
        _print_folded(rows, width)
        return
    for line in lines:
        screen.print(line)


def _cells(found: Found) -> list[Text]:
    record = found.record
    word, style = DECISIONS[record.decision]
    grounds = (record.reason or ", ".join(deciding(record)), question(record))
    why = "; ".join(told for told in grounds if told)
    values = (
        record.event,
        record.subject or (record.party if record.party_kind == "subject" else None),
        record.auditor,
        record.client_id or record.mcp_client,
        record.mcp_server,
        record.resource,
        why,
        record.event_id,
    )
    return [
        plain(f"{record.time[:19]}Z"),
        plain(word, style),
        *(plain(value or _NOTHING) for value in values),
    ]


def _print_folded(rows: Sequence[Sequence[Text]], width: int) -> None:
    """Each record on several lines: when and what, then what is told of it, by the names of the columns."""
    screen, indent = console(), Text(" " * _INDENT)
    for row in rows:
        screen.print(*packed(row[:_HEAD], width=width), sep="\n")
        told = [
            Text.assemble((f"{name} ", "dim"), cell)
            for name, cell in zip(_COLUMNS[_HEAD:], row[_HEAD:], strict=True)
            if cell.plain != _NOTHING
        ]
        for line in packed(told, width=width - _INDENT):
            screen.print(indent + line)
