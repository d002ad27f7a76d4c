"""The metadata documents of clients, fetched when they are needed and remembered for a while."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from broker.errors import RateLimited, Reason, TokenRejected
from broker.fetch import Fetched, Fetcher, FetchReason, FetchRefused
from broker.interfaces import VerificationKey
from broker.issuers.client_metadata import read_client_key_document, read_client_metadata
from broker.issuers.fetch_places import FetchPlaces
from broker.issuers.key_set import KeySet
from broker.model import ClientDocument
from broker.tokens.client_url import client_url_host

MAX_DOCUMENT_BYTES: Final = 5 * 1024
MAX_KEYS_BYTES: Final = 64 * 1024
MOST_REMEMBERED: Final = 1000
MOST_WAITING: Final = 6
SHORTEST_LIFETIME: Final = 60.0
USUAL_LIFETIME: Final = 300.0
LONGEST_LIFETIME: Final = 900.0
COOL_DOWN: Final = 10.0

_MARGIN: Final = 0.5
_AHEAD: Final = 0.8
_DOCUMENT: Final = frozenset({"application/json", "+json"})
_KEYS: Final = frozenset({"application/json", "application/jwk-set+json"})
_REASONS: Final = {
    FetchReason.BLOCKED: Reason.FETCH_BLOCKED,
    FetchReason.REDIRECT: Reason.FETCH_REDIRECT,
    FetchReason.STATUS: Reason.FETCH_STATUS,
    FetchReason.TIMEOUT: Reason.FETCH_TIMEOUT,
    FetchReason.TLS: Reason.FETCH_TLS,
    FetchReason.FAILED: Reason.FETCH_FAILED,
}


@dataclass(frozen=True, slots=True)
class _Held:
    """A document in use with its keys; ``fetched_at`` is when its fetch began."""

    document: ClientDocument
    keys: KeySet
    fetched_at: float
    lifetime: float


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why the last fetch gave nothing, and until when it is not tried again."""

    reason: Reason
    detail: str
    until: float


_Outcome = _Held | _Failure
_Kept = TypeVar("_Kept")


class _Flight:
    """One fetch under way, for everybody who wants its document."""

    def __init__(self) -> None:
        self._is_over = threading.Event()
        self._outcome: _Outcome | None = None

    def land(self, outcome: _Outcome) -> None:
        self._outcome = outcome
        self._is_over.set()

    def wait(self, seconds: float) -> _Outcome | None:
        """What came of it, or ``None`` when it took longer than so many seconds."""
        self._is_over.wait(seconds)
        return self._outcome


