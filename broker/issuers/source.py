"""One source of somebody else's keys: its last good set, and when that is fetched anew."""

import math
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from broker.errors import Reason, TemporarilyUnavailable, TokenRejected
from broker.interfaces import VerificationKey
from broker.issuers.documents import LoadKeys
from broker.issuers.key_set import KeySet, SourceFault, SourceRefused

_AHEAD: Final = 0.8
_MAX_WAITING: Final = 8


@dataclass(frozen=True, slots=True)
class RefreshSchedule:
    """
    When keys are fetched anew; all in seconds.

    A source is asked at most once per ``cool_down``, whatever asks for it; as long as none of its keys were
    ever had, whoever needs one may ask again after ``first_cool_down``, so that an issuer that starts
    later than the broker is not waited for longer than it takes. Its keys are fetched anew
    after what its server allows (``max-age``), but not sooner than ``cool_down`` and not later than
    ``refresh_after``: while the source answers, a key that it withdraws is refused at most
    ``refresh_after`` and one ``attempt`` later. While it does not answer, its last good keys are
    used until they are ``max_stale`` old, and not at that age. ``attempt`` bounds one refresh with
    all its fetches.
    """

    refresh_after: float = 60.0
    max_stale: float = 3600.0
    cool_down: float = 30.0
    first_cool_down: float = 2.0
    attempt: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.cool_down <= self.refresh_after <= self.max_stale:
            raise ValueError("cool_down <= refresh_after <= max_stale must hold")

    def lifetime(self, max_age: int | None) -> float:
        """For how long a set is used without asking again."""
        asked = self.refresh_after if max_age is None else max_age
        return min(max(asked, self.cool_down), self.refresh_after)


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """
    How a source is doing.

    ``age`` is how many seconds ago the keys in use were fetched, ``None`` when there are none.
    ``last_error`` is the code of the last attempt's failure, empty when it went well, and ``None``
    before the first. ``keys`` counts those in use; ``rejected`` says why others were dropped.
    """

    age: float | None
    last_error: str | None
    attempts: int
    keys: int = 0
    rejected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Held:
    """A set of keys in use; ``fetched_at`` is when its fetch began."""

    keys: KeySet
    fetched_at: float
    lifetime: float


class RemoteSource:
    """
    The keys of one remote source.

    Of several threads that want a refresh one makes it, and at most eight wait for it: a slow source
    must not take every thread there is. Nobody who finds his key waits, as long as somebody calls
    ``refresh_if_due`` from time to time.
    """

    def __init__(
        self, load: LoadKeys, *, schedule: RefreshSchedule, monotonic: Callable[[], float]
    ) -> None:
        self._load = load
        self._schedule = schedule
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._flight: threading.Event | None = None
        self._waiting = 0
        self._held: _Held | None = None
        self._last_error: str | None = None
        self._attempted_at = -math.inf
        self._attempts = 0
        self.is_attempted = threading.Event()
        self.asked_at = monotonic()

    def key(self, kid: str | None, algorithm: str) -> VerificationKey:
        """The key that a token's header names; raises as ``KeyRing.key`` does."""
        self.asked_at = self._monotonic()
        try:
            return self._current().keys.find(kid, algorithm)
        except TokenRejected as rejected:
            if rejected.reason is not Reason.UNKNOWN_KEY:
                raise
        self._refresh()
        if self._last_error:
            raise self._unavailable()
        return self._current().keys.find(kid, algorithm)

    def refresh_if_due(self) -> bool:
        """Fetch anew if it is time to and nobody does; whether it was."""
        with self._lock:
            flight = self._take_off() if self._monotonic() >= self._due_at() else None
        if flight is not None:
            self._fly(flight)
        return flight is not None

    def status(self) -> SourceStatus:
        """How the source is doing."""
        held = self._held
        if held is None:
            return SourceStatus(None, self._last_error, self._attempts)
        age = self._monotonic() - held.fetched_at
        count, rejected = len(held.keys.keys), held.keys.rejected
        return SourceStatus(age, self._last_error, self._attempts, count, rejected)

    def _current(self) -> _Held:
        """The set to use now; it is waited for only where there is none or nobody refreshed it."""
        held = self._usable()
        if held is None or self._monotonic() - self._attempted_at >= held.lifetime:
            with suppress(TemporarilyUnavailable):
                self._refresh()
            held = self._usable()
        if held is None:
            raise self._unavailable()
        return held

    def _usable(self) -> _Held | None:
        held = self._held
        if held is None or self._monotonic() - held.fetched_at >= self._schedule.max_stale:
            return None
        return held

    def _unavailable(self) -> TemporarilyUnavailable:
        wait = self._attempted_at + self._cool_down - self._monotonic()
        retry_after = max(1, math.ceil(wait)) if math.isfinite(wait) else 1
        return TemporarilyUnavailable(
            Reason.KEY_SOURCE_UNAVAILABLE, retry_after=retry_after, detail=self._last_error or ""
        )

    @property
    def _cool_down(self) -> float:
        """How long it is left alone after an attempt: shorter while there is nothing to lose."""
        if self._held is None:
            return min(self._schedule.first_cool_down, self._schedule.cool_down)
        return self._schedule.cool_down

    def _due_at(self) -> float:
        held, wait = self._held, self._schedule.cool_down
        if held is not None and not self._last_error:
            wait = max(wait, _AHEAD * held.lifetime)
        return self._attempted_at + wait

    def _refresh(self) -> None:
        """
        Fetch anew, or wait for whoever does; nothing happens while the source is to be left alone.

        Raises ``TemporarilyUnavailable`` when it was not waited to the end.
        """
        with self._lock:
            under_way = self._flight
            flight = None if under_way else self._take_off()
        if flight is not None:
            self._fly(flight)
        elif under_way is not None:
            self._wait_for(under_way)

    def _take_off(self) -> threading.Event | None:
        """Begin an attempt, unless one is under way or too recent. The lock is held."""
        now = self._monotonic()
        if self._flight is not None or now - self._attempted_at < self._cool_down:
            return None
        self._attempted_at = now
        self._attempts += 1
        self._flight = threading.Event()
        return self._flight

    def _fly(self, flight: threading.Event) -> None:
        held, error = self._held, str(SourceFault.INTERNAL)
        try:
            loaded = self._load(within=self._schedule.attempt)
            lifetime = self._schedule.lifetime(loaded.max_age)
            held, error = _Held(loaded.keys, self._attempted_at, lifetime), ""
        except SourceRefused as refused:
            error = str(refused.code)
        except Exception:  # noqa: BLE001, S110 - a refresher must outlive whatever a source does; the error is kept.
            pass
        finally:
            with self._lock:
                self._held, self._last_error, self._flight = held, error, None
            self.is_attempted.set()
            flight.set()

    def _wait_for(self, flight: threading.Event) -> None:
        with self._lock:
            if self._waiting >= _MAX_WAITING:
                raise self._unavailable()
            self._waiting += 1
        try:
            if not flight.wait(self._schedule.attempt):
                raise self._unavailable()
        finally:
            with self._lock:
                self._waiting -= 1
