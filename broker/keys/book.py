"""What is on record about the keys, as one replica follows it."""

from collections.abc import Sequence

from broker.interfaces import Now
from broker.keys.life import (
    FoundKey,
    KeyLife,
    Schedule,
    having_signed,
    held_back,
    lives_at,
    with_unrecorded,
)
from broker.keys.record import KeyRecord, RecordStore
from broker.keys.unavailable import signer_unavailable


class KeyBook:
    """
    Reads the record, and applies it to the keys that exist.

    Where nothing is on record the age of each key decides alone. A record that was there and is gone is a
    fault and no empty record: what it said about revoked keys must not be forgotten.
    """

    def __init__(self, schedule: Schedule, *, now: Now, records: RecordStore) -> None:
        self.schedule = schedule
        self.now = now
        self._records = records
        self._record = KeyRecord()
        self._has_record = False

    def look(self) -> None:
        """Read the record anew; raises ``TemporarilyUnavailable`` and keeps the last if it cannot."""
        held = self._records.read()
        if held.version == 0 and self._has_record:
            raise signer_unavailable("the record of the keys is gone")
        self._has_record = held.version > 0
        self._record = held.record

    def lives(
        self, algorithm: str, found: Sequence[FoundKey], *, signed: str | None
    ) -> tuple[KeyLife, ...]:
        """
        The keys of an algorithm as they are now, newest first.

        ``signed`` is the id of the key that signed last here, which is never undone but by revocation.
        """
        now = self.now()
        entries = with_unrecorded(
            self._record.of(algorithm),
            found,
            algorithm=algorithm,
            schedule=self.schedule,
            now=now,
            is_first_look=signed is None or signed in {key.kid for key in found},
        )
        if self._record.is_claimed(now):
            entries = held_back(entries, self._record.of(algorithm))
        return lives_at(
            having_signed(entries, signed, now), now, keep_published=self.schedule.keep_published
        )

    @property
    def revoked(self) -> frozenset[str]:
        """The ids of all keys that must not be used any more."""
        return self._record.revoked_ids

    def is_stale(self, read_at: int) -> bool:
        """Whether what was read at that moment is too old to sign by."""
        return abs(self.now() - read_at) > self.schedule.stale_after.total_seconds()

    def is_outdated(self, read_at: int) -> bool:
        """
        Whether what was read at that moment is too old even to be published.

        Nothing that was signed by it is alive by then, and what was revoked since must not stay in any
        key set for ever.
        """
        return abs(self.now() - read_at) > self.schedule.keep_published.total_seconds()

    def fresh_for(self, read_at: int) -> int:
        """For how many seconds no key signs that was not known at that moment; 0 at the least."""
        ahead = self.schedule.publish_ahead - self.schedule.clock_difference
        return max(0, read_at + int(ahead.total_seconds()) - self.now())
