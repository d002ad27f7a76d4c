"""Public keys in JWK form become verification keys, each bound to one algorithm (RFC 7517, RFC 8725 3.1)."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from jwt.algorithms import Algorithm, ECAlgorithm, OKPAlgorithm, RSAAlgorithm, RSAPSSAlgorithm
from jwt.exceptions import InvalidKeyError

from broker.errors import Reason, TokenRejected
from broker.tokens.weakness import is_small_order_ed25519, is_weak_rsa_modulus

_SMALLEST_RSA: Final = 2048
_LARGEST_RSA: Final = 8192
_RSA_EXPONENT: Final = 65537
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

_ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    "ES256": ECAlgorithm(ECAlgorithm.SHA256),
    "ES384": ECAlgorithm(ECAlgorithm.SHA384),
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "PS256": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256),
    "EdDSA": OKPAlgorithm(),
    "Ed25519": OKPAlgorithm(),
}
_SHAPE: Final[Mapping[str, tuple[str, str | None]]] = {
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "RS256": ("RSA", None),
    "PS256": ("RSA", None),
    "EdDSA": ("OKP", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519"),
}
# The members that make up a key of each type, in the order of their names (RFC 7638 3.2, RFC 8037 2).
_MATERIAL: Final[Mapping[str, tuple[str, ...]]] = {
    "EC": ("crv", "kty", "x", "y"),
    "RSA": ("e", "kty", "n"),
    "OKP": ("crv", "kty", "x"),
}
_PARSERS: Final[Mapping[str, type[ECAlgorithm | RSAAlgorithm | OKPAlgorithm]]] = {
    "EC": ECAlgorithm,
    "RSA": RSAAlgorithm,
    "OKP": OKPAlgorithm,
}


class JwkRejected(ValueError):
    """A JWK that is never used: its sentence is for the operator's log."""


# For these a signature is r and s, each in so many bytes (RFC 7518 3.4).
_ECDSA: Final[Mapping[str, tuple[ec.ECDSA, int]]] = {
    "ES256": (ec.ECDSA(hashes.SHA256()), 32),
    "ES384": (ec.ECDSA(hashes.SHA384()), 48),
}


