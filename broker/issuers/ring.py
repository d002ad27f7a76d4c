"""The key ring: the keys of every issuer and client that the registry trusts."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from broker.bounded import MemoryStatus
from broker.errors import Reason, TemporarilyUnavailable
from broker.fetch import Fetcher
from broker.interfaces import VerificationKey
from broker.issuers.documents import DiscoveredJwks, JwksAddress, LoadKeys
from broker.issuers.key_set import KeySet, SourceRefused, read_key_set
from broker.issuers.source import RefreshSchedule, RemoteSource, SourceStatus
from broker.model import JsonObject, KeySource

MAX_SOURCES: Final = 1000
_TICK: Final = 1.0
_NO_HOSTS: Final[Mapping[str, frozenset[str]]] = MappingProxyType({})


class IssuerKeyRing:
    """
    Other people's keys, fetched, checked and remembered: the ``KeyRing`` of the broker.

    ``key_hosts`` names, for an issuer whose metadata is discovered, the hosts besides its own that
    its ``jwks_uri`` may be at, with the port where that is not 443. ``refreshers`` background
    threads fetch ahead of time; they start with the first source, so fork before that, and stop
    with ``close``. With none of them, call ``refresh_due`` from time to time. Sources come from the
    registry alone; of more than ``MAX_SOURCES`` the one not asked for the longest is forgotten.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        *,
        schedule: RefreshSchedule | None = None,
        key_hosts: Mapping[str, frozenset[str]] = _NO_HOSTS,
        max_keys: int = 100,
        refreshers: int = 4,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetcher = fetcher
        self._schedule = schedule or RefreshSchedule()
        self._key_hosts = key_hosts
        self._max_keys = max_keys
        self._refreshers = refreshers
        self._monotonic = monotonic
        self._remote: dict[KeySource, RemoteSource] = {}
        self._static: dict[tuple[int, bool], tuple[JsonObject, KeySet]] = {}
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._is_closed = False
        self._hits = self._misses = 0

    def key(self, source: KeySource, kid: str | None, algorithm: str) -> VerificationKey:
        if source.jwks is not None:
            known = self._static_set(source.jwks, is_bundle=source.is_spiffe_bundle)
            return known.find(kid, algorithm)
        return self._remote_source(source).key(kid, algorithm)

    def warm(self, sources: Iterable[KeySource], *, within: float = 5.0) -> None:
        """
        Fetch for these sources now, in the background, and wait for that at most so many seconds.

        A source that fails or is slow keeps nobody from starting; ``status`` tells. Without
        refreshers the fetches are made here, one after the other.
        """
        end = time.monotonic() + within
        remote = [self._remote_source(source) for source in sources if source.jwks is None]
        if not self._refreshers:
            self.refresh_due()
        for source in remote:
            source.is_attempted.wait(max(0.0, end - time.monotonic()))

    def keep_only(self, sources: Iterable[KeySource]) -> None:
        """Forget all other sources with their keys, as after the registry changed."""
        kept = {source for source in sources if source.jwks is None}
        with self._changed:
            self._remote = {key: one for key, one in self._remote.items() if key in kept}
            self._static = {}

    def status(self) -> Mapping[str, SourceStatus]:
        """How every remote source is doing, by its ``jwks_uri`` or issuer."""
        with self._changed:
            remote = tuple(self._remote.items())
        return {_name(key): one.status() for key, one in remote}

    def memory(self) -> MemoryStatus:
        """How the memory of key sets is doing, those in the configuration and those that are fetched."""
        held = len(self._remote) + len(self._static)
        return MemoryStatus(held, 2 * MAX_SOURCES, self._hits, self._misses)

    def refresh_due(self) -> None:
        """Fetch anew whatever it is time for; a source that somebody else refreshes is left to him."""
        with self._changed:
            remote = tuple(self._remote.values())
        for source in remote:
            if self._is_closed:
                return
            source.refresh_if_due()

    def close(self) -> None:
        """Stop the background threads; a fetch under way is waited for."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        end = time.monotonic() + self._schedule.attempt
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _static_set(self, jwks: JsonObject, *, is_bundle: bool) -> KeySet:
        # A mapping cannot be hashed, so it is known by its identity; holding on to it here keeps
        # that identity from being given to another one.
        name = (id(jwks), is_bundle)
        known = self._static.get(name)
        if known is not None:
            self._hits += 1
            return known[1]
        self._misses += 1
        try:
            keys = read_key_set(jwks, max_keys=self._max_keys, is_bundle=is_bundle)
        except SourceRefused as refused:
            raise TemporarilyUnavailable(
                Reason.KEY_SOURCE_UNAVAILABLE, detail=refused.code
            ) from None
        with self._changed:
            if len(self._static) >= MAX_SOURCES:
                self._static.pop(next(iter(self._static)))
            self._static[name] = (jwks, keys)
        return keys

    def _remote_source(self, source: KeySource) -> RemoteSource:
        known = self._remote.get(source)
        if known is not None:
            self._hits += 1
            return known
        self._misses += 1
        with self._changed:
            if source not in self._remote:
                self._make_room()
                self._remote[source] = RemoteSource(
                    self._loader(source), schedule=self._schedule, monotonic=self._monotonic
                )
                self._start_refresher()
                self._changed.notify_all()
            return self._remote[source]

    def _make_room(self) -> None:
        if len(self._remote) >= MAX_SOURCES:
            self._remote.pop(min(self._remote, key=lambda key: self._remote[key].asked_at))

    def _loader(self, source: KeySource) -> LoadKeys:
        if source.jwks_uri is not None:
            return JwksAddress(
                self._fetcher, source.jwks_uri, self._max_keys, source.is_spiffe_bundle
            )
        issuer = _name(source)
        return DiscoveredJwks(
            self._fetcher,
            issuer,
            key_hosts=self._key_hosts.get(issuer, frozenset()),
            max_keys=self._max_keys,
            rediscover_after=self._schedule.max_stale,
            monotonic=self._monotonic,
        )

    def _start_refresher(self) -> None:
        if self._is_closed or len(self._threads) >= self._refreshers:
            return
        name = f"broker-keys-{len(self._threads)}"
        thread = threading.Thread(target=self._keep_fresh, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _keep_fresh(self) -> None:
        while not self._is_closed:
            self.refresh_due()
            with self._changed:
                if not self._is_closed:
                    self._changed.wait(_TICK)


def _name(source: KeySource) -> str:
    name = source.jwks_uri or source.discovery
    if name is None:
        raise ValueError("a key source without jwks has a jwks_uri or an issuer to discover")
    return name
