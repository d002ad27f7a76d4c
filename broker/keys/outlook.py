"""What will happen to the keys and when, told beforehand; and changes tried without being made."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from itertools import pairwise

from broker.keys.changes import RecordEditor
from broker.keys.life import FoundKey, KeyLife, Schedule
from broker.keys.record import HeldRecord, KeyRecord
from broker.keys.rotator import Revoked, Rotator
from broker.model import KeyExposure


class Change(StrEnum):
    """What happens to a key."""

    BEGINS = "begins to sign"
    SUCCEEDED = "is succeeded"
    KNOWN = "is known to every verifier, and could sign"
    CLOSED = "can be closed off: no broker signs with it any more"
    LEAVES = "leaves the key set"
    DUE = "has a successor set by itself"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that will happen to a key at a moment, in unix seconds."""

    at: int
    algorithm: str
    kid: str
    change: Change


def upcoming(editor: RecordEditor, record: KeyRecord) -> tuple[Event, ...]:
    """What happens to the keys of one algorithm if nobody does anything, in its order."""
    lives = editor.lives(record)
    events = [
        Event(at, editor.algorithm, life.entry.kid, change)
        for life in lives
        for at, change in _of_life(life, editor.schedule)
    ]
    events.extend(_of_succession(editor, lives))
    ahead = [event for event in events if event.at > editor.now]
    active, due_at = editor.active(record), editor.due_at(record)
    if active is not None and due_at is not None:
        ahead.append(Event(max(due_at, editor.now), editor.algorithm, active.kid, Change.DUE))
    return tuple(sorted(ahead, key=lambda event: event.at))


def _of_life(life: KeyLife, schedule: Schedule) -> Iterator[tuple[int, Change]]:
    entry = life.entry
    if not life.is_published:
        return
    if entry.activates_at is None:
        yield entry.published_at + _seconds(schedule.publish_ahead), Change.KNOWN
    else:
        yield entry.activates_at, Change.BEGINS
    if life.leaves_at is not None:
        yield life.leaves_at, Change.LEAVES


def _of_succession(editor: RecordEditor, lives: Sequence[KeyLife]) -> Iterator[Event]:
    """A key is succeeded, and closed off once every replica has had the time to follow."""
    begun = [life for life in lives if life.is_published and life.entry.activates_at is not None]
    for successor, other in pairwise(begun):
        at, kid = successor.entry.activates_at or 0, other.entry.kid
        yield Event(at, editor.algorithm, kid, Change.SUCCEEDED)
        closed_at = at + _seconds(editor.schedule.follow)
        yield Event(closed_at, editor.algorithm, kid, Change.CLOSED)


def exposure_of(
    revoked: Revoked,
    *,
    schedule: Schedule,
    max_age: timedelta,
    longest_token: timedelta,
) -> KeyExposure:
    """
    What remains after a revocation, from the moment that it counts from.

    A replica that has read the record a moment before, and not since, publishes by it for as long as it
    keeps the key of any token published; what it tells verifiers about keeping its answer ends no later
    than if it had been told before ``publish_ahead`` was over.
    """
    now = revoked.revoked_at
    stopped_at = now + _seconds(schedule.follow)
    accepted_until = stopped_at + _seconds(max_age)
    longest_published = max(schedule.keep_published, schedule.publish_ahead)
    known_from = (
        revoked.signing.published_at + _seconds(schedule.publish_ahead)
        if revoked.signing is not None and revoked.was_active and not revoked.replica
        else 0
    )
    return KeyExposure(
        stopped_at=stopped_at,
        accepted_until=accepted_until,
        expired_at=stopped_at + _seconds(longest_token),
        known_from=max(known_from, now),
        cut_off_until=max(
            accepted_until, now + _seconds(longest_published + schedule.clock_difference)
        ),
    )


def rehearsal(rotator: Rotator) -> Rotator:
    """A rotator that does the same to copies: nothing is written, and keys that it makes are none."""
    found = {algorithm: list(rotator.found(algorithm)) for algorithm in rotator.algorithms}
    return Rotator(
        _Copy(HeldRecord(rotator.look(), 1)),
        _PretendSmith(found),
        algorithms=rotator.algorithms,
        schedule=rotator.schedule,
        now=rotator.now,
        stated=rotator.stated if rotator.has_keys_in_memory else None,
    )


@dataclass(slots=True)
class _Copy:
    held: HeldRecord

    def read(self) -> HeldRecord:
        return self.held

    def write(self, record: KeyRecord, *, over: int) -> bool:
        self.held = HeldRecord(record, over + 1)
        return True


@dataclass(frozen=True, slots=True)
class _PretendKey:
    number: int
    kid: str
    created_at: int


@dataclass(frozen=True, slots=True)
class _PretendSmith:
    keys: dict[str, list[FoundKey]]

    def found(self, algorithm: str) -> Sequence[FoundKey]:
        return self.keys[algorithm]

    def make(self, algorithm: str) -> None:
        number = max((key.number for key in self.keys[algorithm]), default=0) + 1
        self.keys[algorithm].append(_PretendKey(number, f"(new {algorithm} key {number})", 0))

    def settle(self, algorithm: str, *, signs_from: int, gone: frozenset[int]) -> None:
        """Nothing is closed off."""


def next_of(life: KeyLife, events: Sequence[Event]) -> Event | None:
    """What happens to a key next, if anything does."""
    return next((event for event in events if event.kid == life.entry.kid), None)


def _seconds(time: timedelta) -> int:
    return int(time.total_seconds())
