"""Time-stamps of checkpoints (RFC 3161): that somebody else has seen them, and when."""

import base64
import binascii
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509

from broker.audit.checkpoints import Checkpoint
from broker.audit.diagnosis import Fault, Place, Wrong
from broker.audit.seal.listing import moment
from broker.audit.seal.time_stamps import (
    FILE,
    LENIENCE_SECONDS,
    StampLine,
    TimeStampRefused,
    stamped_time,
)
from broker.audit.segments import regular

_LONGEST: Final = 256 * 1024
_LARGEST_ROOTS: Final = 1024 * 1024


class StampsUnread(Exception):
    """Time-stamps cannot be verified here; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Stamped:
    """A time-stamp that was not verified yet, where it stands and the digest that it is kept for."""

    place: Place
    digest: str
    token: bytes


class StampVerifier:
    """
    Verifies the time-stamps of those whose certificates come from the roots in a file, in PEM.

    Raises ``StampsUnread`` when there are none, or the package that verifies is not installed.
    """

    def __init__(self, roots: Path) -> None:
        if find_spec("rfc3161_client") is None:
            raise StampsUnread(
                "time-stamps take the package rfc3161-client, which is not installed"
            )
        try:
            with roots.open("rb") as file:
                x509.load_pem_x509_certificates(file.read(_LARGEST_ROOTS))
        except (OSError, ValueError):
            raise StampsUnread(f"{roots} holds no certificate in PEM") from None
        self._roots = roots

    def verify(self, stamped: Stamped, checkpoint: Checkpoint) -> float | Fault:
        """When the checkpoint was stamped, in unix seconds, or what is wrong with that."""
        try:
            at = stamped_time(
                stamped.token, checkpoint.text.encode(), roots=self._roots
            ).timestamp()
        except TimeStampRefused as refused:
            return Fault(stamped.place, Wrong.FOREIGN, str(refused))
        if at + LENIENCE_SECONDS < moment(checkpoint):
            sentence = "the checkpoint was stamped before the time that it tells"
            return Fault(stamped.place, Wrong.REWRITTEN, sentence)
        return at


def read_stamps(folder: Path, faults: list[Fault]) -> dict[str, list[Stamped]]:
    """
    The time-stamps of a list of checkpoints by the digests that they are kept for.

    What is none goes to ``faults``; a last line without an end is left out. Raises ``OSError``.
    """
    found: dict[str, list[Stamped]] = {}
    path = folder / FILE
    if not path.exists():
        return found
    with open(path, "rb", opener=regular) as file:
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
        told = msgspec.json.decode(line, type=StampLine)
        return Stamped(place, told.digest, base64.b64decode(told.token, validate=True))
    except (ValueError, RecursionError, binascii.Error):
        return None
