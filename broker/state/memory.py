"""Spent ids and withdrawn tokens in the memory of one process, for tests and a single worker."""

import heapq
import threading
from collections.abc import Sequence
from itertools import takewhile
from typing import Final

from broker.errors import Reason
from broker.interfaces import Now
from broker.model import OneTimeId, Pedigree, Revocation, Withdrawal
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

DEFAULT_CAPACITY: Final = 1_000_000
_ALWAYS: Final = (0, LAST_SECOND)


class MemoryState:
    """
    A replay guard and a revocation list that forget everything when their process ends.

    Each holds at most ``capacity`` entries; when all of them are still needed it refuses, since to
    make room would be to forget.
    """

    def __init__(self, *, now: Now, capacity: int = DEFAULT_CAPACITY) -> None:
        self._now = now
        self._capacity = capacity
        self._lock = threading.Lock()
        self._spent = _Entries()
        self._revoked = _Entries()
        self._is_closed = False

    def spend(self, one_time_ids: Sequence[OneTimeId]) -> OneTimeId | None:
        fresh: dict[bytes, int] = {}
        with self._lock:
            self.check()
            now = self._now()
            self._spent.forget(before=now)
            for one in one_time_ids:
                # An entry with this second or a later one is this token, even after its time.
                key = spent_key(one)
                if key in fresh or self._spent.holds(key, at=min(now, one.until)):
                    return one
                if one.until <= self._spent.forgotten:
                    raise replay_store_unavailable(CLOCK_WENT_BACK)
                fresh[key] = one.until
            if len(self._spent) + len(fresh) > self._capacity:
                raise replay_store_unavailable("full")
            for key, until in fresh.items():
                self._spent.add(key, until)
        return None

    def is_spent(self, one_time_id: OneTimeId) -> bool:
        with self._lock:
            self.check()
            last = min(self._now(), one_time_id.until)
            if self._spent.holds(spent_key(one_time_id), at=last):
                return True
            if one_time_id.until <= self._spent.forgotten:
                raise replay_store_unavailable(CLOCK_WENT_BACK)
        return False

    def revoke(self, jti: str, until: int) -> None:
        self._withdraw(revoked_key(jti), until, issued=_ALWAYS)

    def withdraw(self, withdrawal: Withdrawal) -> None:
        issued = (withdrawal.issued_since, withdrawal.issued_until)
        self._withdraw(withdrawn_key(withdrawal.party), withdrawal.kept_until, issued=issued)

    def _withdraw(self, key: bytes, until: int, *, issued: tuple[int, int]) -> None:
        with self._lock:
            self._check_revocations()
            self._revoked.forget(before=self._now() - REVOCATION_GRACE)
            if len(self._revoked) >= self._capacity:
                raise revocation_unavailable("full")
            self._revoked.add(key, until, issued=issued)

    def reason_against(self, pedigree: Pedigree) -> Reason | None:
        keys = Keys.of(pedigree)
        with self._lock:
            self._check_revocations()
            if self._now() <= self._revoked.forgotten:
                raise revocation_unavailable(CLOCK_WENT_BACK)
            every = keys.own | keys.ancestral
            found = {key for key in every if self._revoked.covers(key, pedigree.issued_at)}
        return keys.reason(found)

    def revocations_after(self, number: int, *, most: int) -> Sequence[Revocation]:
        with self._lock:
            self._check_revocations()
            if self._now() <= self._revoked.forgotten:
                raise revocation_unavailable(CLOCK_WENT_BACK)
            found = self._revoked.after(number)
        if len(found) > most:
            raise revocation_unavailable(TOO_MANY)
        return found

    def spent_count(self) -> int:
        """How many one-time ids are remembered."""
        return len(self._spent)

    def check(self) -> None:
        if self._is_closed:
            raise replay_store_unavailable("closed")

    def close(self) -> None:
        self._is_closed = True

    def _check_revocations(self) -> None:
        if self._is_closed:
            raise revocation_unavailable("closed")


class _Entries:
    """
    Keys, each until a second of its own, and for tokens issued from one second to another.

    ``forgotten`` is the latest such second of any key let go. A clock that is set back to it cannot
    tell any more what was here.
    """

    def __init__(self) -> None:
        self.forgotten = -1
        self._until: dict[bytes, int] = {}
        self._issued: dict[bytes, tuple[int, int]] = {}
        self._by_time: list[tuple[int, bytes]] = []
        # In their order, so that the newest are found without a look at the others.
        self._numbers: dict[bytes, int] = {}
        self._last_number = 0

    def __len__(self) -> int:
        return len(self._until)

    def holds(self, key: bytes, *, at: int) -> bool:
        """Whether the key is here and its second is not before the given one."""
        return self._until.get(key, -1) >= at

    def covers(self, key: bytes, issued_at: int) -> bool:
        """Whether the key is here for what was issued at that second."""
        first, last = self._issued.get(key, (1, 0))
        return first <= issued_at <= last

    def add(self, key: bytes, until: int, *, issued: tuple[int, int] = _ALWAYS) -> None:
        """Keep the key until then, or for as long as it is kept already; what it is for only widens."""
        first, last = self._issued.get(key, issued)
        self._issued[key] = min(first, issued[0]), max(last, issued[1])
        self._last_number += 1
        self._numbers.pop(key, None)
        self._numbers[key] = self._last_number
        known = self._until.get(key)
        if known is None or known < until:
            self._until[key] = until
            heapq.heappush(self._by_time, (until, key))

    def after(self, number: int) -> list[Revocation]:
        """Every key whose last addition has a higher number, the lowest first."""
        newest_first = takewhile(lambda one: one[1] > number, reversed(self._numbers.items()))
        found = [
            Revocation(found, key, *self._issued[key], self._until[key] + REVOCATION_GRACE)
            for key, found in newest_first
        ]
        return found[::-1]

    def forget(self, *, before: int) -> None:
        """Let go of a few keys whose second was before the given one."""
        for _ in range(PURGE_STEP):
            if not self._by_time or self._by_time[0][0] >= before:
                return
            until, key = heapq.heappop(self._by_time)
            self.forgotten = max(self.forgotten, until)
            if self._until.get(key) == until:
                del self._until[key], self._issued[key], self._numbers[key]
