"""A JWK set (RFC 7517 5): whose keys it has, and the one that a token's header names."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from broker.errors import Reason, TokenRejected
from broker.interfaces import VerificationKey
from broker.issuers.jwk import Jwk, read_jwk
from broker.tokens.jwk import JwkRejected


class SourceFault(StrEnum):
    """What was wrong with a source of keys, besides what can be wrong with a fetch."""

    JWKS_INVALID = "jwks_invalid"
    DISCOVERY_INVALID = "discovery_invalid"
    ISSUER_MISMATCH = "issuer_mismatch"
    JWKS_URI_REFUSED = "jwks_uri_refused"
    INTERNAL = "internal_error"


class SourceRefused(Exception):
    """
    A source gave no set of keys.

    ``code`` is a ``SourceFault`` or a ``FetchReason``. ``detail`` holds nothing that the source sent.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class KeySet:
    """
    The keys of one source at one time.

    ``rejected`` says for each key that was dropped why; nobody can use those.
    """

    keys: tuple[Jwk, ...]
    by_kid: Mapping[str, tuple[Jwk, ...]]
    rejected: tuple[str, ...] = ()

    def find(self, kid: str | None, algorithm: str) -> VerificationKey:
        """
        The only key that the header of a token can mean; several are never tried.

        Without a ``kid`` there must be exactly one that fits, and with one as well. Raises
        ``TokenRejected``: ``unknown_key``, ``key_alg_mismatch`` or ``key_not_for_sig``.
        """
        named = self.keys if kid is None else self.by_kid.get(kid, ())
        if len(named) == 1 and algorithm in named[0].by_algorithm:
            return named[0].by_algorithm[algorithm]
        signing = [key for key in named if key.is_for_signatures]
        fitting = [key for key in signing if algorithm in key.by_algorithm]
        if len(fitting) == 1:
            return fitting[0].by_algorithm[algorithm]
        if fitting:
            raise TokenRejected(Reason.UNKNOWN_KEY, "several keys fit")
        if not named or (kid is None and len(named) > 1):
            raise TokenRejected(Reason.UNKNOWN_KEY)
        raise TokenRejected(Reason.KEY_ALG_MISMATCH if signing else Reason.KEY_NOT_FOR_SIG)


def read_key_set(document: Any, *, max_keys: int = 100, is_bundle: bool = False) -> KeySet:
    """
    The keys of a JWK set, or of a SPIFFE bundle, without those that are of no use to anybody.

    Raises ``SourceRefused`` (``jwks_invalid``) for a document that is no set, or an empty one, or
    one of more than ``max_keys`` keys: none of its keys is looked at then.
    """
    listed = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(listed, list | tuple) or not 0 < len(listed) <= max_keys:
        raise SourceRefused(SourceFault.JWKS_INVALID)
    keys: list[Jwk] = []
    by_kid: dict[str, tuple[Jwk, ...]] = {}
    rejected: list[str] = []
    for one in listed:
        try:
            key = read_jwk(one, is_of_bundle=is_bundle)
        except JwkRejected as refused:
            rejected.append(str(refused))
            continue
        keys.append(key)
        if key.kid is not None:
            by_kid[key.kid] = (*by_kid.get(key.kid, ()), key)
    return KeySet(tuple(keys), by_kid, tuple(rejected))
