"""One key of somebody else's JWK set (RFC 7517 4): what it can verify, or why it is dropped."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from broker.errors import TokenRejected
from broker.interfaces import VerificationKey
from broker.oauth import VERIFICATION_ALGORITHMS
from broker.tokens.jwk import (
    JwkRejected,
    bound_key,
    check_strength,
    is_for_signatures,
    sound_key,
)

_LONGEST_KID: Final = 512
_USE_JWT_SVID: Final = "jwt-svid"
_LONGEST_MEMBER: Final = 1400
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")
_CURVES: Final[Mapping[str, frozenset[str]]] = {
    "EC": frozenset({"P-256", "P-384"}),
    "OKP": frozenset({"Ed25519"}),
}


@dataclass(frozen=True, slots=True)
class Jwk:
    """
    A key as its set describes it.

    ``by_algorithm`` holds it once for each algorithm that its type, its curve and its own ``alg``
    leave open, which is none where another algorithm is meant than those accepted here.
    """

    kid: str | None
    is_for_signatures: bool
    by_algorithm: Mapping[str, VerificationKey] = field(default_factory=dict)


def read_jwk(jwk: Any, *, is_of_bundle: bool = False) -> Jwk:
    """
    The key that a member of a JWK set describes.

    Raises ``JwkRejected`` for one that is malformed, weak, symmetric or not public. A key for
    something else, or of a curve or algorithm not accepted here, is no danger and is returned as
    such, so that a token signed with it can be told why it is refused. In a bundle of a trust domain the
    keys of JWT-SVIDs are for signatures too (JWT-SVID 6.1); those of certificates never are.
    """
    if not isinstance(jwk, Mapping):
        raise JwkRejected("the key is not an object")
    kid = jwk.get("kid")
    if not isinstance(kid, str | None) or len(kid or "") > _LONGEST_KID:
        raise JwkRejected("the kid is not a short string")
    if is_of_bundle and jwk.get("use") == _USE_JWT_SVID:
        jwk = {**jwk, "use": "sig"}
    if not is_for_signatures(jwk):
        return Jwk(kid, is_for_signatures=False)
    if _has_foreign_curve(jwk):
        return Jwk(kid, is_for_signatures=True)
    _check_members(jwk)
    public_key = sound_key(jwk)
    check_strength(jwk)
    keys: dict[str, VerificationKey] = {}
    for algorithm in VERIFICATION_ALGORITHMS:
        if jwk.get("alg") in (None, algorithm):
            with suppress(TokenRejected):
                keys[algorithm] = bound_key(jwk, algorithm, public_key)
    return Jwk(kid, is_for_signatures=True, by_algorithm=keys)


def _has_foreign_curve(jwk: Mapping[str, Any]) -> bool:
    key_type, curve = jwk.get("kty"), jwk.get("crv")
    if not isinstance(key_type, str) or not isinstance(curve, str):
        return False
    return key_type in _CURVES and curve not in _CURVES[key_type]


def _check_members(jwk: Mapping[str, Any]) -> None:
    """Check the form of what will be parsed, since parsers of keys forgive too much."""
    if not isinstance(jwk.get("kty"), str):
        raise JwkRejected("the key type is not a string")
    for name in ("x", "y", "n", "e"):
        value = jwk.get(name, "A")
        if not isinstance(value, str) or not _BASE64URL.fullmatch(value):
            raise JwkRejected("the key cannot be parsed")
        if len(value) > _LONGEST_MEMBER:
            raise JwkRejected("the key is too large")
