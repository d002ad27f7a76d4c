"""The life of a signing key: when it is published, when it signs, and when it leaves the key set."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Final, Protocol

import msgspec

Moment = Annotated[int, msgspec.Meta(ge=0)]
"""Unix seconds."""
KEY_ID_PATTERN: Final = "^[A-Za-z0-9_-]{43}$"
LONGEST_STATED_LIFE: Final = timedelta(days=8)
"""From the statement of a key in memory until it signs for the last time; nobody states more."""
KeyId = Annotated[str, msgspec.Meta(pattern=KEY_ID_PATTERN)]
"""A thumbprint in base64url."""


class KeyState(StrEnum):
    """Where in its life a key is. The first three are published; only an active key signs."""

    PENDING = "pending"
    ACTIVE = "active"
    RETIRING = "retiring"
    RETIRED = "retired"
    REVOKED = "revoked"


class FoundKey(Protocol):
    """
    A key that exists where keys are kept, whether it is on record or not.

    ``number`` counts the keys of an algorithm from 1. ``created_at`` is in unix seconds.
    """

    @property
    def number(self) -> int: ...
    @property
    def created_at(self) -> int: ...
    @property
    def kid(self) -> str: ...


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """
    What is on record about one key; every moment is in unix seconds.

    A key without ``activates_at`` is a spare: it is published, and signs when it is needed.
    ``leaves_at`` is set together with the moment at which a successor begins to sign.
    """

    algorithm: Annotated[str, msgspec.Meta(pattern="^[A-Z]{2}[0-9]{3}$")]
    number: Annotated[int, msgspec.Meta(ge=1)]
    kid: KeyId
    published_at: Moment
    activates_at: Moment | None = None
    leaves_at: Moment | None = None
    revoked_at: Moment | None = None

    @property
    def is_revoked(self) -> bool:
        """Whether it must neither sign nor be published any more."""
        return self.revoked_at is not None

    @property
    def takes_over(self) -> bool:
        """Whether the key before it gives way to it, or did so before it was revoked."""
        if self.activates_at is None:
            return False
        return self.revoked_at is None or self.activates_at <= self.revoked_at

    def has_begun(self, now: int) -> bool:
        """Whether its time to sign has come."""
        return self.activates_at is not None and self.activates_at <= now and not self.is_revoked


@dataclass(frozen=True, slots=True)
class Schedule:
    """
    How the lives of keys follow each other.

    ``publish_ahead`` is how long a key is published before it signs: the key set's max-age and
    ``notice``. ``keep_published`` is how long it stays after its successor began to sign: the longest
    life of a token, leeway, and as long as a replica may still sign with it. Replicas look every
    ``poll``, and their clocks differ by ``clock_difference`` at most. A replica that could not look
    for longer than ``outage``, or than three polls, must not sign. ``rotate_every`` is the age at which
    a key is replaced without being asked.
    """

    publish_ahead: timedelta
    keep_published: timedelta
    poll: timedelta = timedelta(seconds=5)
    clock_difference: timedelta = timedelta(seconds=30)
    outage: timedelta = timedelta(0)
    rotate_every: timedelta | None = None
    has_spare: bool = True

    @property
    def notice(self) -> timedelta:
        """The time within which every replica that can has read what is on record."""
        return 3 * self.poll + self.clock_difference

    @property
    def stale_after(self) -> timedelta:
        """How long a replica may go on with what it read last."""
        return max(3 * self.poll, self.outage)

    @property
    def follow(self) -> timedelta:
        """The time within which every replica that signs at all follows what is on record."""
        return self.stale_after + self.clock_difference


@dataclass(frozen=True, slots=True)
class KeyLife:
    """A key on record and its state at a moment; ``leaves_at`` is when it leaves the key set."""

    entry: KeyEntry
    state: KeyState
    leaves_at: int | None = None

    @property
    def is_published(self) -> bool:
        """Whether it belongs in the key set."""
        return self.state in {KeyState.PENDING, KeyState.ACTIVE, KeyState.RETIRING}

    @property
    def is_gone(self) -> bool:
        """Whether it will never be needed again."""
        return not self.is_published


def lives_at(
    entries: Iterable[KeyEntry], now: int, *, keep_published: timedelta
) -> tuple[KeyLife, ...]:
    """
    The keys of one algorithm at a moment, newest first.

    Of those whose time has come the one with the highest number signs. A key leaves no sooner than
    ``keep_published`` after its successor began, whatever is on record: settings may have changed.
    """
    newest_first = sorted(entries, key=lambda entry: entry.number, reverse=True)
    lives: list[KeyLife] = []
    successor: KeyEntry | None = None
    is_superseded = False
    for entry in newest_first:
        leaves_at = leaves_at_of(entry, successor, keep_published)
        if entry.takes_over:
            successor = entry
        if entry.is_revoked:
            lives.append(KeyLife(entry, KeyState.REVOKED))
            continue
        if not entry.has_begun(now):
            state = KeyState.RETIRED if is_superseded else KeyState.PENDING
        elif not is_superseded:
            state, is_superseded = KeyState.ACTIVE, True
        else:
            is_over = leaves_at is not None and now >= leaves_at
            state = KeyState.RETIRED if is_over else KeyState.RETIRING
        lives.append(KeyLife(entry, state, leaves_at))
    return tuple(lives)


def leaves_at_of(
    entry: KeyEntry, successor: KeyEntry | None, keep_published: timedelta
) -> int | None:
    """When a key leaves the key set, which is no sooner than its last token is dead."""
    if successor is None or successor.activates_at is None or entry.leaves_at is None:
        return None
    return max(entry.leaves_at, successor.activates_at + int(keep_published.total_seconds()))


def with_unrecorded(
    entries: Sequence[KeyEntry],
    found: Sequence[FoundKey],
    *,
    algorithm: str,
    schedule: Schedule,
    now: int,
    is_first_look: bool = True,
) -> tuple[KeyEntry, ...]:
    """
    The entries on record, and one for each newer key that exists without being on record.

    Such a key was made by somebody else, or nothing is on record at all. Its age decides, which is a
    fact that every replica sees: it signs once it has been published for long enough. The very first
    key signs at once, since there was nothing before it that a verifier could still remember;
    ``is_first_look`` says that the caller, too, remembers no other. Older keys that are not on record
    have had their time, or are not ours: they are left out.
    """
    newest = max((entry.number for entry in entries), default=0)
    ahead = int(schedule.publish_ahead.total_seconds())
    is_very_first = is_first_look and not entries and [key.number for key in found] == [1]
    unrecorded = (
        KeyEntry(
            algorithm,
            key.number,
            key.kid,
            published_at=key.created_at,
            # Whoever made the first may have a clock that is ahead.
            activates_at=min(key.created_at, now) if is_very_first else key.created_at + ahead,
        )
        for key in found
        if key.number > newest
    )
    return (*entries, *unrecorded)


def held_back(entries: Sequence[KeyEntry], recorded: Sequence[KeyEntry]) -> tuple[KeyEntry, ...]:
    """
    The entries, of which those that are not on record are spares, whatever their age.

    That is what they are while somebody has claimed the record: who makes a key may take long to put it
    there, and by its age alone it would sign before, and pass by the spare that was to be next. Where
    nothing is on record nothing is held back, since nothing else could sign.
    """
    known = {entry.number for entry in recorded}
    return tuple(
        entry if not known or entry.number in known else replace(entry, activates_at=None)
        for entry in entries
    )


def having_signed(entries: Iterable[KeyEntry], kid: str | None, now: int) -> tuple[KeyEntry, ...]:
    """The entries, of which the one with this id has begun: a clock set back undoes no first use."""
    return tuple(
        replace(entry, activates_at=now) if entry.kid == kid and not entry.has_begun(now) else entry
        for entry in entries
    )
