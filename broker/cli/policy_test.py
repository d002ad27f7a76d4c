"""``broker policy test``: every row of the decision tables, and how it came out."""

from dataclasses import asdict
from pathlib import Path

import rich_click as click
from rich.text import Text

from broker.cli.inputs import config_option, policies_from
from broker.cli.output import console, echo_json, output_option, plain, print_columns
from broker.cli.stop import Negative
from broker.config.problems import printable
from broker.policy.problems import PolicyLoadError
from broker.policy.tables import RowResult, TableReport, run_tables


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@config_option()
@output_option("table", "json")
def test(directory: Path | None, config: Path, output: str) -> None:
    """
    Run the decision tables of the policies in DIRECTORY, or of those that the settings name.

    A row passes when it is decided as it says, by the policies that it credits.
    """
    place = policies_from(directory, config)
    try:
        report = run_tables(place)
    except PolicyLoadError as error:
        raise Negative("\n".join(printable(f"{place}/{one}") for one in error.problems)) from None
    if output == "json":
        rows = [{**asdict(row), "is_passing": row.is_passing} for row in report.rows]
        uncovered = [asdict(one) for one in report.uncovered]
        echo_json({"is_passing": report.is_passing, "rows": rows, "uncovered": uncovered})
    else:
        _print(report)
    if not report.is_passing:
        raise Negative(f"The tables in {place} do not pass.")


def _print(report: TableReport) -> None:
    print_columns([_cells(row) for row in report.rows])
    screen = console()
    for problem in report.problems:
        screen.print(plain(problem, "red"))
    passing = sum(row.is_passing for row in report.rows)
    screen.print(plain(f"{passing} of {len(report.rows)} rows pass."))


def _cells(row: RowResult) -> list[Text]:
    mark = plain("✔", "green") if row.is_passing else plain("✖", "bold red")
    because = ", ".join(row.policy_ids) or "no policy"
    return [mark, *map(plain, (row.got, row.name, because, f"{row.file}:{row.line}"))]
