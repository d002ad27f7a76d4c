"""Spent ids and withdrawn tokens in a SQLite file, shared by the processes of one machine."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from broker.errors import Reason, TemporarilyUnavailable
from broker.interfaces import Now
from broker.model import OneTimeId, Pedigree, Revocation, Withdrawal
from broker.state.connection import Connection
from broker.state.database import DEFAULT_MAX_BYTES, open_database
from broker.state.entries import (
    CLOCK_WENT_BACK,
    LAST_SECOND,
    PURGE_STEP,
    REVOCATION_GRACE,
    TOO_MANY,
    Keys,
    replay_store_unavailable,
    revocation_unavailable,
    revoked_key,
    spent_key,
    withdrawn_key,
)
from broker.state.gathering import Gathering
from broker.state.withdrawn import MOST_COPIED, Mark, WithdrawnCopy

_FORGOTTEN: Final = "SELECT until FROM forgotten WHERE name = ?"
_REMEMBER_FORGETTING: Final = "UPDATE forgotten SET until = max(until, ?) WHERE name = ?"
_SPENT_UNTIL: Final = "SELECT until FROM spent WHERE key = ?"
_SPEND: Final = """
    INSERT INTO spent VALUES (?, ?) ON CONFLICT DO UPDATE SET until = excluded.until
"""
_SPEND_FRESH: Final = """
    INSERT INTO spent SELECT ?1, ?2 FROM forgotten WHERE name = 'spent' AND until < ?2
    ON CONFLICT DO UPDATE SET until = excluded.until WHERE spent.until < min(?3, ?2)
"""
_NEXT_NUMBER: Final = "UPDATE withdrawals SET last = last + 1 RETURNING last"
_REVOKE: Final = """
    INSERT INTO revoked (key, until, issued_since, issued_until, number)
        VALUES (?, ?, ?, ?, (SELECT last FROM withdrawals))
    ON CONFLICT DO UPDATE SET
        until = max(until, excluded.until),
        issued_since = min(issued_since, excluded.issued_since),
        issued_until = max(issued_until, excluded.issued_until),
        number = excluded.number
"""
_REVOKED_AFTER: Final = """
    SELECT number, key, issued_since, issued_until, until FROM revoked
        WHERE number > ? ORDER BY number LIMIT ?
"""
# The row without a key tells up to when revocations may be forgotten.
_REVOKED: Final = """
    SELECT NULL, until FROM forgotten WHERE name = 'revoked'
    UNION ALL
    SELECT key, NULL FROM revoked
        WHERE key IN ({}) AND ? BETWEEN issued_since AND issued_until
"""
_PURGE: Final = """
    DELETE FROM {name} WHERE key IN
        (SELECT key FROM {name} WHERE until < ? ORDER BY until LIMIT ?)
    RETURNING until
