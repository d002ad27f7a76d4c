"""Watches the keys, and has every state that one comes into on record, whoever or whatever led to it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from broker.interfaces import AuditLog
from broker.keys.course import states_at
from broker.keys.life import KeyState
from broker.keys.record import KeyRecord
from broker.keys.rotator import Rotator
from broker.model import KeyChange, RequestContext, new_request_id

_MOST_AT_ONCE: Final = 64
"""As many as a list in an audit record holds."""


class KeyWitness:
    """
    Looks at the keys, on record and in the memory of replicas, and records what changed since.

    The first look records the state of every key. What could not be recorded is recorded at the next.
    """

    def __init__(self, rotator: Rotator, audit: AuditLog) -> None:
        self._rotator = rotator
        self._audit = audit
        self._known: dict[str, str] = {}

    def look(self) -> None:
        """Record the news. Raises ``TemporarilyUnavailable`` when it cannot look, or not record."""
        record = self._rotator.look()
        keep, now = self._rotator.schedule.keep_published, self._rotator.now()
        found = [*states_at(record, now, keep_published=keep), *self._in_memory(record)]
        news = [
            replace(one, from_state=self._known.get(one.kid))
            for one in found
            if self._known.get(one.kid) != one.to_state
        ]
        for start in range(0, len(news), _MOST_AT_ONCE):
            self._tell(news[start : start + _MOST_AT_ONCE])
        # What is on record no more is forgotten here too, so this does not grow.
        self._known = {one.kid: one.to_state for one in found}

    def _tell(self, news: Sequence[KeyChange]) -> None:
        context = RequestContext("service", new_request_id())
        with self._audit.entry("key.seen", context) as entry:
            entry.note(key_changes=news)
        self._known |= {one.kid: one.to_state for one in news}

    def _in_memory(self, record: KeyRecord) -> Iterator[KeyChange]:
        rotator = self._rotator
        keep = rotator.schedule.keep_published
        revoked = {one.kid: one.revoked_at for one in record.revoked}
        for key in rotator.stated():
            statement = key.statement
            state = key.state(
                rotator.now(), keep_published=keep, is_revoked=statement.kid in revoked
            )
            moments = {
                KeyState.PENDING: statement.made_at,
                KeyState.ACTIVE: statement.begins_at,
                KeyState.RETIRING: key.ended_at,
                KeyState.RETIRED: key.ended_at + int(keep.total_seconds()),
                KeyState.REVOKED: revoked.get(statement.kid, 0),
            }
            yield key.change(state, moments[state], from_state=None)
