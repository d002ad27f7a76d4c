"""``broker audit verify``: whether the audit record is whole, chain by chain."""

from pathlib import Path
from typing import Any, Final

import rich_click as click
from rich.text import Text

from broker.audit.reader import UNDETECTED, Report, verify_directory
from broker.audit.verify import ChainReport
from broker.cli.inputs import config_option, settings_from
from broker.cli.output import console, echo_json, output_option, plain, print_columns
from broker.cli.stop import Negative

_COLUMNS: Final = ("writer", "segments", "records", "first", "last", "state")


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@config_option()
@output_option("table", "json")
def verify(directory: Path | None, config: Path, output: str) -> None:
    """
    Verify the chains of records in DIRECTORY, or in the one that the settings name.

    The first fault of each chain is named with its file and line. What no chain can show by itself is
    said as well.
    """
    place = directory or settings_from(config).audit.directory
    if not place.is_dir():
        raise click.UsageError(f"{place} is not a directory.")
    try:
        report = verify_directory(place)
    except OSError as error:
        raise Negative(f"{place} cannot be read: {error.strerror}.") from None
    _print(report, output=output)
    if not report.is_intact:
        raise Negative("The audit record is not whole.")


def _print(report: Report, *, output: str) -> None:
    if output == "json":
        chains = [_members(one) for one in report.chains]
        echo_json({"is_intact": report.is_intact, "records": report.records, "chains": chains})
        return
    heading = [plain(name, "dim") for name in _COLUMNS]
    print_columns([heading, *map(_cells, report.chains)])
    screen = console()
    for one in report.chains:
        if one.fault is not None:
            screen.print(plain(one.fault, "bold red"))
        for group in one.unfinished_groups:
            told = f"the group {group} was cut short; none of its tokens left the broker."
            screen.print(plain(f"{one.writer}: {told}", "yellow"))
    screen.print(plain(f"{report.records} records. Undetectable by this: {'; '.join(UNDETECTED)}."))


def _cells(one: ChainReport) -> list[Text]:
    counts = (one.segments, one.records)
    return [
        plain(cell) for cell in (one.writer, *counts, one.first_time, one.last_time, _state(one))
    ]


def _state(one: ChainReport) -> str:
    if one.fault is not None:
        return f"✖ {one.fault.wrong}"
    return "✔ whole, closed" if one.is_closed else "✔ whole, open"


def _members(one: ChainReport) -> dict[str, Any]:
    return {
        "writer": one.writer,
        "segments": one.segments,
        "records": one.records,
        "first_time": one.first_time,
        "last_time": one.last_time,
        "torn_bytes": one.torn_bytes,
        "is_closed": one.is_closed,
        "unfinished_groups": list(one.unfinished_groups),
        "fault": one.fault and {"wrong": one.fault.wrong, "sentence": str(one.fault)},
    }
