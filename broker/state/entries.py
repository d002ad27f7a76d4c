"""How remembered ids are named and refused, the same in every store."""

import hashlib
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

from broker.errors import Reason, TemporarilyUnavailable
from broker.model import OneTimeId, Party, Pedigree

REVOCATION_GRACE: Final = 3600
"""
How long, in seconds, a revocation outlives its token.

A clock that is set back by less than this finds every revocation still there.
"""

LAST_SECOND: Final = 253_402_300_799
"""No token tells of a later second, so what was withdrawn up to it was withdrawn for good."""

PURGE_STEP: Final = 200
"""How many entries are let go at once at most, so that no request pays for many others."""

CLOCK_WENT_BACK: Final = "the clock went back to a time whose entries are forgotten"

TOO_MANY: Final = "more is withdrawn than can be copied"


def spent_key(one: OneTimeId) -> bytes:
    """The key of a one-time id. Each part is told apart by its length, so no two ids share one."""
    return hashlib.sha256(_spent_by(one.kind, one.issuer) + _framed(one.jti)).digest()


@lru_cache(maxsize=4096)
def _spent_by(kind: str, issuer: str) -> bytes:
    """What the keys of one sort of token of one issuer begin with."""
    return _framed("spent") + _framed(kind) + _framed(issuer)


def revoked_key(jti: str) -> bytes:
    """The key of a withdrawn token, which no one-time id can have."""
    return _key("revoked", jti)


def withdrawn_key(party: Party) -> bytes:
    """The key of a party whose tokens were withdrawn, which no token and no one-time id can have."""
    return _withdrawn_key(party)


@lru_cache(maxsize=4096)
def _withdrawn_key(party: Party) -> bytes:
    """The same servers, clients and issuers are asked about with every token, and often its subject."""
    return _key("withdrawn", party.kind, party.name)


def everything_key() -> bytes:
    """The key under which all tokens of a time are withdrawn, whosever they are."""
    return _EVERYTHING


@dataclass(frozen=True, slots=True)
class Keys:
    """
    Under which keys a token may have been withdrawn.

    ``own`` are those of the token, its parties and everybody, ``ancestral`` those of the tokens it
    derives from.
    """

    own: frozenset[bytes]
    ancestral: frozenset[bytes]

    @classmethod
    def of(cls, pedigree: Pedigree) -> Self:
        """All keys of a token."""
        own = {_EVERYTHING, *map(_withdrawn_key, pedigree.parties)}
        if pedigree.jti is not None:
            own.add(revoked_key(pedigree.jti))
        return cls(frozenset(own), frozenset(map(revoked_key, pedigree.ancestors)))

    @property
    def all(self) -> frozenset[bytes]:
        """Every key that can be withdrawn."""
        return self.own | self.ancestral

    def reason(self, found: AbstractSet[bytes]) -> Reason | None:
        """What the keys that were found in the store say of the token."""
        if not self.own.isdisjoint(found):
            return Reason.REVOKED
        return None if self.ancestral.isdisjoint(found) else Reason.ANCESTOR_REVOKED


def _key(*parts: str) -> bytes:
    return hashlib.sha256(b"".join(map(_framed, parts))).digest()


def _framed(part: str) -> bytes:
    """The part after its length, which tells where it ends."""
    encoded = part.encode("utf-8", "surrogatepass")
    return len(encoded).to_bytes(8, "big") + encoded


_EVERYTHING: Final = _key("withdrawn")


def replay_store_unavailable(detail: str, *, well_in: int | None = None) -> TemporarilyUnavailable:
    """The answer while nobody knows what has been spent."""
    return TemporarilyUnavailable(Reason.REPLAY_STORE_UNAVAILABLE, detail=detail, well_in=well_in)


def revocation_unavailable(detail: str) -> TemporarilyUnavailable:
    """The answer while nobody knows what has been withdrawn."""
    return TemporarilyUnavailable(Reason.REVOCATION_UNAVAILABLE, detail=detail)
