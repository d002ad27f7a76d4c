"""Private keys that sign the tokens of a trial: the issuer's own, and strangers'."""

import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from jwt.algorithms import Algorithm, get_default_algorithms

_LARGEST_FILE: Final = 64 * 1024
_MATERIAL: Final = ("kty", "crv", "x", "y", "n", "e")


@dataclass(frozen=True, slots=True)
class Key:
    """A private key, the id that it is published under if it has one, and the one algorithm it is for."""

    kid: str | None
    algorithm: str
    private: Any = field(repr=False)

    @property
    def public_jwk(self) -> dict[str, str]:
        """The public key as an issuer publishes it (RFC 7517 4)."""
        document = json.loads(_registered(self.algorithm).to_jwk(self.private.public_key()))
        told = {"kid": self.kid, "alg": self.algorithm, "use": "sig"}
        return {
            **{name: document[name] for name in _MATERIAL if name in document},
            **{name: value for name, value in told.items() if value},
        }

    @property
    def public_pem(self) -> bytes:
        """The public key as it is often kept in files."""
        return bytes(
            self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )

    def sign(self, signing_input: bytes) -> bytes:
        """The signature of a JWS (RFC 7515 5.1)."""
        algorithm = _registered(self.algorithm)
        return algorithm.sign(signing_input, algorithm.prepare_key(self.private))


def fresh_key(algorithm: str) -> Key:
    """A key that nobody has seen before."""
    return Key(secrets.token_hex(8), algorithm, _generate(algorithm))


def read_key(path: Path, *, algorithm: str, kid: str | None = None) -> Key:
    """
    The private key in a file: a JWK, which may name its own ``kid`` and ``alg``, or PEM.

    Raises ``ValueError``, or ``OSError``, for a file without one; neither tells what is in the file.
    """
    with path.open("rb") as file:
        content = file.read(_LARGEST_FILE)
    try:
        if not content.lstrip().startswith(b"{"):
            return _tried(Key(kid, algorithm, load_pem_private_key(content, password=None)))
        document = json.loads(content)
        key = jwt.PyJWK(document, None if "alg" in document else algorithm)
        return _tried(Key(kid or document.get("kid"), key.algorithm_name, key.key))
    except (ValueError, TypeError, AttributeError, RecursionError, jwt.PyJWTError) as error:
        # What the library says of a key may be the key itself.
        raise ValueError(
            f"{path} has no private key for {algorithm}: {type(error).__name__}."
        ) from None


def _tried(key: Key) -> Key:
    key.sign(b"")
    return key


def _generate(algorithm: str) -> Any:
    if algorithm in {"RS256", "PS256"}:
        return rsa.generate_private_key(65537, 2048)
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP384R1() if algorithm == "ES384" else ec.SECP256R1())


def _registered(algorithm: str) -> Algorithm:
    return get_default_algorithms()[algorithm]
