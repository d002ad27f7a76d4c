"""``broker keys plan``: what will happen to the keys and when, and what a change would do."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import rich_click as click

from broker.cli.inputs import config_option, settings_from
from broker.cli.key_lives import (
    event_facts,
    events_of,
    facts_of,
    print_events,
    rotating,
    token_file_option,
)
from broker.cli.keys_revoke import sentences
from broker.cli.output import echo_json, output_option
from broker.config import Settings
from broker.keys.outlook import rehearsal
from broker.keys.record import KeyRecord
from broker.keys.rotator import Revoked, Rotator
from broker.signing import exposure_under


@click.command()
@click.option(
    "--rotate", "is_rotating", is_flag=True, help="As if `broker keys rotate` were run now."
)
@click.option("--revoke", "revoking", metavar="KID", help="As if `broker keys revoke KID` were.")
@token_file_option
@config_option()
@output_option("text", "json")
def plan(
    *,
    is_rotating: bool,
    revoking: str | None,
    token_file: Path | None,
    config: Path,
    output: str,
) -> None:
    """Show what will happen to the signing keys, and when. Nothing is changed."""
    if is_rotating and revoking:
        raise click.UsageError("Take one of --rotate and --revoke.")
    settings = settings_from(config)
    with rotating(settings, token_file, is_changing=is_rotating or bool(revoking)) as rotator:
        trial = rehearsal(rotator)
        revoked = trial.revoke(revoking) if revoking else None
        record = trial.rotate(trial.algorithms) if is_rotating else trial.look()
    if output == "json":
        echo_json(_facts(trial, record, revoked=revoked, settings=settings))
        return
    if revoked is not None:
        click.echo("Nothing is changed. A revocation made now would tell this:")
        for line in sentences(revoked, exposure_under(settings, revoked), now=trial.now()):
            click.echo(line)
    events = events_of(trial, record)
    if events:
        print_events(events, now=trial.now())
    else:
        click.echo("Nothing happens by itself.")


def _facts(
    rotator: Rotator, record: KeyRecord, *, revoked: Revoked | None, settings: Settings
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "events": [event_facts(event) for event in events_of(rotator, record)],
        "keys": facts_of(rotator, record),
    }
    if revoked is not None:
        facts["exposure"] = asdict(exposure_under(settings, revoked))
    return facts
