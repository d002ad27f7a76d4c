"""``broker client key``: a new private key for a client, and the public half that the broker is given."""

import json
import os
from pathlib import Path
from typing import Final

import rich_click as click
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm

from broker.cli.output import echo_json
from broker.tokens.jwk import verification_key

_ALGORITHM: Final = "ES256"


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--public", type=click.Path(path_type=Path), help="Write the public half there.")
@click.option("--pem", is_flag=True, help="Write the private key as PEM instead of a JWK.")
def key(file: Path, public: Path | None, *, pem: bool) -> None:
    """
    Make a P-256 key for `private_key_jwt`: the private half into FILE, the public half as a JWK set.

    The private half is for the client, and readable by its owner alone. The public half is printed, and is
    what `jwks_file` names in the settings. No file is ever replaced.
    """
    # Both are looked at before either is written: one half alone is of no use to anybody.
    for one in (file, public):
        if one is not None:
            _make_room(one)
    if public is not None and public.resolve() == file.resolve():
        raise click.UsageError("The two halves are two files.")
    private = ec.generate_private_key(ec.SECP256R1())
    bare = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    kid = verification_key(bare, _ALGORITHM).thumbprint
    named = {"kid": kid, "alg": _ALGORITHM, "use": "sig"}
    text = (
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        if pem
        else json.dumps({**ECAlgorithm.to_jwk(private, as_dict=True), **named}) + "\n"
    )
    key_set = {"keys": [{**bare, **named}]}
    _write_new(file, text, mode=0o600)
    if public is None:
        echo_json(key_set)
    else:
        _write_new(public, json.dumps(key_set, indent=2) + "\n", mode=0o644)
        click.echo(f"Give {file} to the client, and name {public} as its jwks_file.", err=True)


def _make_room(file: Path) -> None:
    """See to it that the file is not there and that its folder is."""
    if os.path.lexists(file):
        raise click.UsageError(f"{file} exists already.")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(f"{file} cannot be written: {error.strerror}.") from None


def _write_new(file: Path, text: str, *, mode: int) -> None:
    """Write a file that is not there."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except OSError as error:
        raise click.UsageError(f"{file} cannot be written: {error.strerror}.") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as sink:
        sink.write(text)
