"""``broker dev``: a throw-away broker that shows what it is for."""

import sys
from pathlib import Path

import rich_click as click
from rich.console import Console

from broker.dev import run_dev


@click.command()
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".broker-dev"),
    show_default=True,
    help="Where its keys, secrets and records are kept.",
)
@click.option(
    "--policies",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The policies to put in force; the ones delivered if unset.",
)
@click.option("--once", is_flag=True, help="End when the story is told.")
def dev(*, directory: Path, policies: Path | None, once: bool) -> None:
    """
    Start a broker on loopback with demo clients, a pretend issuer of users and embedded keys, and show
    one exchange from beginning to end.

    Everything in it is for trying out. Ctrl-C ends it.
    """
    sys.exit(run_dev(directory, policies=policies, is_once=once, console=Console()))
