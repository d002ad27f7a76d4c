"""``broker config schema``: the JSON Schema of the settings, for editors."""

import rich_click as click

from broker.cli.output import echo_json
from broker.config.documents import json_schema


@click.command()
def schema() -> None:
    """
    Print the JSON Schema of broker.yaml.

    Begin the file with "# yaml-language-server: $schema=broker.schema.json" and an editor that knows
    YAML completes and checks it.
    """
    echo_json(json_schema())
