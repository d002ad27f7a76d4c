"""Keys for the tests of the sealer: real Ed25519 keys in memory, whose holder can be away."""

from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from broker.audit.seal.keys import NamedSigner
from broker.errors import Reason, TemporarilyUnavailable

ORIGIN = "broker.example/audit/0123456789abcdef"


class KeysInMemory:
    """Versions of a key; ``first_signing`` is the oldest that still signs."""

    def __init__(self) -> None:
        self.keys = [Ed25519PrivateKey.generate()]
        self.first_signing = 1
        self.is_away = False
        self.signatures = 0

    def versions(self) -> Sequence[tuple[int, Ed25519PublicKey, bool]]:
        self._ask()
        numbered = list(enumerate(self.keys, start=1))
        return [
            (number, key.public_key(), number >= self.first_signing)
            for number, key in reversed(numbered)
        ]

    def sign(self, data: bytes, *, version: int) -> bytes:
        self._ask()
        self.signatures += 1
        return self.keys[version - 1].sign(data)

    def rotate(self) -> None:
        self.keys.append(Ed25519PrivateKey.generate())

    def _ask(self) -> None:
        if self.is_away:
            raise TemporarilyUnavailable(Reason.SIGNER_UNAVAILABLE, detail="away")


def signer_of(keys: KeysInMemory) -> NamedSigner:
    return NamedSigner(keys, origin=ORIGIN)


class DocumentInMemory:
    """A document that is kept by check-and-set, by somebody who can be away."""

    def __init__(self) -> None:
        self.members: Mapping[str, Any] = {}
        self.version = 0
        self.is_away = False

    def read(self) -> tuple[Mapping[str, Any], int]:
        self._ask()
        return self.members, self.version

    def write(self, members: Mapping[str, Any], *, over: int) -> bool:
        self._ask()
        if over != self.version:
            return False
        self.members, self.version = dict(members), over + 1
        return True

    def _ask(self) -> None:
        if self.is_away:
            raise TemporarilyUnavailable(Reason.SIGNER_UNAVAILABLE, detail="away")
