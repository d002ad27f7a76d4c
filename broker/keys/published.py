"""A public key as the JWKS shows it, named by its thumbprint (RFC 7517, RFC 7638)."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from broker.errors import TokenRejected
from broker.interfaces import VerificationKey
from broker.tokens.jwk import JwkRejected, verification_key

_ES256_MEMBERS: Final = ("crv", "kty", "x", "y")
_RS256_MEMBERS: Final = ("e", "kty", "n")


class KeyUnfit(ValueError):
    """A key that must not sign with its algorithm: of another kind, another curve or too small."""


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """
    One public key: the members that the JWKS shows, and the check of what was signed with it.

    The check is made from the JWK itself, so that it sees what every verifier sees.
    """

    jwk: Mapping[str, str]
    verification: VerificationKey

    @property
    def kid(self) -> str:
        """The thumbprint, which no other key and no other version of the same key can have."""
        return self.jwk["kid"]

    def members(self) -> dict[str, str]:
        """A copy of the JWK, which a caller may change without changing what is published."""
        return dict(self.jwk)


def published_key(public_key: object, algorithm: str) -> PublishedKey:
    """
    The published form of a key for ``algorithm``, ``ES256`` or ``RS256``.

    Raises ``KeyUnfit`` unless the key is on P-256, or RSA of 2,048 to 8,192 bits, as that asks for.
    """
    material = _material(public_key, algorithm)
    jwk = {**material, "kid": thumbprint(material), "alg": algorithm, "use": "sig"}
    try:
        return PublishedKey(jwk, verification_key(jwk, algorithm))
    except (TokenRejected, JwkRejected):
        raise KeyUnfit(f"the key is of the wrong curve or size for {algorithm}") from None


def key_of_jwk(jwk: Mapping[str, object], algorithm: str) -> PublishedKey:
    """
    The published form of a key that is given as a JWK; what else the JWK says is left out.

    Raises ``KeyUnfit`` as ``published_key`` does, and for what is no public key at all.
    """
    try:
        material = verification_key(jwk, algorithm).material
    except (TokenRejected, JwkRejected):
        raise KeyUnfit(f"the key is not fit for {algorithm}") from None
    named = {**material, "kid": thumbprint(material), "alg": algorithm, "use": "sig"}
    return PublishedKey(named, verification_key(named, algorithm))


def thumbprint(material: Mapping[str, str]) -> str:
    """The SHA-256 thumbprint of a key's required members, in base64url (RFC 7638 3)."""
    canonical = json.dumps(material, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def _material(public_key: object, algorithm: str) -> dict[str, str]:
    if algorithm == "ES256" and isinstance(public_key, ec.EllipticCurvePublicKey):
        members = ECAlgorithm.to_jwk(public_key, as_dict=True)
        return {name: members[name] for name in _ES256_MEMBERS}
    if algorithm == "RS256" and isinstance(public_key, rsa.RSAPublicKey):
        members = RSAAlgorithm.to_jwk(public_key, as_dict=True)
        return {name: members[name] for name in _RS256_MEMBERS}
    raise KeyUnfit(f"the key is not of the kind that signs {algorithm}")
