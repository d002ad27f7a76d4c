"""A key in Vault's transit engine: the versions that it has, and how one of them is asked to sign."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from broker.keys.published import PublishedKey, published_key
from broker.keys.unavailable import signer_unavailable
from broker.keys.vault_session import VaultSession

_MOST_VERSIONS: Final = 20
"""How many versions are read; older ones are no longer in any token that still lives."""


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How one JWS algorithm is asked of the transit engine, whose own defaults differ from JWS."""

    key_types: frozenset[str]
    parameters: Mapping[str, str]
    batch_limit: int


_DIALECTS: Final[Mapping[str, _Dialect]] = {
    # A request may hold about 490 items before OpenBao refuses to parse it.
    "ES256": _Dialect(frozenset({"ecdsa-p256"}), {"marshaling_algorithm": "jws"}, 400),
    # One RSA signature takes milliseconds, and a whole batch must stay well below the read timeout.
    "RS256": _Dialect(
        frozenset({"rsa-2048", "rsa-3072", "rsa-4096"}), {"signature_algorithm": "pkcs1v15"}, 32
    ),
}
_MISLEADING: Final = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    UnsupportedAlgorithm,
)
"""What an answer about a key can provoke that is not of the form it should have."""
TRANSIT_ALGORITHMS: Final = frozenset(_DIALECTS)


@dataclass(frozen=True, slots=True, eq=False)
class KeyVersion:
    """One version of a transit key. ``created_at`` is in unix seconds, by Vault's clock."""

    algorithm: str
    key_name: str
    number: int
    created_at: int
    published: PublishedKey

    @property
    def kid(self) -> str:
        return self.published.kid

    @property
    def name(self) -> str:
        """The versions of a key fail together."""
        return self.algorithm

    @property
    def batch_limit(self) -> int:
        return _DIALECTS[self.algorithm].batch_limit


def read_versions(
    session: VaultSession, path: str, *, key_name: str, algorithm: str
) -> tuple[KeyVersion, ...]:
    """
    The versions of a key that Vault shows, newest first.

    Raises ``TemporarilyUnavailable`` when Vault cannot be asked, does not have such a key, or has
    one that is not fit for the algorithm.
    """
    answer = session.get(f"{path}/keys/{key_name}")
    try:
        return _versions(answer["data"], key_name=key_name, algorithm=algorithm)
    except _MISLEADING as error:
        raise signer_unavailable(f"vault: key {key_name} is not fit for {algorithm}") from error


def sign_digests(
    session: VaultSession, path: str, *, version: KeyVersion, digests: Sequence[bytes]
) -> list[bytes | None]:
    """
    The raw JWS signatures of SHA-256 digests, ``None`` for each that Vault refused.

    Digests travel, and not tokens: what the claims say about people stays here. The version is
    always named, since a rotation would change the default at once. Raises
    ``TemporarilyUnavailable`` when Vault cannot be asked or refuses all.
    """
    body = {
        "batch_input": [{"input": base64.b64encode(digest).decode("ascii")} for digest in digests],
        "key_version": version.number,
        "hash_algorithm": "sha2-256",
        "prehashed": True,
        **_DIALECTS[version.algorithm].parameters,
    }
    answer = session.post(f"{path}/sign/{version.key_name}", body)
    data = answer.get("data")
    results = data.get("batch_results") if isinstance(data, dict) else None
    if not isinstance(results, list) or len(results) != len(digests):
        raise signer_unavailable("vault: malformed answer")
    signatures = [_signature(result, version) for result in results]
    # A batch in which every item fails is still answered with status 200.
    if not any(signatures):
        raise signer_unavailable("vault: no item of the batch was signed")
    return signatures


def _versions(data: Mapping[str, Any], *, key_name: str, algorithm: str) -> tuple[KeyVersion, ...]:
    if data["type"] not in _DIALECTS[algorithm].key_types:
        raise ValueError("the key is of another type")
    found = sorted(data["keys"].items(), key=lambda item: int(item[0]), reverse=True)
    return tuple(
        KeyVersion(
            algorithm,
            key_name,
            int(number),
            int(datetime.fromisoformat(version["creation_time"]).timestamp()),
            _published(version["public_key"], algorithm),
        )
        for number, version in found[:_MOST_VERSIONS]
    )


def _published(pem: str, algorithm: str) -> PublishedKey:
    return published_key(load_pem_public_key(pem.encode("ascii")), algorithm)


def _signature(result: Any, version: KeyVersion) -> bytes | None:
    text = result.get("signature") if isinstance(result, dict) else None
    prefix = f"vault:v{version.number}:"
    if not isinstance(text, str) or not text.startswith(prefix):
        return None
    encoded = text.removeprefix(prefix)
    try:
        if version.algorithm == "ES256":
            return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
