"""The one record of all signing keys that replicas share, and how it is written without a quarrel."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal, Protocol, Self

import msgspec

from broker.keys.life import KeyEntry, KeyId, Moment
from broker.keys.unavailable import signer_unavailable

MOST_ENTRIES: Final = 64
MOST_REVOKED: Final = 256
"""How many are read."""
MOST_REVOKED_AT_ONCE: Final = 96
"""How many are written: OpenBao refuses a request with more than a thousand strings in it."""


class RecordUnreadable(ValueError):
    """What stands where the record should be is none; the sentence says no more than that."""


class RecordFull(Exception):
    """Nothing was written, because nobody could read it any more; the sentence says what has to go."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Who is about to make a key, so that nobody else does; it counts until a moment in unix seconds."""

    by: Annotated[str, msgspec.Meta(max_length=64)]
    until: Moment


@dataclass(frozen=True, slots=True)
class RevokedKey:
    """A key of a replica's memory that was revoked; it may be forgotten after ``until``."""

    kid: KeyId
    revoked_at: Moment
    until: Moment


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """
    All keys on record, of every algorithm, and who is changing that.

    Keys in the memory of replicas are not among them, but for those that were revoked.
    """

    keys: Annotated[tuple[KeyEntry, ...], msgspec.Meta(max_length=MOST_ENTRIES)] = ()
    claim: Claim | None = None
    revoked: Annotated[tuple[RevokedKey, ...], msgspec.Meta(max_length=MOST_REVOKED)] = ()
    format: Literal[1] = 1

    def is_claimed(self, now: int) -> bool:
        """Whether somebody is about to make a key at this moment, in unix seconds."""
        return self.claim is not None and now < self.claim.until

    @property
    def revoked_ids(self) -> frozenset[str]:
        """The ids of all keys that must not be used any more."""
        entries = (entry.kid for entry in self.keys if entry.is_revoked)
        return frozenset((*entries, *(key.kid for key in self.revoked)))

    def of(self, algorithm: str) -> tuple[KeyEntry, ...]:
        """The keys of one algorithm."""
        return tuple(entry for entry in self.keys if entry.algorithm == algorithm)

    def with_keys(self, algorithm: str, entries: Iterable[KeyEntry]) -> "KeyRecord":
        """The record with other entries for one algorithm."""
        others = (entry for entry in self.keys if entry.algorithm != algorithm)
        return replace(self, keys=(*others, *sorted(entries, key=lambda entry: entry.number)))

    def members(self) -> Mapping[str, Any]:
        """The record as JSON members, without what is not set."""
        members: dict[str, Any] = msgspec.to_builtins(self)
        members["keys"] = [
            {name: value for name, value in entry.items() if value is not None}
            for entry in members["keys"]
        ]
        return members

    @classmethod
    def of_members(cls, members: object) -> Self:
        """The record in JSON members; raises ``RecordUnreadable`` for anything else."""
        try:
            record = msgspec.convert(members, type=cls)
        except (msgspec.ValidationError, RecursionError):
            raise RecordUnreadable("the record of the keys is not one") from None
        places = {(entry.algorithm, entry.number) for entry in record.keys}
        kids = {entry.kid for entry in record.keys}
        if not len(places) == len(kids) == len(record.keys):
            raise RecordUnreadable("the record of the keys names a key twice")
        return record


def writable_members(record: KeyRecord) -> Mapping[str, Any]:
    """The members to write, held against the rules of reading first; raises ``RecordFull``."""
    for kind, number, most in (
        ("keys", len(record.keys), MOST_ENTRIES),
        ("revoked keys of the memory of replicas", len(record.revoked), MOST_REVOKED_AT_ONCE),
    ):
        if number > most:
            raise RecordFull(
                f"Nothing was changed: the record holds {most} {kind} at most, and this would make"
                f" {number}. Some have to leave it first."
            )
    members = record.members()
    try:
        KeyRecord.of_members(members)
    except RecordUnreadable as error:
        raise RecordFull(f"Nothing was changed: {error} that could be read again.") from None
    return members


@dataclass(frozen=True, slots=True)
class HeldRecord:
    """The record as it was read; ``version`` 0 says that nothing has been recorded yet."""

    record: KeyRecord
    version: int


class RecordStore(Protocol):
    """
    Where the record lies.

    ``write`` replaces what had the version ``over``, and tells whether it did: of two writers over one
    version exactly one is told yes. Both raise ``TemporarilyUnavailable`` (``signer_unavailable``) when
    it cannot be known. What could not be read again is not written: ``write`` raises ``RecordFull``.
    """

    def read(self) -> HeldRecord: ...
    def write(self, record: KeyRecord, *, over: int) -> bool: ...


class NoRecord:
    """Where nothing is on record: the age of each key is all that is known of its life."""

    def read(self) -> HeldRecord:
        return HeldRecord(KeyRecord(), 0)

    def write(self, record: KeyRecord, *, over: int) -> bool:  # noqa: ARG002 -- nothing is kept.
        raise signer_unavailable("there is no record of the keys")
