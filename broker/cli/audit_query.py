"""``broker audit query``: the records that meet some filters."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import rich_click as click

from broker.audit.index.reader import SqliteAuditReader
from broker.audit.query import MOST_ROWS, Found, Query
from broker.audit.telling.formats import FORMATS
from broker.cli.audit_asking import (
    asked_reader,
    directory_argument,
    filter_options,
    query_of,
    tell_faults,
)
from broker.cli.audit_rows import print_record_table
from broker.cli.inputs import config_option
from broker.cli.output import echo_json, output_option
from broker.cli.page import tell

_MOST: Final = 100_000


_NOTHING: Final = "No record meets this."
_NOTHING_OF_PEOPLE: Final = (
    "No record meets this. Whoever stands in it under a pseudonym (~2026-11~...) is found by name only with "
    "the keys of pseudonyms (--config FILE), and not in a period that was forgotten."
)


@click.command()
@directory_argument()
@filter_options()
@click.option(
    "--limit", type=click.IntRange(1, _MOST), default=50, show_default=True, help="At most so many."
)
@click.option("--cursor", default="", help="Go on where an answer ended, as it told.")
@click.option("--rebuild", is_flag=True, help="Make the index anew from the records first.")
@config_option()
@output_option("table", "json", "csv", "ndjson")
def query(
    directory: Path | None,
    limit: int,
    cursor: str,
    config: Path,
    output: str,
    *,
    rebuild: bool,
    **filters: Any,
) -> None:
    """
    Find records in DIRECTORY, or in the one that the settings name, the newest first.

    A filter that is given several times is met by any of its values; all filters have to be met. The
    answer comes from an index, which is made on the way. An index made by others may leave records out:
    with a copy of theirs, use --rebuild.
    """
    wanted = query_of(filters)
    with asked_reader(directory, config, is_anew=rebuild) as reader:
        found, changed, more = _pages(reader, wanted, limit=limit, cursor=cursor)
        _PRINTERS[output](found, more)
        if not found:
            tell(_NOTHING_OF_PEOPLE if wanted.names else _NOTHING)
        if more and output != "json":
            click.echo(f"There are more: --cursor {more}", err=True)
        tell_faults(reader, changed)


def _pages(
    reader: SqliteAuditReader, wanted: Query, *, limit: int, cursor: str
) -> tuple[list[Found], list[str], str]:
    found: list[Found] = []
    changed: list[str] = []
    left = limit
    while True:
        size = min(left, MOST_ROWS)
        page = reader.find(wanted, limit=size, cursor=cursor)
        found += page.found
        changed += page.changed
        cursor, left = page.next_cursor, left - size
        if not cursor or not left:
            return found, changed, cursor


def _print_table(found: Sequence[Found], _more: str) -> None:
    print_record_table(found)


def _print_json(found: Sequence[Found], more: str) -> None:
    records = [
        {"file": one.file, "offset": one.offset, "record": json.loads(one.line)} for one in found
    ]
    echo_json({"records": records, "next_cursor": more})


def _print_lines(name: str) -> Callable[[Sequence[Found], str], None]:
    def show(found: Sequence[Found], _more: str) -> None:
        click.echo(FORMATS[name].head, nl=False)
        for one in found:
            click.echo(FORMATS[name].row(one.record, one.line), nl=False)

    return show


_PRINTERS: Final[Mapping[str, Callable[[Sequence[Found], str], None]]] = {
    "table": _print_table,
    "json": _print_json,
    "csv": _print_lines("csv"),
    "ndjson": _print_lines("ndjson"),
}