@dataclass(frozen=True, slots=True)
class JwkVerificationKey:
    """A parsed public key and the one algorithm it verifies with."""

    kid: str | None
    algorithm: str
    _public_key: Any = field(repr=False)

    @property
    def material(self) -> Mapping[str, str]:
        """The members that make up the key and no others, in their one canonical spelling."""
        jwk = type(_ALGORITHMS[self.algorithm]).to_jwk(self._public_key, as_dict=True)
        return {name: jwk[name] for name in _MATERIAL[jwk["kty"]]}

    @property
    def thumbprint(self) -> str:
        """The SHA-256 thumbprint of the key in base64url (RFC 7638 3): the same however it was spelt."""
        canonical = json.dumps(self.material, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()

    def verify(self, signing_input: bytes, signature: bytes) -> bool:
        """Whether the signature is right; anything odd about it makes it wrong, not an error."""
        ecdsa = _ECDSA.get(self.algorithm)
        try:
            if ecdsa is not None:
                return self._verify_ecdsa(signing_input, signature, *ecdsa)
            return _ALGORITHMS[self.algorithm].verify(signing_input, self._public_key, signature)
        except (ValueError, TypeError):
            return False

    def _verify_ecdsa(
        self, signing_input: bytes, signature: bytes, ecdsa: ec.ECDSA, size: int
    ) -> bool:
        """Nearly every token is signed so, and this asks nothing again that is known of the key."""
        if len(signature) != 2 * size:
            return False
        r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        try:
            self._public_key.verify(encode_dss_signature(r, s), signing_input, ecdsa)
        except InvalidSignature:
            return False
        return True


def verification_key(jwk: Mapping[str, Any], algorithm: str) -> JwkVerificationKey:
    """
    The key of a JWK, for verification with ``algorithm``.

    Raises ``TokenRejected`` (``key_alg_mismatch``, ``key_not_for_sig``) when the key is sound but not
    for this, and ``JwkRejected`` when it is not fit for use at all: private or symmetric members, a
    weak or enormous RSA key, an unknown curve.
    """
    return bound_key(jwk, algorithm, sound_key(jwk))


def bound_key(jwk: Mapping[str, Any], algorithm: str, public_key: Any) -> JwkVerificationKey:
    """The same of a JWK whose ``sound_key`` is there already; raises ``TokenRejected`` alone."""
    if not is_for_signatures(jwk):
        raise TokenRejected(Reason.KEY_NOT_FOR_SIG)
    stated = jwk.get("alg")
    shape = _SHAPE.get(algorithm)
    if shape is None or (stated is not None and stated != algorithm):
        raise TokenRejected(Reason.KEY_ALG_MISMATCH)
    kty, curve = shape
    if jwk.get("kty") != kty or (curve is not None and jwk.get("crv") != curve):
        raise TokenRejected(Reason.KEY_ALG_MISMATCH)
    kid = jwk.get("kid")
    return JwkVerificationKey(kid if isinstance(kid, str) else None, algorithm, public_key)


def decoy_key() -> JwkVerificationKey:
    """A key that nobody holds: verifying with it costs what verifying costs, and always fails."""
    public_key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return JwkVerificationKey(None, "ES256", public_key)


def is_for_signatures(jwk: Mapping[str, Any]) -> bool:
    """Whether ``use`` and ``key_ops`` allow the key to verify (RFC 7517 4.2, 4.3)."""
    operations = jwk.get("key_ops")
    return jwk.get("use", "sig") == "sig" and (
        operations is None or (isinstance(operations, list) and "verify" in operations)
    )


def is_secret(jwk: Mapping[str, Any]) -> bool:
    """Whether a key is symmetric or private, and so nobody else's to know."""
    return jwk.get("kty") == "oct" or not _PRIVATE_MEMBERS.isdisjoint(jwk)


def check_jwk(jwk: Mapping[str, Any]) -> None:
    """Raise ``JwkRejected`` for a key that must never be used, whatever it says it is for."""
    sound_key(jwk)


def sound_key(jwk: Mapping[str, Any]) -> Any:
    """The public key of a JWK; raises ``JwkRejected`` as ``check_jwk`` does."""
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise JwkRejected("the key has private or symmetric members")
    if not isinstance(jwk.get("kty"), str) or jwk["kty"] not in _PARSERS:
        raise JwkRejected("the key type is not EC, RSA or OKP")
    if jwk["kty"] != "RSA" and jwk.get("crv") not in ("P-256", "P-384", "Ed25519"):
        raise JwkRejected("the curve is not P-256, P-384 or Ed25519")
    return _parse(jwk)


def check_strength(jwk: Mapping[str, Any]) -> None:
    """Raise ``JwkRejected`` for a key that can be parsed and protects nothing."""
    if jwk["kty"] == "RSA" and is_weak_rsa_modulus(int.from_bytes(_decode(jwk["n"]), "big")):
        raise JwkRejected("the RSA key is weak")
    if jwk["kty"] == "OKP" and is_small_order_ed25519(_decode(jwk["x"])):
        raise JwkRejected("the Ed25519 key is weak")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _parse(jwk: Mapping[str, Any]) -> Any:
    # The other members say what the key is for, which is judged elsewhere; only the key itself is parsed.
    material = {name: jwk[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in jwk}
    if len(str(material.get("n", ""))) > _LARGEST_RSA // 4:
        raise JwkRejected("the RSA key is too large")
    try:
        key = _PARSERS[jwk["kty"]].from_jwk(material)
    except (InvalidKeyError, UnsupportedAlgorithm, ValueError, TypeError, KeyError) as error:
        raise JwkRejected("the key cannot be parsed") from error
    if isinstance(key, rsa.RSAPublicKey):
        if not _SMALLEST_RSA <= key.key_size <= _LARGEST_RSA:
            raise JwkRejected("the RSA key is not of 2,048 to 8,192 bits")
        if key.public_numbers().e != _RSA_EXPONENT:
            raise JwkRejected("the RSA exponent is not 65537")
    elif not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        raise JwkRejected("the key is not a public key of a known kind")
    return key
