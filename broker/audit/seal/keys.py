"""The keys that checkpoints are signed with: what is asked of whoever holds them."""

from collections.abc import Sequence
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker.audit.notes import NoteKey


class AuditKeySource(Protocol):
    """
    Holds the versions of an Ed25519 key, which it has never given away.

    Both methods may take as long as the deadline of whoever is asked, and raise
    ``TemporarilyUnavailable`` when that is away.
    """

    def versions(self) -> Sequence[tuple[int, Ed25519PublicKey, bool]]:
        """
        The number of each version, its public half, and whether it still signs; the newest first.

        One of them at least does.
        """
        ...

    def sign(self, data: bytes, *, version: int) -> bytes:
        """The signature of the data itself (RFC 8032, pure Ed25519) by one version."""
        ...


class CheckpointSigner(Protocol):
    """Signs the checkpoints of one log. Raises ``TemporarilyUnavailable`` when it cannot now."""

    def keys(self) -> Sequence[NoteKey]:
        """Every key by which a checkpoint of this log may be signed, the newest first."""
        ...

    def key_after(self, before: NoteKey | None) -> NoteKey:
        """The key to sign with next: that of the checkpoint before, as long as it signs, else the newest."""
        ...

    def sign(self, text: bytes, *, key: NoteKey) -> bytes:
        """The signature of a text by one of the keys."""
        ...


class NamedSigner:
    """
    Signs with the versions of a key, under the name of one log.

    A new version changes nothing for those who hold the public key that they were given: the version that
    began goes on signing until whoever holds the key no longer lets it.
    """

    def __init__(self, source: AuditKeySource, *, origin: str) -> None:
        self._source = source
        self._origin = origin
        self._numbers: dict[str, int] = {}

    def keys(self) -> Sequence[NoteKey]:
        return [key for key, _ in self._read()]

    def key_after(self, before: NoteKey | None) -> NoteKey:
        signing = [key for key, signs in self._read() if signs]
        if before in signing:
            return before
        return signing[0]

    def sign(self, text: bytes, *, key: NoteKey) -> bytes:
        return self._source.sign(text, version=self._numbers[key.text])

    def _read(self) -> Sequence[tuple[NoteKey, bool]]:
        versions = [
            (NoteKey(self._origin, public_key), number, signs)
            for number, public_key, signs in self._source.versions()
        ]
        self._numbers = {key.text: number for key, number, _ in versions}
        return [(key, signs) for key, _, signs in versions]
