"""``broker client secret``: a new client secret, and the only thing of it that the file may hold."""

import hashlib
import secrets
import sys
from typing import Final

import rich_click as click
from argon2 import PasswordHasher

from broker.cli.output import echo_json, output_option

_PREFIX: Final = "bks_"
_BYTES: Final = 32
_SHORTEST_CHOSEN: Final = 16
_LONGEST_CHOSEN: Final = 1024


@click.command()
@click.option("--chosen", is_flag=True, help="Hash a secret read from standard input instead.")
@output_option("text", "json")
def secret(*, chosen: bool, output: str) -> None:
    """
    Make a client secret of 256 bits; print it, and the line for the client's `secrets`.

    The secret is shown this once. It consists of letters, digits, "-" and "_", so that no encoding
    changes it. A secret that somebody chose is hashed slowly; prefer the ones made here.
    """
    if chosen:
        _print("", _hash_slowly(_read_chosen()), output=output)
    else:
        made = _PREFIX + secrets.token_urlsafe(_BYTES)
        digest = "sha256:" + hashlib.sha256(made.encode("ascii")).hexdigest()
        _print(made, digest, output=output)


def _print(made: str, stored: str, *, output: str) -> None:
    if output == "json":
        echo_json({"secret": made, "hash": stored} if made else {"hash": stored})
        return
    if made:
        click.echo("The secret, shown this once; give it to the client:", err=True)
        click.echo(made)
    click.echo("The line for the client's secrets in broker.yaml:", err=True)
    click.echo(f'- hash: "{stored}"')


def _read_chosen() -> str:
    if sys.stdin.isatty():
        chosen: str = click.prompt("Secret", hide_input=True, confirmation_prompt=True, err=True)
    else:
        chosen = sys.stdin.read(_LONGEST_CHOSEN + 2).removesuffix("\n").removesuffix("\r")
    if not _SHORTEST_CHOSEN <= len(chosen.encode()) <= _LONGEST_CHOSEN:
        raise click.UsageError(
            f"A chosen secret has {_SHORTEST_CHOSEN} to {_LONGEST_CHOSEN} bytes."
        )
    return chosen


def _hash_slowly(chosen: str) -> str:
    # The same cost as that of every failed attempt, so that the time tells nothing.
    return PasswordHasher().hash(chosen)
