"""The key that seals the audit record, in Vault's transit engine: it has never been anywhere else."""

import base64
import binascii
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker.errors import TemporarilyUnavailable
from broker.keys.unavailable import signer_unavailable
from broker.keys.vault_http import vault_name, vault_path
from broker.keys.vault_session import VaultSession

_HOLDS_SECONDS: Final = 60.0
_MOST_VERSIONS: Final = 20
_MISLEADING: Final = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)

Version = tuple[int, Ed25519PublicKey, bool]


class VaultAuditKey:
    """
    A transit key of type ``ed25519`` that cannot be exported.

    Which versions it has is asked once a minute, and again after a signature that failed. Everything
    raises ``TemporarilyUnavailable`` when Vault is away, has no such key or one of another kind, or signs
    with another than it was asked for.
    """

    def __init__(
        self,
        session: VaultSession,
        *,
        name: str,
        mount: str = "transit",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._name = vault_name(name)
        self._path = vault_path(mount)
        self._monotonic = monotonic
        self._versions: Sequence[Version] = ()
        self._asked_at = float("-inf")

    def versions(self) -> Sequence[Version]:
        if self._monotonic() - self._asked_at >= _HOLDS_SECONDS:
            answer = self._session.get(f"{self._path}/keys/{self._name}")
            try:
                self._versions = _versions(answer["data"])
            except _MISLEADING as error:
                detail = f"vault: key {self._name} is not fit to seal: {error}"
                raise signer_unavailable(detail) from error
            self._asked_at = self._monotonic()
        return self._versions

    def sign(self, data: bytes, *, version: int) -> bytes:
        try:
            return self._signed(data, version)
        except TemporarilyUnavailable:
            # It may be that this version no longer signs.
            self._asked_at = float("-inf")
            raise

    def _signed(self, data: bytes, version: int) -> bytes:
        body = {"input": base64.b64encode(data).decode("ascii"), "key_version": version}
        answer = self._session.post(f"{self._path}/sign/{self._name}", body)
        try:
            _, number, encoded = answer["data"]["signature"].split(":")
            signature = base64.b64decode(encoded, validate=True)
        except (*_MISLEADING, binascii.Error) as error:
            raise signer_unavailable("vault: malformed answer") from error
        known = {f"v{one}": key for one, key, _ in self._versions if one == version}
        try:
            known[number].verify(signature, data)
        except (InvalidSignature, LookupError) as error:
            raise signer_unavailable("vault: the signature is not that of the key") from error
        return signature


def _versions(data: Mapping[str, Any]) -> Sequence[Version]:
    if data["type"] != "ed25519":
        raise ValueError("it is not of type ed25519")
    if data["exportable"] is not False or data["allow_plaintext_backup"] is not False:
        raise ValueError("it can be exported")
    if data.get("derived"):
        raise ValueError("it is derived")
    lowest = int(data["min_encryption_version"])
    numbers = sorted(map(int, data["keys"]), reverse=True)[:_MOST_VERSIONS]
    if not numbers:
        raise ValueError("it has no version")
    return tuple(
        (number, _public_key(data["keys"][str(number)]["public_key"]), number >= lowest)
        for number in numbers
    )


def _public_key(encoded: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(base64.b64decode(encoded, validate=True))
