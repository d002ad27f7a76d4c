"""A JWK set (RFC 7517 5) becomes keys that verify, each bound to the one algorithm it is published for."""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from jwt.algorithms import (
    Algorithm,
    ECAlgorithm,
    OKPAlgorithm,
    RSAAlgorithm,
    RSAPSSAlgorithm,
)
from jwt.exceptions import InvalidKeyError

from broker.errors import Reason, TokenRejected

_MOST_KEYS: Final = 100
_LONGEST_MEMBER: Final = 1400
_SMALLEST_RSA: Final = 2048
_ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    "ES256": ECAlgorithm(ECAlgorithm.SHA256),
    "ES384": ECAlgorithm(ECAlgorithm.SHA384),
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "PS256": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256),
    "EdDSA": OKPAlgorithm(),
    "Ed25519": OKPAlgorithm(),
}
_SHAPES: Final[Mapping[str, Mapping[str, str]]] = {
    "ES256": {"kty": "EC", "crv": "P-256"},
    "ES384": {"kty": "EC", "crv": "P-384"},
    "RS256": {"kty": "RSA"},
    "PS256": {"kty": "RSA"},
    "EdDSA": {"kty": "OKP", "crv": "Ed25519"},
    "Ed25519": {"kty": "OKP", "crv": "Ed25519"},
}
# The members that make up a key of each type, in the order of their names (RFC 7638 3.2, RFC 8037 2).
_MATERIAL: Final[Mapping[str, tuple[str, ...]]] = {
    "EC": ("crv", "kty", "x", "y"),
    "RSA": ("e", "kty", "n"),
    "OKP": ("crv", "kty", "x"),
}
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class KeyUnusable(ValueError):
    """A JWK, or a set of them, that nothing is ever verified with."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key and the one algorithm it verifies with."""

    algorithm: str
    _key: Any = field(repr=False)

    def check(self, signing_input: bytes, signature: bytes) -> None:
        """Raise ``TokenRejected`` unless the signature is right; one of an odd form is wrong."""
        try:
            is_right = _ALGORITHMS[self.algorithm].verify(signing_input, self._key, signature)
        except (ValueError, TypeError):
            is_right = False
        if not is_right:
            raise TokenRejected(Reason.SIG_INVALID)

    @property
    def material(self) -> Mapping[str, str]:
        """The members that make up the key, in their one canonical spelling."""
        jwk = type(_ALGORITHMS[self.algorithm]).to_jwk(self._key, as_dict=True)
        return {name: jwk[name] for name in _MATERIAL[jwk["kty"]]}

    @property
    def thumbprint(self) -> str:
        """The SHA-256 thumbprint in base64url (RFC 7638 3)."""
        canonical = json.dumps(self.material, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()


def read_key(jwk: Any, algorithm: str) -> PublicKey:
    """The key of a JWK, for one algorithm; raises ``KeyUnusable`` when it is not public and fit for that."""
    if not isinstance(jwk, Mapping) or not _PRIVATE.isdisjoint(jwk):
        raise KeyUnusable("The key is not a public one.")
    shape = _SHAPES[algorithm]
    if any(jwk.get(name) != value for name, value in shape.items()):
        raise KeyUnusable("The key does not fit the algorithm.")
    material = {name: jwk.get(name) for name in _MATERIAL[shape["kty"]]}
    if not all(isinstance(one, str) and len(one) <= _LONGEST_MEMBER for one in material.values()):
        raise KeyUnusable("The key lacks a member.")
    try:
        key: Any = _ALGORITHMS[algorithm].from_jwk(json.dumps(material))
    except (InvalidKeyError, ValueError, TypeError) as error:
        raise KeyUnusable("The key cannot be parsed.") from error
    if shape["kty"] == "RSA" and key.key_size < _SMALLEST_RSA:
        raise KeyUnusable("The RSA key is too small.")
    return PublicKey(algorithm, key)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of one issuer at one time, by ``kid`` and algorithm."""

    keys: Mapping[tuple[str, str], PublicKey]

    def find(self, kid: str | None, algorithm: str) -> PublicKey:
        """The key that a header names, or ``TokenRejected`` (``unknown_key``); none is ever tried out."""
        key = None if kid is None else self.keys.get((kid, algorithm))
        if key is None:
            raise TokenRejected(Reason.UNKNOWN_KEY)
        return key


def read_key_set(document: Any, algorithms: Collection[str]) -> KeySet:
    """
    The keys of a JWK set that are published for one of ``algorithms``; the others are left out.

    A key must say its ``kid`` and its ``alg``; where two say the same, neither is used. Raises
    ``KeyUnusable`` for what is no set, for more than a hundred keys, and where none is left.
    """
    listed = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(listed, list) or len(listed) > _MOST_KEYS:
        raise KeyUnusable("It is not a set of keys, or one of too many.")
    meant = [(_name(jwk), jwk) for jwk in listed if _is_meant(jwk, algorithms)]
    times = Counter(name for name, _ in meant)
    keys: dict[tuple[str, str], PublicKey] = {}
    for name, jwk in meant:
        if times[name] == 1:
            with suppress(KeyUnusable):
                keys[name] = read_key(jwk, name[1])
    if not keys:
        raise KeyUnusable("The set has no usable key.")
    return KeySet(keys)


def _name(jwk: Mapping[str, Any]) -> tuple[str, str]:
    return jwk["kid"], jwk["alg"]


def _is_meant(jwk: Any, algorithms: Collection[str]) -> bool:
    """Whether it is a named key, for signatures by one of these algorithms (RFC 7517 4.2 to 4.5)."""
    if not isinstance(jwk, Mapping) or not isinstance(jwk.get("kid"), str):
        return False
    operations = jwk.get("key_ops", ["verify"])
    is_for_verifying = isinstance(operations, list) and "verify" in operations
    is_for_signatures = jwk.get("use", "sig") == "sig" and is_for_verifying
    return is_for_signatures and isinstance(jwk.get("alg"), str) and jwk["alg"] in algorithms