"""
_PURGES: Final = {name: _PURGE.format(name=name) for name in ("spent", "revoked")}
_PROBE: Final = "UPDATE forgotten SET until = until WHERE name = 'spent'"


@lru_cache(maxsize=64)
def _revoked(number: int) -> str:
    """The question about so many keys."""
    return _REVOKED.format(", ".join("?" * number))


@dataclass(slots=True)
class _Spending:
    """Ids to spend together, and the answer; what was never answered has failed."""

    one_time_ids: Sequence[OneTimeId]
    spent_before: OneTimeId | None = None
    failure: str = "state: not answered"


class SqliteState:
    """
    A replay guard and a revocation list that survive their processes and a loss of power.

    What has been spent is on disk when ``spend`` returns; threads that wait for the disk share one
    transaction. A store that is locked for longer than ``busy_timeout`` (in seconds), read-only,
    full, damaged or replaced refuses, within twice that time; it grows to ``max_bytes`` at most.

    What is withdrawn is answered from a copy of at most ``most_copied`` keys, as long as the mark beside the
    file tells that nobody has withdrawn anything since. The store
    belongs to the process that first uses it: SQLite does not survive a fork, so a child that
    inherits it in use is refused. Raises ``StateRefused`` when the file cannot be used as it is.
    """

    def __init__(
        self,
        path: Path,
        *,
        now: Now,
        busy_timeout: float = 0.5,
        max_bytes: int = DEFAULT_MAX_BYTES,
        most_copied: int = MOST_COPIED,
    ) -> None:
        self._now = now
        database = open_database(path, busy_timeout=busy_timeout, max_bytes=max_bytes)
        self._writer = Connection(database, is_writer=True)
        self._reader = Connection(database)
        self._mark = Mark(path)
        self._withdrawn = WithdrawnCopy(most=most_copied)
        self._spending = Gathering(self._spend_all, patience=2 * busy_timeout)
        self._purged_at = {"spent": 0, "revoked": 0}

    def spend(self, one_time_ids: Sequence[OneTimeId]) -> OneTimeId | None:
        if not one_time_ids:
            return None
        self._writer.check_process(replay_store_unavailable)
        spending = _Spending(one_time_ids)
        try:
            self._spending.do(spending)
        except TimeoutError:
            raise replay_store_unavailable("state: busy") from None
        if spending.failure:
            raise replay_store_unavailable(spending.failure)
        return spending.spent_before

    def _spend_all(self, spendings: Sequence[_Spending]) -> None:
        """Answer all of them from one transaction; none is answered unless it is on disk."""
        try:
            with self._writer.transaction(replay_store_unavailable) as connection:
                now = self._now()
                self._purge(connection, "spent", before=now)
                answers = [self._spend_one(connection, one, now=now) for one in spendings]
        except TemporarilyUnavailable as error:
            answers = [(None, error.detail)] * len(spendings)
        for spending, (spent_before, failure) in zip(spendings, answers, strict=True):
            spending.spent_before, spending.failure = spent_before, failure

    @staticmethod
    def _spend_one(
        connection: sqlite3.Connection, spending: _Spending, *, now: int
    ) -> tuple[OneTimeId | None, str]:
        """Spend all ids, or none: the one spent before, or what keeps this from being known."""
        if len(spending.one_time_ids) == 1:
            (only,) = spending.one_time_ids
            values = (spent_key(only), only.until, now)
            if connection.execute(_SPEND_FRESH, values).rowcount:
                return None, ""
            # What kept it from being spent is found out below, under the same lock.
        (forgotten,) = connection.execute(_FORGOTTEN, ("spent",)).fetchone()
        fresh: dict[bytes, int] = {}
        for one in spending.one_time_ids:
            # An entry with this second or a later one is this token, even after its time.
            key = spent_key(one)
            row = connection.execute(_SPENT_UNTIL, (key,)).fetchone()
            if key in fresh or (row is not None and row[0] >= min(now, one.until)):
                return one, ""
            if one.until <= forgotten:
                return None, CLOCK_WENT_BACK
            fresh[key] = one.until
        connection.executemany(_SPEND, fresh.items())
        return None, ""

    def is_spent(self, one_time_id: OneTimeId) -> bool:
        with self._reader.use(replay_store_unavailable) as connection:
            row = connection.execute(_SPENT_UNTIL, (spent_key(one_time_id),)).fetchone()
            (forgotten,) = connection.execute(_FORGOTTEN, ("spent",)).fetchone()
        if row is not None and row[0] >= min(self._now(), one_time_id.until):
            return True
        if one_time_id.until <= forgotten:
            raise replay_store_unavailable(CLOCK_WENT_BACK)
        return False

    def revoke(self, jti: str, until: int) -> None:
        self._withdraw(revoked_key(jti), until, issued=(0, LAST_SECOND))

    def withdraw(self, withdrawal: Withdrawal) -> None:
        issued = (withdrawal.issued_since, withdrawal.issued_until)
        self._withdraw(withdrawn_key(withdrawal.party), withdrawal.kept_until, issued=issued)

    def _withdraw(self, key: bytes, until: int, *, issued: tuple[int, int]) -> None:
        with self._writer.transaction(revocation_unavailable) as connection:
            self._purge(connection, "revoked", before=self._now() - REVOCATION_GRACE)
            ((number,),) = connection.execute(_NEXT_NUMBER).fetchall()
            # Before others can read it: whoever sees the number looks into the file.
            self._mark.put(number)
            connection.execute(_REVOKE, (key, until, *issued))

    def revocations_after(self, number: int, *, most: int) -> Sequence[Revocation]:
        with self._reader.use(revocation_unavailable) as connection:
            found = connection.execute(_REVOKED_AFTER, (number, most + 1)).fetchall()
            (forgotten,) = connection.execute(_FORGOTTEN, ("revoked",)).fetchone()
        if self._now() <= forgotten:
            raise revocation_unavailable(CLOCK_WENT_BACK)
        if len(found) > most:
            raise revocation_unavailable(TOO_MANY)
        return [
            Revocation(number, key, first, last, until + REVOCATION_GRACE)
            for number, key, first, last, until in found
        ]

    def reason_against(self, pedigree: Pedigree) -> Reason | None:
        self._reader.check(revocation_unavailable)
        withdrawn = self._withdrawn.latest
        if withdrawn.number != self._mark.read():
            with self._reader.use(revocation_unavailable) as connection:
                renewed = self._withdrawn.renew(connection, now=self._now())
                if renewed is None:
                    return self._reason_in_file(connection, pedigree)
            withdrawn = renewed
        now = self._now()
        if now <= withdrawn.forgotten:
            raise revocation_unavailable(CLOCK_WENT_BACK)
        if not withdrawn.held:
            return None
        keys = Keys.of(pedigree)
        return keys.reason(
            withdrawn.found(
                keys.all, issued_at=pedigree.issued_at, kept_from=now - REVOCATION_GRACE
            )
        )

    def _reason_in_file(self, connection: sqlite3.Connection, pedigree: Pedigree) -> Reason | None:
        """The answer where there is more withdrawn than is copied."""
        keys = Keys.of(pedigree)
        every = tuple(keys.all)
        question = _revoked(len(every))
        found = connection.execute(question, (*every, pedigree.issued_at)).fetchall()
        (forgotten,) = [until for _, until in found if until is not None]
        if self._now() <= forgotten:
            raise revocation_unavailable(CLOCK_WENT_BACK)
        return None if len(found) == 1 else keys.reason({key for key, _ in found})

    def spent_count(self) -> int:
        """How many one-time ids are remembered."""
        with self._reader.use(replay_store_unavailable) as connection:
            (count,) = connection.execute("SELECT count(*) FROM spent").fetchone()
            return int(count)

    def check(self) -> None:
        """Write for real: a file that can be read may still be one that cannot be written."""
        with self._writer.transaction(replay_store_unavailable) as connection:
            connection.execute(_PROBE)

    def close(self) -> None:
        self._writer.close()
        self._reader.close()

    def _purge(self, connection: sqlite3.Connection, name: str, *, before: int) -> None:
        """Let go of a few entries whose second has passed: once a second, or until none is left."""
        if before <= self._purged_at[name]:
            return
        gone = [until for (until,) in connection.execute(_PURGES[name], (before, PURGE_STEP))]
        if gone:
            connection.execute(_REMEMBER_FORGETTING, (max(gone), name))
        if len(gone) < PURGE_STEP:
            self._purged_at[name] = before
