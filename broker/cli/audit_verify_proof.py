"""``broker audit verify-proof``: whether a proof shows that a record was in a log, by a public key alone."""

import json
import sys
from pathlib import Path
from typing import Any

import rich_click as click

from broker.audit.merkle import ProofRefused
from broker.audit.seal.proof import LARGEST_PROOF, NOT_PROVED, Proof, Proved
from broker.cli.audit_inputs import key_option, read_file, read_keys
from broker.cli.output import console, echo_json, output_option, plain
from broker.cli.stop import Negative


@click.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@key_option(is_required=True)
@output_option("text", "json")
def verify_proof(file: Path, *, keys: tuple[str, ...], output: str) -> None:
    """
    Verify the proof in FILE, or in standard input for -, with the public key of the log's checkpoints.

    Neither the log nor the broker is needed. It says what is proved, and what is not.
    """
    known = read_keys(keys)
    try:
        proved = Proof.read(_read(file)).verify(known)
    except ProofRefused as refused:
        raise Negative(f"✖ Nothing is proved: {refused}.") from None
    if output == "json":
        echo_json(_members(proved))
        return
    screen = console()
    screen.print(plain(f"✔ Proved: {proved.sentence}.", "bold green"))
    for name, value in json.loads(proved.record).items():
        told = value if isinstance(value, str) else json.dumps(value)
        screen.print(plain(f"  {name}: {told}"))
    screen.print(plain("Not proved by this:"))
    for one in NOT_PROVED:
        screen.print(plain(f"  - {one}"))


def _read(file: Path) -> str:
    if str(file) == "-":
        raw = sys.stdin.buffer.read(LARGEST_PROOF + 1)
    else:
        raw = read_file(file, LARGEST_PROOF, name="FILE")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ProofRefused("it is not in UTF-8") from None


def _members(proved: Proved) -> dict[str, Any]:
    return {
        "is_proved": True,
        "sentence": proved.sentence,
        "origin": proved.checkpoint.origin,
        "sealed_at": proved.checkpoint.time,
        "records": proved.checkpoint.size,
        "record": json.loads(proved.record),
        "not_proved": list(NOT_PROVED),
    }
