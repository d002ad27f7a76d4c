"""Spent ids and withdrawn tokens in the memory of one process, for tests and a single worker."""

import heapq
import threading
from collections.abc import Sequence
from typing import Final

from broker.interfaces import Now
from broker.model import OneTimeId
from broker.state.entries import (
    CLOCK_WENT_BACK,
    PURGE_STEP,
    REVOCATION_GRACE,
    replay_store_unavailable,
    revocation_unavailable,
    revoked_key,
    spent_key,
)

DEFAULT_CAPACITY: Final = 1_000_000


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

    def revoke(self, jti: str, until: int) -> None:
        with self._lock:
            self._check_revocations()
            self._revoked.forget(before=self._now() - REVOCATION_GRACE)
            if len(self._revoked) >= self._capacity:
                raise revocation_unavailable("full")
            self._revoked.add(revoked_key(jti), until)

    def is_revoked(self, jti: str) -> bool:
        with self._lock:
            self._check_revocations()
            if self._now() <= self._revoked.forgotten:
                raise revocation_unavailable(CLOCK_WENT_BACK)
            return revoked_key(jti) in self._revoked

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
    Keys, each until a second of its own.

    ``forgotten`` is the latest such second of any key let go. A clock that is set back to it cannot
    tell any more what was here.
    """

    def __init__(self) -> None:
        self.forgotten = -1
        self._until: dict[bytes, int] = {}
        self._by_time: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, key: bytes) -> bool:
        return key in self._until

    def holds(self, key: bytes, *, at: int) -> bool:
        """Whether the key is here and its second is not before the given one."""
        return self._until.get(key, -1) >= at

    def add(self, key: bytes, until: int) -> None:
        """Keep the key until then, or for as long as it is kept already."""
        known = self._until.get(key)
        if known is None or known < until:
            self._until[key] = until
            heapq.heappush(self._by_time, (until, key))

    def forget(self, *, before: int) -> None:
        """Let go of a few keys whose second was before the given one."""
        for _ in range(PURGE_STEP):
            if not self._by_time or self._by_time[0][0] >= before:
                return
            until, key = heapq.heappop(self._by_time)
            self.forgotten = max(self.forgotten, until)
            if self._until.get(key) == until:
                del self._until[key]
