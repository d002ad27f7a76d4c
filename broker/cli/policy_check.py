"""``broker policy check``: whether a folder of policies can be put in force."""

from collections.abc import Sequence
from pathlib import Path

import rich_click as click

from broker.cli.inputs import config_option, policies_from
from broker.cli.output import echo_json, output_option
from broker.cli.stop import Negative
from broker.config.problems import printable
from broker.policy.problems import Problem
from broker.policy.tables import check as find_problems


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@config_option()
@output_option("text", "json")
def check(directory: Path | None, config: Path, output: str) -> None:
    """
    Check the policies in DIRECTORY, or those that the settings name.

    Syntax, types against the schema, annotations and decision tables. A policy that decides no row of a
    table is remarked on; `broker policy test` insists on one.
    """
    place = policies_from(directory, config)
    found = find_problems(place)
    if output == "json":
        told = {"problems": _members(found.problems), "remarks": _members(found.remarks)}
        echo_json({"directory": str(place), **told})
    else:
        for problem in found.problems:
            click.echo(printable(f"{place}/{problem}"))
    for remark in found.remarks:
        click.echo(printable(f"{place}/{remark}"), err=True)
    if found.problems:
        raise Negative(f"The policies in {place} cannot be put in force.")
    click.echo(f"{place}: the policies can be put in force.", err=True)


def _members(problems: Sequence[Problem]) -> list[dict[str, str | int]]:
    return [{"file": one.file, "line": one.line, "sentence": one.sentence} for one in problems]
