"""The keys of one issuer: its last good set, and when that is fetched anew."""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from broker.client._documents import NotFetched
from broker.client._key_set import KeySet, PublicKey
from broker.client.refusals import Unverifiable
from broker.errors import Reason, TokenRejected

_AHEAD: Final = 0.8

Load = Callable[[float], tuple[KeySet, float | None]]
"""
Fetches a set of keys within so many seconds, and tells for how long its server calls it fresh.

Raises ``NotFetched``.
"""


@dataclass(frozen=True, slots=True)
class KeySchedule:
    """
    When keys are fetched anew; all in seconds.

    The server is asked at most once per ``cool_down``, whatever keys tokens name. Keys are fetched anew
    after what the server allows (``max-age``), and not later than ``refresh_after``: while the server
    answers, a key that it withdraws is refused from then on. While it does not, its last good keys are
    used until they are ``max_stale`` old. ``attempt`` bounds one fetch, and how long anybody waits for it.
    """

    refresh_after: float = 300.0
    max_stale: float = 3600.0
    cool_down: float = 10.0
    attempt: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.cool_down <= self.refresh_after <= self.max_stale:
            raise ValueError("cool_down <= refresh_after <= max_stale must hold")

    def lifetime(self, max_age: float | None) -> float:
        """For how long a set is used without asking again."""
        asked = self.refresh_after if max_age is None else max_age
        return min(max(asked, self.cool_down), self.refresh_after)


@dataclass(frozen=True, slots=True)
class _Held:
    """A set in use; ``fetched_at`` is when its fetch began, in seconds of the source's clock."""

    keys: KeySet
    fetched_at: float
    lifetime: float


class KeySource:
    """
    The keys of one issuer, for threads and event loops alike.

    Wait for the flight, if there is one, and then ask for the key. A flight is a fetch under way on
    a thread of its own; however many want one, there is one.
    """

    def __init__(
        self,
        load: Load,
        *,
        schedule: KeySchedule,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._schedule = schedule
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._flight: Future[None] | None = None
        self._attempted_at = -math.inf
        self._failure = ""

    def flight_for(self, kid: str | None, algorithm: str) -> Future[None] | None:
        """What to wait for before ``find`` is asked, if anything; its result says nothing."""
        held = self._held
        if held is None:
            return self._refresh()
        age = self._monotonic() - held.fetched_at
        is_known = (kid or "", algorithm) in held.keys.keys
        if is_known and (age < held.lifetime or self._failure):
            if age >= _AHEAD * held.lifetime:
                # Nobody waits for this one: what is due is not dead, and a server that fails is not
                # waited for again and again.
                self._refresh()
            return None
        return self._refresh()

    def find(self, kid: str | None, algorithm: str) -> PublicKey:
        """
        The key that a header names, among those that are known by now.

        Raises ``TokenRejected`` (``unknown_key``), or ``Unverifiable`` when the keys are too old or could
        not be fetched just now.
        """
        held = self._held
        if held is None or self._monotonic() - held.fetched_at >= self._schedule.max_stale:
            raise self._unverifiable()
        try:
            return held.keys.find(kid, algorithm)
        except TokenRejected:
            if self._failure or self._flight is not None:
                raise self._unverifiable() from None
            raise

    def _unverifiable(self) -> Unverifiable:
        wait = self._attempted_at + self._schedule.cool_down - self._monotonic()
        retry_after = max(1, math.ceil(wait)) if math.isfinite(wait) else 1
        sentence = Reason.KEY_SOURCE_UNAVAILABLE.sentence
        return Unverifiable(sentence, retry_after=retry_after, detail=self._failure)

    def _refresh(self) -> Future[None] | None:
        """The fetch under way, or a new one, unless the last began a moment ago."""
        with self._lock:
            now = self._monotonic()
            since = now - self._attempted_at
            # A fetch that takes much longer than it may is given up, so that it cannot block the next.
            if self._flight is not None and since < 2 * self._schedule.attempt:
                return self._flight
            if since < self._schedule.cool_down:
                return None
            flight: Future[None] = Future()
            # From here on nobody who waits can cancel it for the others.
            flight.set_running_or_notify_cancel()
            self._attempted_at = now
            threading.Thread(target=self._fly, args=(flight, now), daemon=True).start()
            self._flight = flight
            return flight

    def _fly(self, flight: "Future[None]", began_at: float) -> None:
        held, failure = None, "The fetch failed."
        try:
            keys, max_age = self._load(self._schedule.attempt)
            held, failure = _Held(keys, began_at, self._schedule.lifetime(max_age)), ""
        except NotFetched as error:
            failure = str(error)
        finally:
            with self._lock:
                if self._flight is flight:
                    self._flight, self._failure = None, failure
                    self._held = held or self._held
            flight.set_result(None)
