"""A pretend issuer that signs whatever a test needs, however wrong."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import Algorithm, ECAlgorithm, OKPAlgorithm, RSAAlgorithm, RSAPSSAlgorithm

_ALGORITHMS: Mapping[str, Algorithm] = {
    "ES256": ECAlgorithm(ECAlgorithm.SHA256),
    "ES384": ECAlgorithm(ECAlgorithm.SHA384),
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "PS256": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256),
    "EdDSA": OKPAlgorithm(),
}


@dataclass(frozen=True)
class Signer:
    """A key pair with the id it is published under."""

    kid: str
    algorithm: str
    private_key: Any = field(repr=False)

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key as a JWK with ``kid``, ``alg`` and ``use``."""
        public = _public_members(self.algorithm, self.private_key)
        return {**public, "kid": self.kid, "alg": self.algorithm, "use": "sig"}

    @property
    def jwks(self) -> dict[str, Any]:
        """A JWK set of this one key."""
        return {"keys": [self.jwk]}

    def signature(self, signing_input: bytes, *, algorithm: str | None = None) -> bytes:
        """The raw JWS signature of these bytes."""
        return _ALGORITHMS[algorithm or self.algorithm].sign(signing_input, self.private_key)

    def sign(self, claims: Mapping[str, Any], *, typ: str | None = "JWT", **header: Any) -> str:
        """A compact JWS of ``claims``; a header member given as ``None`` is left out."""
        members = {"alg": self.algorithm, "kid": self.kid, "typ": typ, **header}
        present = {name: value for name, value in members.items() if value is not None}
        return self.sign_raw(json.dumps(present).encode(), json.dumps(claims).encode())

    def sign_raw(self, header: bytes, payload: bytes) -> str:
        """A compact JWS of exactly these header and payload bytes."""
        signing_input = encode(header) + b"." + encode(payload)
        return (signing_input + b"." + encode(self.signature(signing_input))).decode()


@cache
def _public_members(algorithm: str, private_key: Any) -> Mapping[str, Any]:
    """What a JWK says of the key itself; a cast of tests asks for those of twenty keys."""
    public = json.loads(type(_ALGORITHMS[algorithm]).to_jwk(private_key.public_key()))
    return {name: member for name, member in public.items() if name != "key_ops"}


def encode(raw: bytes) -> bytes:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


@cache
def signer(kid: str, algorithm: str = "ES256") -> Signer:
    """The key pair of this name, made once for the whole test run."""
    if algorithm in ("RS256", "PS256"):
        return Signer(kid, algorithm, rsa.generate_private_key(65537, 2048))
    if algorithm == "EdDSA":
        return Signer(kid, algorithm, ed25519.Ed25519PrivateKey.generate())
    curve = ec.SECP384R1() if algorithm == "ES384" else ec.SECP256R1()
    return Signer(kid, algorithm, ec.generate_private_key(curve))
