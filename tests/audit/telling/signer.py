"""An audit key in memory, as whoever seals the record has one."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.audit.notes import NoteKey

NAME = "broker.example/audit/0123456789abcdef"
PRIVATE_KEY = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
KEY = NoteKey(NAME, PRIVATE_KEY.public_key())


class Signer:
    """Signs by one key."""

    def __init__(self, private_key: Ed25519PrivateKey = PRIVATE_KEY) -> None:
        self._private_key = private_key

    def key_after(self, _before: NoteKey | None) -> NoteKey:
        return NoteKey(NAME, self._private_key.public_key())

    def sign(self, text: bytes, *, key: NoteKey) -> bytes:
        assert key == self.key_after(None)
        return self._private_key.sign(text)
