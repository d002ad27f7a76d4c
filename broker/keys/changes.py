"""Changes of the record: pure functions from what is on record to what shall be."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from broker.keys.life import (
    FoundKey,
    KeyEntry,
    KeyLife,
    KeyState,
    Schedule,
    held_back,
    lives_at,
    with_unrecorded,
)
from broker.keys.record import KeyRecord

_MOST_GONE: Final = 8
"""How many keys of an algorithm that are gone stay on record, for people to read."""


@dataclass(frozen=True, slots=True)
class RecordEditor:
    """
    Changes what is on record about the keys of one algorithm, at one moment.

    ``now`` is in unix seconds. Every method returns another record.
    """

    algorithm: str
    schedule: Schedule
    now: int

    def lives(self, record: KeyRecord) -> tuple[KeyLife, ...]:
        """The keys of the algorithm as they are now, newest first."""
        keep = self.schedule.keep_published
        return lives_at(record.of(self.algorithm), self.now, keep_published=keep)

    def adopt(self, record: KeyRecord, found: Sequence[FoundKey]) -> KeyRecord:
        """
        Put on record what exists without being on record, as replicas treat it already.

        What it supersedes leaves no sooner than if it had begun only now: replicas whose settings
        changed may have come to it late.
        """
        entries = with_unrecorded(
            record.of(self.algorithm),
            found,
            algorithm=self.algorithm,
            schedule=self.schedule,
            now=self.now,
        )
        if record.is_claimed(self.now):
            entries = held_back(entries, record.of(self.algorithm))
        for entry in entries[len(record.of(self.algorithm)) :]:
            if entry.activates_at is None:
                continue
            begins = max(entry.activates_at, self.now)
            earlier = (one for one in entries if one.number < entry.number)
            leaving = {one.number: self._leaving(one, begins) for one in earlier}
            entries = tuple(leaving.get(one.number, one) for one in entries)
        return record.with_keys(self.algorithm, entries)

    def add_spare(self, record: KeyRecord, key: FoundKey) -> KeyRecord:
        """Put a key on record that is published from now on and signs when it is needed."""
        entry = KeyEntry(self.algorithm, key.number, key.kid, published_at=self.now)
        return record.with_keys(self.algorithm, (*record.of(self.algorithm), entry))

    def spare(self, record: KeyRecord) -> KeyEntry | None:
        """The key to use next: of those that wait without a moment the one that is known longest."""
        return next(iter(self.spares(record)), None)

    def spares(self, record: KeyRecord) -> Sequence[KeyEntry]:
        """The keys that wait without a moment, in the order in which they are to be used."""
        waiting = (
            life.entry
            for life in self.lives(record)
            if life.state is KeyState.PENDING and life.entry.activates_at is None
        )
        return sorted(waiting, key=lambda entry: entry.number)

    def scheduled(self, record: KeyRecord) -> KeyEntry | None:
        """The key whose moment to begin is set and has not come, if there is one."""
        waiting = (
            life.entry
            for life in self.lives(record)
            if life.state is KeyState.PENDING and life.entry.activates_at is not None
        )
        return min(waiting, key=lambda entry: entry.number, default=None)

    def active(self, record: KeyRecord) -> KeyEntry | None:
        """The key that signs now, if one may."""
        found = (one.entry for one in self.lives(record) if one.state is KeyState.ACTIVE)
        return next(found, None)

    def begin_in_time(self, record: KeyRecord, entry: KeyEntry) -> KeyRecord:
        """Have a spare sign as soon as every verifier knows it and every replica was told."""
        ahead, notice = (
            int(time.total_seconds())
            for time in (self.schedule.publish_ahead, self.schedule.notice)
        )
        return self._begin(record, entry, max(entry.published_at + ahead, self.now + notice))

    def begin_at_once(self, record: KeyRecord, entry: KeyEntry) -> KeyRecord:
        """Have a key sign from now on, known to verifiers or not."""
        return self._begin(record, entry, self.now)

    def revoke(self, record: KeyRecord, kid: str) -> KeyRecord:
        """
        Take a key out of use for ever. Whether another signs then is up to the caller.

        If it was about to succeed another, that one stays.
        """
        entries, active = record.of(self.algorithm), self.active(record)
        revoked = next(entry for entry in entries if entry.kid == kid)
        was_successor = revoked == self.scheduled(record)

        def after(entry: KeyEntry) -> KeyEntry:
            if entry == revoked:
                return replace(entry, revoked_at=entry.revoked_at or self.now)
            # Who waits for a successor that never comes goes on.
            is_waiting = was_successor and entry == active
            return replace(entry, leaves_at=None) if is_waiting else entry

        return record.with_keys(self.algorithm, map(after, entries))

    def prune(self, record: KeyRecord) -> KeyRecord:
        """
        Drop the oldest of the keys that are gone.

        The newest key of all stays on record in any case: what is newer than it passes for unrecorded.
        """
        lives = self.lives(record)
        gone = [life.entry.number for life in lives[1:] if life.is_gone][_MOST_GONE:]
        kept = (entry for entry in record.of(self.algorithm) if entry.number not in gone)
        return record.with_keys(self.algorithm, kept)

    def is_due(self, record: KeyRecord) -> bool:
        """Whether the key that signs is so old that its successor has to be set now."""
        due_at = self.due_at(record)
        return due_at is not None and self.now >= due_at

    def due_at(self, record: KeyRecord) -> int | None:
        """When the successor of the key that signs has to be set; ``None`` if it is, or never."""
        active, every = self.active(record), self.schedule.rotate_every
        if every is None or active is None or active.activates_at is None:
            return None
        if self.scheduled(record) is not None:
            return None
        spare = self.spare(record)
        is_known = spare is not None and (
            spare.published_at + self.schedule.publish_ahead.total_seconds() <= self.now
        )
        before = self.schedule.notice if is_known else self.schedule.publish_ahead
        return active.activates_at + int((every - before).total_seconds())

    def _begin(self, record: KeyRecord, entry: KeyEntry, moment: int) -> KeyRecord:
        entries = (
            replace(one, activates_at=moment)
            if one.number == entry.number
            else self._leaving(one, moment)
            if one.number < entry.number
            else one
            for one in record.of(self.algorithm)
        )
        return record.with_keys(self.algorithm, entries)

    def _leaving(self, entry: KeyEntry, moment: int) -> KeyEntry:
        """An entry whose successor begins at a moment."""
        if entry.is_revoked or entry.leaves_at is not None:
            return entry
        keep = int(self.schedule.keep_published.total_seconds())
        return replace(entry, leaves_at=moment + keep)
