"""Who may follow what is withdrawn, and how many at a time."""

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from broker.endpoints.inquiry import Callers
from broker.endpoints.limits import Limits
from broker.errors import InvalidClient, RateLimited, Reason, TemporarilyUnavailable
from broker.interfaces import AuditLog, Registry
from broker.model import Client, ClientCredential, RequestContext


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """How many streams there may be, of one client and of all together."""

    of_one: int = 64
    of_all: int = 1024


@dataclass(frozen=True, slots=True)
class Watcher:
    """A client that was admitted, as it was registered then."""

    client: Client


class StreamPlaces:
    """The places that streams take. It may be used by several threads."""

    def __init__(self, limits: StreamLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    def take(self, client_id: str) -> None:
        """
        Take a place for the client.

        Raises ``RateLimited`` (``stream_limit``) when it has all that it may have, and
        ``TemporarilyUnavailable`` (``overloaded``) when all are taken.
        """
        with self._lock:
            if self._taken[client_id] >= self._limits.of_one:
                raise RateLimited(Reason.STREAM_LIMIT, retry_after=5)
            if self._taken.total() >= self._limits.of_all:
                raise TemporarilyUnavailable(Reason.OVERLOADED)
            self._taken[client_id] += 1

    def give_back(self, client_id: str) -> None:
        """Free a place that was taken for the client."""
        with self._lock:
            self._taken[client_id] -= 1
            # Clients that are known by a document come and go.
            self._taken += Counter()


@dataclass(frozen=True, slots=True)
class WatchEndpoint:
    """
    Admits clients to the stream of what is withdrawn. Any that authenticates may follow it.

    There are only digests in it, and whoever accepts tokens should know which of them do not count.
    """

    callers: Callers
    registry: Registry
    audit: AuditLog
    places: StreamPlaces = field(default_factory=lambda: StreamPlaces(StreamLimits()))

    @property
    def limits(self) -> Limits:
        """Where whoever wants to be admitted enters."""
        return self.callers.limits

    def admit(self, context: RequestContext, read: Callable[[], ClientCredential]) -> Watcher:
        """
        The client, with a place that is its own until ``dismiss``.

        Raises ``OAuthError`` when it is not known, or has no place.
        """
        with ExitStack() as undo:
            with self.audit.entry("revocations.watch", context) as entry:
                caller = self.callers.authenticate(read(), entry)
                registered = self.registry.client(caller.client.client_id)
                if registered is None:
                    raise InvalidClient(Reason.CLIENT_UNKNOWN)
                self.places.take(registered.client_id)
                undo.callback(self.places.give_back, registered.client_id)
                self.callers.spend(caller)
            # Whoever is not on record has no place.
            undo.pop_all()
        return Watcher(registered)

    def dismiss(self, watcher: Watcher) -> None:
        """Give the place of a stream back that has ended; called once for each that was admitted."""
        self.places.give_back(watcher.client.client_id)

    def is_as_admitted(self, watcher: Watcher) -> bool:
        """
        Whether nothing has changed about the client; if something has, it must authenticate again.

        Raises ``InvalidClient`` (``client_disabled``) when it may do nothing any more.
        """
        client = self.registry.client(watcher.client.client_id)
        if client is None or client.is_disabled:
            raise InvalidClient(Reason.CLIENT_DISABLED)
        return client == watcher.client
