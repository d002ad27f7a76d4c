"""``broker policy check``: whether a folder of policies can be put in force."""

from pathlib import Path

import rich_click as click

from broker.cli.inputs import config_option, policies_from
from broker.cli.output import echo_json, output_option
from broker.cli.stop import Negative
from broker.config.problems import printable
from broker.policy.tables import check as find_problems


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@config_option()
@output_option("text", "json")
def check(directory: Path | None, config: Path, output: str) -> None:
    """
    Check the policies in DIRECTORY, or those that the settings name.

    Syntax, types against the schema, annotations, decision tables, and that every policy decides at
    least one row of a table.
    """
    place = policies_from(directory, config)
    problems = find_problems(place)
    if output == "json":
        members = [
            {"file": one.file, "line": one.line, "sentence": one.sentence} for one in problems
        ]
        echo_json({"directory": str(place), "problems": members})
    else:
        for problem in problems:
            click.echo(printable(f"{place}/{problem}"))
    if problems:
        raise Negative(f"The policies in {place} cannot be put in force.")
    click.echo(f"{place}: the policies can be put in force.", err=True)
