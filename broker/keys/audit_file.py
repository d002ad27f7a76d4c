"""The embedded key that seals the audit record: an Ed25519 key in a file beside the signing keys."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from broker.keys.key_files import KeyFileRefused, create_private, private_directory, read_private


class AuditKeyFile:
    """
    A key as PKCS#8 PEM, which is made once and has one version.

    Everything raises ``KeyFileRefused`` when the file or its directory is not its owner's alone, or does
    not hold such a key.
    """

    NAME: ClassVar[str] = "audit-key.pem"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / self.NAME
        self._key: Ed25519PrivateKey | None = None

    def versions(self) -> Sequence[tuple[int, Ed25519PublicKey, bool]]:
        return [(1, self._load().public_key(), True)]

    def sign(self, data: bytes, *, version: int) -> bytes:
        if version != 1:
            raise KeyFileRefused(f"{self._path} has one version")
        return self._load().sign(data)

    def _load(self) -> Ed25519PrivateKey:
        """The key, read once in a process."""
        if self._key is None:
            self._key = self._read_or_make()
        return self._key

    def _read_or_make(self) -> Ed25519PrivateKey:
        with private_directory(self._directory) as folder:
            try:
                return self._read(folder)
            except FileNotFoundError:
                pem = Ed25519PrivateKey.generate().private_bytes(
                    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
                )
                create_private(folder, self.NAME, content=pem, path=self._path)
                return self._read(folder)

    def _read(self, folder: int) -> Ed25519PrivateKey:
        pem, _ = read_private(folder, self.NAME, path=self._path)
        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyFileRefused(f"{self._path} does not hold an Ed25519 key in PEM form")
        return key
