"""A copy of all that is withdrawn, kept up to date by looking at the state, for streams to read from."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import structlog

from broker.errors import OAuthError, Reason, TemporarilyUnavailable
from broker.interfaces import RevocationJournal
from broker.model import Revocation

LOOK_EVERY: Final = 0.25
"""Seconds between two looks at the state."""

_LOOKS_A_BEAT: Final = 4
_LONGEST_AGE: Final = 3.0
_MOST: Final = 1_000_000
_FORGET_EVERY: Final = 60.0

_log = structlog.get_logger("broker.revocations")


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment by the wall clock, in unix seconds, and by the monotonic one, in seconds."""

    wall: float
    monotonic: float


class RevocationFeed:
    """
    Everything withdrawn, as of the last look at the journal.

    ``looked_at`` is when that began, ``None`` before the first; up to then nothing is missing. While the
    journal cannot tell, it stays where it is. ``check`` may be called from any thread, all else
    belongs to the event loop in which ``follow`` runs.
    """

    def __init__(
        self,
        journal: RevocationJournal,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.looked_at: Moment | None = None
        self.edition = 0
        self._journal = journal
        self._wall = wall
        self._monotonic = monotonic
        # In the order of their numbers.
        self._revocations: dict[bytes, Revocation] = {}
        self._last_number = 0
        self._forgotten = -1
        self._looks_since = 0
        self._forget_at = monotonic() + _FORGET_EVERY
        self._published = asyncio.Event()
        self._has_failed = False

    def begin(self) -> None:
        """Take a first look, before there is an event loop."""
        began = self._now()
        try:
            self._take_in(self._read(0), began, is_anew=True)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the next look may find it gone.
            self._tell(failure)

    async def follow(self) -> None:
        """Look at the journal again and again, until cancelled."""
        # A thread of its own: whoever keeps others waiting must not keep this waiting.
        with ThreadPoolExecutor(1, "revocations") as thread:
            while True:
                await self.look(thread)
                await asyncio.sleep(LOOK_EVERY)

    async def look(self, thread: Executor) -> None:
        """Take in what has been withdrawn since the last look; a journal that fails changes nothing."""
        began = self._now()
        # Of a time that the clock went back to, something may be missing here.
        is_anew = began.wall <= self._forgotten
        number = 0 if is_anew else self._last_number
        try:
            found = await asyncio.get_running_loop().run_in_executor(thread, self._read, number)
            self._take_in(found, began, is_anew=is_anew)
        except Exception as failure:  # noqa: BLE001 - the same.
            self._tell(failure)

    def _now(self) -> Moment:
        return Moment(self._wall(), self._monotonic())

    def _read(self, number: int) -> Sequence[Revocation]:
        room = _MOST - (len(self._revocations) if number else 0)
        return self._journal.revocations_after(number, most=room)

    def _take_in(self, found: Sequence[Revocation], began: Moment, *, is_anew: bool) -> None:
        self._tell(None)
        if is_anew:
            self._revocations, self._forgotten = {}, -1
        elif began.monotonic >= self._forget_at:
            self._forget(began)
        for revocation in found:
            self._revocations.pop(revocation.key, None)
            self._revocations[revocation.key] = revocation
            self._last_number = revocation.number
        self.looked_at = began
        self._publish(has_news=bool(found) or is_anew)

    def after(self, number: int) -> list[Revocation]:
        """What has a higher number, the lowest first."""
        found = []
        for revocation in reversed(self._revocations.values()):
            if revocation.number <= number:
                break
            found.append(revocation)
        return found[::-1]

    async def newer_than(self, edition: int) -> None:
        """
        Return once there is a later edition than that one.

        There is one whenever something was withdrawn, and each second, as long as looks succeed.
        """
        while self.edition <= edition:
            await self._published.wait()

    def check(self) -> None:
        """Raise ``TemporarilyUnavailable`` (``revocation_unavailable``) when no look succeeded lately."""
        looked_at = self.looked_at
        if looked_at is None or self._monotonic() - looked_at.monotonic > _LONGEST_AGE:
            raise TemporarilyUnavailable(Reason.REVOCATION_UNAVAILABLE, detail="no look succeeded")

    def _publish(self, *, has_news: bool) -> None:
        self._looks_since += 1
        if has_news or self._looks_since >= _LOOKS_A_BEAT:
            self._looks_since = 0
            self.edition += 1
            self._published.set()
            # Who waits for a later one waits for another event.
            self._published = asyncio.Event()

    def _forget(self, began: Moment) -> None:
        """Let go of what nobody needs to know any more."""
        self._forget_at = began.monotonic + _FORGET_EVERY
        over = {one.kept_until for one in self._revocations.values() if one.kept_until < began.wall}
        if over:
            self._forgotten = max(over)
            self._revocations = {
                key: one for key, one in self._revocations.items() if one.kept_until >= began.wall
            }

    def _tell(self, failure: Exception | None) -> None:
        """Log when looks begin to fail, and when they succeed again."""
        if failure is not None and not self._has_failed:
            detail = failure.detail if isinstance(failure, OAuthError) else type(failure).__name__
            _log.error("revocations_unreadable", detail=detail)
        elif failure is None and self._has_failed:
            _log.info("revocations_readable_again")
        self._has_failed = failure is not None
