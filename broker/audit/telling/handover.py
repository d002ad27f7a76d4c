"""Who signs for records that are handed over, and the checkpoint that they stand under."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from broker.audit.notes import NoteKey, NoteRefused
from broker.audit.seal.keys import CheckpointSigner
from broker.audit.segments import AuditLogRefused
from broker.audit.telling.manifest import Manifest, ManifestRefused, Standing, opened
from broker.audit.telling.placement import Seals
from broker.errors import TemporarilyUnavailable


class NotSigned(Exception):
    """Nobody can sign for what is to be handed over now; the sentence tells the operator why."""


@dataclass(frozen=True, slots=True)
class Terms:
    """
    By which key a manifest will be signed, and the newest checkpoint before anything was read.

    The name of the key is that of the log.
    """

    key: NoteKey
    checkpoint: Standing | None


class Handover(Protocol):
    """
    Signs for what is handed over. May be asked by any thread, and never in an event loop.

    Both methods take as long as whoever holds the key may take, and raise ``NotSigned``.
    """

    def signing_terms(self) -> Terms:
        """What a manifest will be signed under; to be asked before the first record is read."""
        ...

    def signed_manifest(self, manifest: Manifest, terms: Terms) -> str:
        """The manifest as a note, which verifies by the key of its terms."""
        ...


class SignedHandover:
    """Signs for the record of one directory by the key that has signed its newest checkpoint."""

    def __init__(self, directory: Path, signer: CheckpointSigner) -> None:
        self._seals = Seals(directory)
        self._signer = signer

    def signing_terms(self) -> Terms:
        with _signing():
            latest = self._seals.latest()
            before = self._seals.signed_by(self._signer.keys())
            if latest is not None and before is None:
                raise NotSigned("the newest checkpoint is signed by another key")
            standing = None if latest is None else Standing(latest.digest, latest.size)
            return Terms(self._signer.key_after(before), standing)

    def signed_manifest(self, manifest: Manifest, terms: Terms) -> str:
        with _signing():
            note = manifest.signed(self._signer, before=terms.key)
            # What nobody can verify elsewhere is not worth handing over.
            opened(note, [terms.key])
            return note


@contextmanager
def _signing() -> Iterator[None]:
    try:
        yield
    except TemporarilyUnavailable as away:
        raise NotSigned(away.detail or "the key cannot be had") from away
    except (AuditLogRefused, NoteRefused, ManifestRefused) as refused:
        raise NotSigned(str(refused)) from refused
    except OSError as error:
        # The text of the error names paths of the machine.
        raise NotSigned(f"a file cannot be read: {error.strerror}") from error
