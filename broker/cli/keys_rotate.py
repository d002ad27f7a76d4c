"""``broker keys rotate``: set a successor for the keys that sign."""

from pathlib import Path

import rich_click as click

from broker.cli.inputs import config_option, settings_from
from broker.cli.key_lives import (
    facts_of,
    print_lives,
    rotating,
    token_file_option,
)
from broker.cli.output import echo_json, output_option
from broker.cli.recording import recording


@click.command()
@click.option(
    "--algorithm", "-a", "algorithms", multiple=True, help="Only the key of this algorithm."
)
@token_file_option
@config_option()
@output_option("table", "json")
def rotate(algorithms: tuple[str, ...], token_file: Path | None, config: Path, output: str) -> None:
    """
    Set a successor for each key that signs, and tell when it takes over.

    It is published first for as long as verifiers may keep the key set, and the old key stays published
    for as long as its tokens live. Nothing has to be restarted.
    """
    settings = settings_from(config)
    unknown = set(algorithms) - set(settings.keys.algorithms)
    if unknown:
        raise click.UsageError(f"Nothing is signed with {min(unknown)}.")
    with (
        recording(settings) as journal,
        rotating(settings, token_file, journal=journal) as rotator,
    ):
        record = rotator.rotate(algorithms or settings.keys.algorithms)
        if output == "json":
            echo_json({"keys": facts_of(rotator, record)})
        else:
            print_lives(rotator, record)
