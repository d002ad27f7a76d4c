"""``broker audit tail``: the newest records, and those that come."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import rich_click as click

from broker.audit.index.location import Busy
from broker.audit.index.reader import SqliteAuditReader
from broker.audit.index.tail import Tail
from broker.audit.query import Found
from broker.audit.telling.formats import FORMATS
from broker.cli.audit_asking import (
    asked_reader,
    directory_argument,
    filter_options,
    query_of,
    tell_faults,
)
from broker.cli.audit_rows import print_record_lines
from broker.cli.inputs import config_option
from broker.cli.output import output_option

_EVERY: Final = 0.5


@click.command()
@directory_argument()
@filter_options()
@click.option(
    "-n",
    "number",
    type=click.IntRange(0, 1_000),
    default=10,
    show_default=True,
    help="So many of the newest.",
)
@click.option("--follow", "-f", is_flag=True, help="Wait for those that come, until Ctrl-C.")
@config_option()
@output_option("table", "ndjson")
def tail(
    directory: Path | None, number: int, config: Path, output: str, *, follow: bool, **filters: Any
) -> None:
    """Print the newest records in DIRECTORY, or in the one that the settings name, the newest last."""
    wanted = query_of(filters)
    with asked_reader(directory, config) as reader:
        coming = Tail(reader, wanted)
        newest = reader.find(wanted, limit=number).found[::-1] if number else []
        _print(newest, output=output)
        if not follow:
            tell_faults(reader)
            return
        shown = {(one.file, one.offset) for one in newest}
        try:
            while True:
                found = coming.more()
                _print([one for one in found if (one.file, one.offset) not in shown], output=output)
                if not found:
                    time.sleep(_EVERY)
                    _catch_up(reader)
        except KeyboardInterrupt:
            # That is how one says that it is enough.
            return


def _catch_up(reader: SqliteAuditReader) -> None:
    try:
        reader.catch_up(patience=0.0)
    except Busy:
        # Somebody else does it: what there is will be there the next time.
        return


def _print(found: Sequence[Found], *, output: str) -> None:
    if output == "ndjson":
        for one in found:
            click.echo(FORMATS["ndjson"].row(one.record, one.line), nl=False)
        return
    print_record_lines(found)
