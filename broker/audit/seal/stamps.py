"""Time-stamps of checkpoints (RFC 3161): that somebody else has seen them, and when."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from msgspec import Struct

from broker.audit.checkpoints import Checkpoint
from broker.audit.diagnosis import Fault, Place, Wrong
from broker.audit.seal.listing import moment

STAMPS: Final = "time-stamps.jsonl"
"""The file of time-stamps, beside the checkpoints."""

_LONGEST: Final = 256 * 1024
_LENIENCE: Final = 300.0


class StampsUnread(Exception):
    """Time-stamps cannot be verified here; the sentence says why."""


class _Line(Struct, forbid_unknown_fields=True):
    digest: str
    token: str


@dataclass(frozen=True, slots=True)
class Stamped:
    """A time-stamp that was not verified yet, where it stands and the digest that it is kept for."""

    place: Place
    digest: str
    token: bytes


class StampVerifier:
    """
    Verifies the time-stamps of those whose certificates come from some roots, in PEM.

    Raises ``StampsUnread`` when that package is not installed or the roots are none.
    """

    def __init__(self, roots: bytes) -> None:
        try:
            import rfc3161_client  # noqa: PLC0415 - not everybody has time-stamps.
        except ImportError:
            sentence = (
                "time-stamps are verified by the package rfc3161-client, which is not installed"
            )
            raise StampsUnread(sentence) from None
        try:
            certificates: Sequence[x509.Certificate] = x509.load_pem_x509_certificates(roots)
        except ValueError:
            raise StampsUnread("there is no certificate in PEM") from None
        builder = rfc3161_client.VerifierBuilder(roots=list(certificates))
        self._verifier = builder.build()
        self._decode = rfc3161_client.decode_timestamp_response
        self._refused = rfc3161_client.VerificationError

    def verify(self, stamped: Stamped, checkpoint: Checkpoint) -> float | Fault:
        """When the checkpoint was stamped, in unix seconds, or what is wrong with that."""
        try:
            response = self._decode(stamped.token)
            self._verifier.verify_message(response, checkpoint.text.encode())
            at = float(response.tst_info.gen_time.timestamp())
        except (self._refused, ValueError) as error:
            sentence = f"the time-stamp is not one of this checkpoint by who is trusted: {error}"
            return Fault(stamped.place, Wrong.FOREIGN, sentence)
        if at + _LENIENCE < moment(checkpoint):
            sentence = "the checkpoint was stamped before the time that it tells"
            return Fault(stamped.place, Wrong.REWRITTEN, sentence)
        return at


def read_stamps(folder: Path, faults: list[Fault]) -> dict[str, list[Stamped]]:
    """
    The time-stamps of a list of checkpoints by the digests that they are kept for.

    What is none goes to ``faults``; a last line without an end is left out. Raises ``OSError``.
    """
    found: dict[str, list[Stamped]] = {}
    path = folder / STAMPS
    if not path.exists():
        return found
    with path.open("rb") as file:
        number = 0
        while line := file.readline(_LONGEST):
            number += 1
            if not line.endswith(b"\n") and len(line) < _LONGEST:
                break
            stamped = _stamped(Place(path, number), line)
            if stamped is None:
                sentence = "the line is no time-stamp"
                faults.append(Fault(Place(path, number), Wrong.CHANGED, sentence))
                break
            found.setdefault(stamped.digest, []).append(stamped)
    return found


def _stamped(place: Place, line: bytes) -> Stamped | None:
    try:
        told = msgspec.json.decode(line, type=_Line)
        return Stamped(place, told.digest, base64.b64decode(told.token, validate=True))
    except (ValueError, RecursionError, binascii.Error):
        return None
