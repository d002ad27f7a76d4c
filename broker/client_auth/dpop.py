"""A DPoP proof (RFC 9449 4) shows that the caller holds a key, or is refused."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from broker.errors import InvalidDpopProof, Reason, TokenRejected
from broker.interfaces import Now
from broker.jws import UnverifiedToken, read_token_with_key
from broker.model import OneTimeId, ProvedKey
from broker.oauth import PROOF_ALGORITHMS, TYP_DPOP
from broker.tokens.claims import LONGEST_URI, read_text, read_time
from broker.tokens.jwk import JwkRejected, JwkVerificationKey, check_strength, verification_key

ONE_TIME_KIND: Final = "dpop"
LONGEST_PROOF: Final = 4096
LONGEST_AGE: Final = timedelta(seconds=60)
ANY_PORT: Final = "*"

_METHOD: Final = "POST"
# What a public key has, and what the key APIs of browsers and libraries add to it when they export it.
_PUBLIC_MEMBERS: Final = frozenset(
    {"alg", "crv", "e", "ext", "key_ops", "kid", "kty", "n", "use", "x", "y"}
)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
# The query and the fragment do not belong to what is compared (RFC 9449 4.2), so neither may be there.
_ADDRESS: Final = re.compile(
    r"(?P<scheme>[Hh][Tt][Tt][Pp][Ss]?)://(?P<host>[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}|\*))?(?P<path>/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)"
)
_ABOUT_SIGNATURE: Final = frozenset(
    {
        Reason.ALG_NOT_ALLOWED,
        Reason.KEY_ALG_MISMATCH,
        Reason.KEY_NOT_FOR_SIG,
        Reason.SIG_INVALID,
    }
)


@dataclass(frozen=True, slots=True)
class ProofVerifier:
    """
    Verifies the proof that comes along with a token request. ``leeway`` serves acceptance alone.

    Which token the proof goes with is not its matter: an ``ath`` is neither wanted nor looked at here,
    since a token endpoint has no access token to hash (RFC 9449 4.2).
    """

    now: Now
    leeway: timedelta

    def verify(self, proofs: tuple[str, ...], target: str) -> ProvedKey:
        """
        The key that the one proof is signed by.

        ``target`` is the address of this request; a port of ``*`` stands for any. The proof must be for
        it and for POST, and made within the last minute. Raises ``InvalidDpopProof``.
        """
        if len(proofs) != 1 or len(proofs[0]) > LONGEST_PROOF:
            raise InvalidDpopProof(Reason.POP_MALFORMED)
        try:
            return self._verify(read_token_with_key(proofs[0]), target)
        except TokenRejected as rejected:
            is_signature = rejected.reason in _ABOUT_SIGNATURE
            reason = Reason.POP_SIGNATURE if is_signature else Reason.POP_MALFORMED
            detail = rejected.detail or rejected.reason.code
            raise InvalidDpopProof(reason, detail=detail) from rejected

    def _verify(self, unverified: UnverifiedToken, target: str) -> ProvedKey:
        """What costs least is looked at first; nothing that it says counts before the signature does."""
        header, claims = unverified.header, unverified.unverified_claims
        if header.unverified_typ != TYP_DPOP:
            raise TokenRejected(Reason.WRONG_TOKEN_TYPE)
        if header.unverified_algorithm not in PROOF_ALGORITHMS:
            raise TokenRejected(Reason.ALG_NOT_ALLOWED)
        jti = read_text(claims, "jti")
        if read_text(claims, "htm") != _METHOD:
            raise InvalidDpopProof(Reason.POP_HTM)
        if not _is_same_address(read_text(claims, "htu", longest=LONGEST_URI), target):
            raise InvalidDpopProof(Reason.POP_HTU)
        since, until = self._seconds(claims)
        key = _embedded_key(header.unverified_jwk, header.unverified_algorithm)
        if not key.verify(unverified.signing_input, unverified.signature):
            raise TokenRejected(Reason.SIG_INVALID)
        thumbprint = key.thumbprint
        return ProvedKey(thumbprint, OneTimeId(ONE_TIME_KIND, thumbprint, jti, until, since))

    def _seconds(self, claims: Mapping[str, Any]) -> tuple[int, int]:
        """
        The first and the last second at which the proof can be acceptable, which must be now.

        A proof needs neither ``exp`` nor ``nbf``, but what it says there holds (RFC 7519 4.1.4, 4.1.5).
        """
        now, leeway = self.now(), int(self.leeway.total_seconds())
        first = issued_at = read_time(claims, "iat")
        last = issued_at + int(LONGEST_AGE.total_seconds())
        if "nbf" in claims:
            first = max(first, read_time(claims, "nbf"))
        if "exp" in claims:
            last = min(last, read_time(claims, "exp") - 1)
        if not first - leeway <= now <= last + leeway:
            raise InvalidDpopProof(Reason.POP_STALE)
        return issued_at - leeway, last + leeway


def _embedded_key(jwk: Mapping[str, Any], algorithm: str) -> JwkVerificationKey:
    """
    The public key that a proof brings along.

    It must be spelt canonically, since its holder and the resource server name it by a thumbprint that
    each computes from what it sees (RFC 7638 3.3).
    """
    if not _PUBLIC_MEMBERS.issuperset(jwk):
        raise TokenRejected(Reason.MALFORMED_TOKEN, "the jwk has members besides a public key's")
    try:
        key = verification_key(jwk, algorithm)
        _check_spelling(jwk, key)
        check_strength(jwk)
    except JwkRejected as rejected:
        raise TokenRejected(Reason.MALFORMED_TOKEN, str(rejected)) from rejected
    return key


def _check_spelling(jwk: Mapping[str, Any], key: JwkVerificationKey) -> None:
    if any(jwk[name] != value for name, value in key.material.items()):
        raise TokenRejected(Reason.MALFORMED_TOKEN, "the key is not spelt canonically")


def _is_same_address(claimed: str, target: str) -> bool:
    """
    Whether two addresses are one after normalisation by scheme, host and default port.

    Nothing is undone beyond that (RFC 3986 6.2.2.1, 6.2.3): escapes and dots in a path stay what they
    are, as they do for whoever routes the request.
    """
    said, meant = _ADDRESS.fullmatch(claimed), _ADDRESS.fullmatch(target)
    if said is None or meant is None or said["port"] == ANY_PORT:
        return False
    is_same_port = meant["port"] == ANY_PORT or _port(said) == _port(meant)
    return is_same_port and _place(said) == _place(meant)


def _place(address: re.Match[str]) -> tuple[str, str, str]:
    return address["scheme"].lower(), address["host"].lower(), address["path"]


def _port(address: re.Match[str]) -> str:
    return address["port"] or _DEFAULT_PORTS[address["scheme"].lower()]
