"""``broker keys revoke``: take a key out of use at once, in an emergency."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

import rich_click as click

from broker.cli.inputs import config_option, settings_from
from broker.cli.key_lives import age, moment, rotating, token_file_option
from broker.cli.output import echo_json, output_option
from broker.cli.recording import recording
from broker.config.problems import printable
from broker.keys.rotator import Revoked
from broker.model import KeyExposure
from broker.signing import exposure_under

_DASHED_KEY_ID: Final = re.compile(r"-[A-Za-z0-9_-]{42}")


class _TakesKeyId(click.RichCommand):
    """A command whose argument may begin with a dash, as one thumbprint in 64 does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        kids = [one for one in args if _DASHED_KEY_ID.fullmatch(one)]
        others = [one for one in args if one not in kids]
        return super().parse_args(ctx, [*others, "--", *kids] if kids else args)


@click.command(cls=_TakesKeyId)
@click.argument("kid")
@token_file_option
@config_option()
@output_option("text", "json")
def revoke(kid: str, token_file: Path | None, config: Path, output: str) -> None:
    """
    Take the key with the id KID out of use at once and for ever; `broker keys list` has the ids.

    Every broker follows at its next look: the key signs no more and leaves the key set, and if it was
    the one that signed, another does. Until when that is, and what cannot be undone, is told.
    """
    settings = settings_from(config)
    with (
        recording(settings, is_required=False) as journal,
        rotating(settings, token_file, journal=journal) as rotator,
    ):
        revoked = rotator.revoke(kid)
    is_recorded = revoked.is_recorded
    exposure = exposure_under(settings, revoked)
    signing = revoked.signing
    if output == "json":
        facts = {
            "revoked": revoked.kid,
            "algorithm": revoked.algorithm or None,
            "is_known": revoked.is_known,
            "is_repeated": revoked.is_repeated,
            "was_active": revoked.was_active,
            "replica": revoked.replica or None,
            "fault": revoked.fault or None,
            "signing": signing.kid if signing is not None else None,
            "is_recorded": is_recorded,
            **asdict(exposure),
        }
        echo_json(facts)
        return
    for line in sentences(revoked, exposure, now=rotator.now()):
        click.echo(line)
    if not is_recorded:
        click.echo(
            "- It could not be recorded in the audit log; a broker with these keys records what it sees."
        )


def sentences(revoked: Revoked, exposure: KeyExposure, *, now: int) -> Iterator[str]:
    """What was done and what remains, for people."""
    yield from _done(revoked)
    yield (
        "- It signs nothing, and no broker that can read the record publishes it, from"
        f" {_when(exposure.stopped_at, now)}."
    )
    yield (
        "- Verifiers that keep the key set may accept it, whoever signs with it, until"
        f" {_when(exposure.accepted_until, now)}; if a broker cannot read the record, those that ask it"
        f" may until {_when(exposure.cut_off_until, now)}."
    )
    yield (
        "- Its tokens are refused by verifiers that fetched the key set since, and have expired by"
        f" {_when(exposure.expired_at, now)}."
    )
    if revoked.fault:
        yield (
            f"- It is on record, but Vault could not be told to refuse it ({revoked.fault}): run this"
            " again."
        )
    if revoked.is_known:
        yield from _afterwards(revoked, exposure, now=now)


def _done(revoked: Revoked) -> Iterator[str]:
    if not revoked.is_known:
        yield f"Revoked: key {revoked.kid}, of which nothing is known."
        yield "- No broker lists a key with this id, so make sure that it is the one that you mean."
    elif revoked.is_repeated:
        yield f"Revoked already at {moment(revoked.revoked_at)}: {revoked.algorithm} key {revoked.kid}."
    else:
        yield f"Revoked: {revoked.algorithm} key {revoked.kid}."


def _afterwards(revoked: Revoked, exposure: KeyExposure, *, now: int) -> Iterator[str]:
    """What signs instead."""
    if revoked.replica:
        replica = printable(revoked.replica)
        yield f"- Replica {replica} signs in Vault until a key of its own may again."
        return
    if revoked.signing is None:
        yield "- No other key signs this algorithm now."
        return
    if not revoked.was_active:
        yield f"- Key {revoked.signing.kid} signs on."
        return
    yield f"- Key {revoked.signing.kid} signs from now on."
    if exposure.known_from > now:
        yield (
            "- Verifiers that do not fetch the key set for a key that they do not know refuse its"
            f" tokens until {_when(exposure.known_from, now)}."
        )


def _when(seconds: int, now: int) -> str:
    return f"{moment(seconds)} ({f'in {age(seconds - now)}' if seconds > now else 'over'})"
