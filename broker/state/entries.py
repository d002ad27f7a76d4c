"""How remembered ids are named and refused, the same in every store."""

import hashlib
from typing import Final

from broker.errors import Reason, TemporarilyUnavailable
from broker.model import OneTimeId

REVOCATION_GRACE: Final = 3600
"""
How long, in seconds, a revocation outlives its token.

A clock that is set back by less than this finds every revocation still there.
"""

PURGE_STEP: Final = 200
"""How many entries are let go at once at most, so that no request pays for many others."""

CLOCK_WENT_BACK: Final = "the clock went back to a time whose entries are forgotten"


def spent_key(one: OneTimeId) -> bytes:
    """The key of a one-time id. Each part is told apart by its length, so no two ids share one."""
    return _key("spent", one.kind, one.issuer, one.jti)


def revoked_key(jti: str) -> bytes:
    """The key of a withdrawn token, which no one-time id can have."""
    return _key("revoked", jti)


def _key(*parts: str) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.digest()


def replay_store_unavailable(detail: str) -> TemporarilyUnavailable:
    """The answer while nobody knows what has been spent."""
    return TemporarilyUnavailable(Reason.REPLAY_STORE_UNAVAILABLE, detail=detail)


def revocation_unavailable(detail: str) -> TemporarilyUnavailable:
    """The answer while nobody knows what has been withdrawn."""
    return TemporarilyUnavailable(Reason.REVOCATION_UNAVAILABLE, detail=detail)