class FetchedClientDocuments:
    """
    Documents of clients that are fetched through the guard: the ``ClientDocuments`` of the broker.

    A document, with the keys it names by ``jwks_uri``, is fetched within ``deadline`` seconds in all and
    used for as long as its server allows, but for one minute at least and fifteen at most; then it is
    fetched anew or the client is refused. That is done ahead of time, by one caller, while others go on
    with what there is, and at most once a minute when somebody names a key that it has not. No error
    and no unacceptable document is kept in its place: after a failure the URL is left alone for ten
    seconds. Of more than ``MOST_REMEMBERED`` documents the one not asked for the longest is forgotten.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        *,
        deadline: float = 3.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetcher = fetcher
        self._deadline = deadline
        self._monotonic = monotonic
        self._places = FetchPlaces(monotonic=monotonic)
        self._lock = threading.Lock()
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._failed: OrderedDict[str, _Failure] = OrderedDict()
        self._flights: dict[str, _Flight] = {}
        self._waiting = 0

    def document(self, url: str) -> ClientDocument:
        return self._current(url).document

    def key(self, url: str, kid: str | None, algorithm: str) -> VerificationKey:
        held = self._current(url)
        try:
            return held.keys.find(kid, algorithm)
        except TokenRejected as rejected:
            age = self._monotonic() - held.fetched_at
            if rejected.reason is not Reason.UNKNOWN_KEY or age < SHORTEST_LIFETIME:
                raise
        return self._newer(url, held).keys.find(kid, algorithm)

    def _current(self, url: str) -> _Held:
        """The document to use now; it is waited for only where there is none that may be used."""
        with self._lock:
            held = self._held.get(url)
            if held is not None:
                self._held.move_to_end(url)
        age = 0.0 if held is None else self._monotonic() - held.fetched_at
        if held is None or age >= held.lifetime:
            return self._newer(url, held)
        if age >= _AHEAD * held.lifetime and url not in self._flights:
            with suppress(TokenRejected, RateLimited):
                return self._newer(url, held)
        return held

    def _newer(self, url: str, held: _Held | None) -> _Held:
        """A document fetched after ``held`` was."""
        with self._lock:
            newest = self._held.get(url)
            if newest is not None and newest is not held:
                return newest
            failure = self._failed.get(url)
            if failure is not None and self._monotonic() < failure.until:
                return _settled(failure)
            flight = self._flights.get(url)
            is_mine = flight is None
            if flight is None:
                flight = self._take_off(url, is_new=held is None)
            elif self._waiting >= MOST_WAITING:
                raise RateLimited(Reason.FETCH_LIMIT, detail="too many wait for a document")
            else:
                self._waiting += 1
        return self._fly(url, flight) if is_mine else self._wait_for(flight)

    def _take_off(self, url: str, *, is_new: bool) -> _Flight:
        """Begin a fetch. The lock is held."""
        host = client_url_host(url)
        if host is None:
            raise TokenRejected(Reason.CIMD_URL_INVALID)
        self._places.enter(host, is_new=is_new)
        self._flights[url] = flight = _Flight()
        return flight

    def _fly(self, url: str, flight: _Flight) -> _Held:
        began_at = self._monotonic()
        outcome: _Outcome = _Failure(Reason.FETCH_FAILED, "internal error", began_at)
        try:
            outcome = self._fetch(url, began_at)
        except TokenRejected as rejected:
            until = self._monotonic() + COOL_DOWN
            outcome = _Failure(rejected.reason, rejected.detail, until)
        finally:
            with self._lock:
                del self._flights[url]
                self._remember(url, outcome)
            self._places.leave(client_url_host(url) or "")
            flight.land(outcome)
        return _settled(outcome)

    def _wait_for(self, flight: _Flight) -> _Held:
        try:
            outcome = flight.wait(self._deadline + _MARGIN)
        finally:
            with self._lock:
                self._waiting -= 1
        if outcome is None:
            raise TokenRejected(Reason.FETCH_TIMEOUT)
        return _settled(outcome)

    def _remember(self, url: str, outcome: _Outcome) -> None:
        if isinstance(outcome, _Failure):
            _put(self._failed, url, outcome)
        else:
            _put(self._held, url, outcome)

    def _fetch(self, url: str, began_at: float) -> _Held:
        end = began_at + self._deadline
        fetched = self._get(url, end=end, max_bytes=MAX_DOCUMENT_BYTES, media_types=_DOCUMENT)
        metadata = read_client_metadata(fetched.body, url)
        keys, lifetime = metadata.keys, _lifetime(fetched)
        if metadata.jwks_uri is not None:
            at_uri = self._get(
                metadata.jwks_uri, end=end, max_bytes=MAX_KEYS_BYTES, media_types=_KEYS
            )
            keys = read_client_key_document(at_uri.body)
            lifetime = min(lifetime, _lifetime(at_uri))
        return _Held(metadata.document, keys, began_at, lifetime)

    def _get(self, url: str, *, end: float, max_bytes: int, media_types: frozenset[str]) -> Fetched:
        within = end - self._monotonic()
        try:
            return self._fetcher.get(
                url, max_bytes=max_bytes, media_types=media_types, within=within
            )
        except FetchRefused as refused:
            reason = _REASONS.get(refused.reason, Reason.CIMD_INVALID)
            detail = f"{refused.reason} {refused.detail}".strip()
            raise TokenRejected(reason, detail) from refused


def _settled(outcome: _Outcome) -> _Held:
    if isinstance(outcome, _Failure):
        raise TokenRejected(outcome.reason, outcome.detail)
    return outcome


def _put(kept: OrderedDict[str, _Kept], url: str, value: _Kept) -> None:
    kept[url] = value
    kept.move_to_end(url)
    if len(kept) > MOST_REMEMBERED:
        kept.popitem(last=False)


def _lifetime(fetched: Fetched) -> float:
    """For how many seconds a document is used: what its server says, within our own bounds."""
    asked = USUAL_LIFETIME if fetched.max_age is None else fetched.max_age
    return min(max(asked, SHORTEST_LIFETIME), LONGEST_LIFETIME)
