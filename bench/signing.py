"""Keys that sign what the callers present, without a library's toll: millions of tokens are made here."""

import base64
import json
import time
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm

_ES256: Final = ECAlgorithm(ECAlgorithm.SHA256)


class Signer:
    """An ES256 key under a key id."""

    def __init__(self, kid: str) -> None:
        self.kid = kid
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key."""
        members = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {**members, "kid": self.kid, "alg": "ES256", "use": "sig"}

    @property
    def private_jwk(self) -> dict[str, Any]:
        """The whole key, for a peer that has to sign with it."""
        members = ECAlgorithm.to_jwk(self._key, as_dict=True)
        return {**members, "kid": self.kid, "alg": "ES256", "use": "sig"}

    @property
    def public_pem(self) -> str:
        """The public key in PEM."""
        return (
            self._key.public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            .decode()
        )

    def sign(self, claims: Mapping[str, Any], *, typ: str = "JWT") -> str:
        """The claims as a compact JWS."""
        header = {"alg": "ES256", "typ": typ, "kid": self.kid}
        signing_input = _encode(header) + b"." + _encode(claims)
        signature = base64.urlsafe_b64encode(_ES256.sign(signing_input, self._key)).rstrip(b"=")
        return (signing_input + b"." + signature).decode()


def times(seconds: int) -> dict[str, int]:
    """The members ``iat`` and ``exp`` of something made now for so many seconds."""
    now = int(time.time())
    return {"iat": now, "exp": now + seconds}


def with_wrong_signature(token: str) -> str:
    """The same token with a signature that is well formed and not right."""
    signed, _, signature = token.rpartition(".")
    return f"{signed}.{signature[1:-1]}{signature[0]}{signature[-1]}"


def _encode(members: Mapping[str, Any]) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(members).encode()).rstrip(b"=")
