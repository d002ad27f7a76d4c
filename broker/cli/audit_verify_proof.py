"""``broker audit verify-proof``: whether a proof shows that a record was in a log, by a public key alone."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import rich_click as click

from broker.audit.merkle import ProofRefused
from broker.audit.notes import NoteKey
from broker.audit.seal.proof import LARGEST_PROOF, NOT_PROVED, Proof, Proved
from broker.cli.audit_inputs import (
    key_members,
    key_option,
    print_keys,
    read_file,
    read_keys,
)
from broker.cli.output import echo_json, output_option, plain, print_wrapped
from broker.cli.stop import Negative

_FORM: Final = "it is what `broker audit prove` printed, or - for standard input"


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
        told = "Make sure that the file is whole, and that the key is that of its log"
        raise Negative(f"✖ Nothing is proved: {refused}.\n{told}.") from None
    if output == "json":
        echo_json(_members(proved, known))
        return
    print_wrapped(plain(f"✔ Proved: {proved.sentence}.", "bold green"), indent=2)
    for name, value in json.loads(proved.record).items():
        told = value if isinstance(value, str) else json.dumps(value)
        print_wrapped(plain(f"  {name}: {told}"), indent=4)
    print_keys(_own(proved, known))
    print_wrapped(plain("Not proved by this:"))
    for one in NOT_PROVED:
        print_wrapped(plain(f"  - {one}"), indent=4)


def _own(proved: Proved, keys: Sequence[NoteKey]) -> Sequence[NoteKey]:
    """The keys of the log that the proof is of."""
    return [key for key in keys if key.name == proved.checkpoint.origin]


def _read(file: Path) -> str:
    if str(file) == "-":
        raw = sys.stdin.buffer.read(LARGEST_PROOF + 1)
    else:
        raw = read_file(file, LARGEST_PROOF, name="FILE", form=_FORM)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ProofRefused("it is not in UTF-8") from None


def _members(proved: Proved, keys: Sequence[NoteKey]) -> dict[str, Any]:
    return {
        "is_proved": True,
        "sentence": proved.sentence,
        "origin": proved.checkpoint.origin,
        "sealed_at": proved.checkpoint.time,
        "records": proved.checkpoint.size,
        "record": json.loads(proved.record),
        "keys": key_members(_own(proved, keys)),
        "not_proved": list(NOT_PROVED),
    }
