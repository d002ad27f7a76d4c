"""What one process knows of all that is withdrawn, to give it back to a store that forgot it."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from broker.model import Revocation

_MOST: Final = 200_000
_FORGET_EVERY: Final = 60.0
# Whoever was away for longer may not know what others withdrew meanwhile.
_LONGEST_ABSENCE: Final = 600.0


class RevocationCopy:
    """
    A copy of everything withdrawn, as of the last look, with what this process withdrew since.

    ``last_number`` is where the next look begins. It holds 200,000 entries at most; with more it holds
    none, and is never whole again. All methods may be called from any thread.
    """

    def __init__(
        self, *, most: int = _MOST, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.last_number = 0
        self._most = most
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._held: dict[bytes, Revocation] = {}
        self._is_overfull = False
        self._whole_at: float | None = None
        self._forget_at = monotonic() + _FORGET_EVERY

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing that anybody withdrew up to ten minutes ago."""
        at = self._whole_at
        return at is not None and self._monotonic() - at <= _LONGEST_ABSENCE

    def entries(self) -> Sequence[Revocation]:
        """Everything that is known."""
        with self._lock:
            return tuple(self._held.values())

    def unseen(self) -> Sequence[Revocation]:
        """What this process withdrew and no look has found yet."""
        with self._lock:
            return tuple(one for one in self._held.values() if one.number == 0)

    def add(self, revocation: Revocation) -> None:
        """Remember what this process withdrew, whatever the number: the next look brings that."""
        with self._lock:
            self._keep(replace(revocation, number=0))

    def take(self, found: Sequence[Revocation]) -> None:
        """Take in what a look at the store found."""
        with self._lock:
            for revocation in found:
                self._keep(revocation)
                self.last_number = revocation.number

    def begin_anew(self) -> None:
        """Look at everything again; what is known so far stays known."""
        self.last_number = 0

    def finish_look(self, *, now: int) -> None:
        """Nothing more was found, and by the store's clock it is ``now``, in unix seconds."""
        with self._lock:
            self._whole_at = None if self._is_overfull else self._monotonic()
            if self._monotonic() >= self._forget_at:
                self._forget_at = self._monotonic() + _FORGET_EVERY
                self._held = {key: one for key, one in self._held.items() if one.kept_until >= now}

    def _keep(self, revocation: Revocation) -> None:
        known = self._held.get(revocation.key)
        if known is not None:
            revocation = _widened(known, revocation)
        if len(self._held) >= self._most and known is None:
            self._is_overfull = True
            self._whole_at = None
            self._held = {}
        if not self._is_overfull:
            self._held[revocation.key] = revocation


def _widened(known: Revocation, new: Revocation) -> Revocation:
    return Revocation(
        number=new.number,
        key=known.key,
        issued_since=min(known.issued_since, new.issued_since),
        issued_until=max(known.issued_until, new.issued_until),
        kept_until=max(known.kept_until, new.kept_until),
    )
