"""A server of streams around real parts, and listeners who hear what it tells."""

import asyncio
import base64
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import grpc

from broker.assembly import CallerParts, assemble_watch
from broker.endpoints.limits import Limits, no_limits
from broker.endpoints.watching import StreamLimits, StreamPlaces
from broker.fetch import GuardedFetcher
from broker.interfaces import RevocationJournal
from broker.issuers import FetchedClientDocuments, IssuerKeyRing
from broker.model import Revocation
from broker.registry import FileRegistry
from broker.rpc.revocation_feed import RevocationFeed
from broker.rpc.streams import StreamListener, streaming
from broker.state.memory import MemoryState
from broker.v1.revocation_service_pb2 import WatchRevocationsRequest, WatchRevocationsResponse
from broker.v1.revocation_service_pb2_grpc import RevocationServiceStub
from tests.fakes import RecordingAuditLog
from tests.harness import ReplaceableRegistry
from tests.rpc.calling import Refusal, refusal_of
from tests.world import ISS, NOW, WEB_SECRET, Cast

METHOD = "/broker.v1.RevocationService/WatchRevocations"
PATIENCE = 60.0

Metadata = tuple[tuple[str, str | bytes], ...]


def by_basic(client_id: str = "web-s", secret: str = WEB_SECRET) -> Metadata:
    """The metadata that authenticates a client by its secret."""
    pair = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
    return (("authorization", f"Basic {pair}"),)


class FailingJournal:
    """A journal that cannot tell while ``failure`` is set; ``failed`` counts how often it was asked then."""

    def __init__(self, inner: RevocationJournal) -> None:
        self.inner = inner
        self.failure: Exception | None = None
        self.failed = 0

    def revocations_after(self, number: int, *, most: int) -> Sequence[Revocation]:
        if self.failure is not None:
            self.failed += 1
            raise self.failure
        return self.inner.revocations_after(number, most=most)


def _registry(cast: Cast) -> FileRegistry:
    return FileRegistry(cast.clients, cast.resources, cast.issuers)


@dataclass
class Streaming:
    """A server of streams that runs, and all that it depends on."""

    limits: StreamLimits = field(default_factory=StreamLimits)
    cast: Cast = field(default_factory=Cast)
    listener: StreamListener = field(default_factory=lambda: StreamListener("127.0.0.1:0"))
    port: int = 0
    quotas: Limits = field(default_factory=no_limits)

    def __post_init__(self) -> None:
        self.state = MemoryState(now=lambda: NOW)
        self.journal = FailingJournal(self.state)
        self.audit = RecordingAuditLog()
        self.registry = ReplaceableRegistry(_registry(self.cast))
        self.places = StreamPlaces(self.limits)
        self.fetcher = GuardedFetcher()
        self.key_ring = IssuerKeyRing(self.fetcher)
        parts = CallerParts(
            registry=self.registry,
            key_ring=self.key_ring,
            client_documents=FetchedClientDocuments(self.fetcher),
            replay=self.state,
            audit=self.audit,
            now=lambda: NOW,
            most_chosen_secrets=lambda: 0,
            limits=self.quotas,
        )
        endpoint = assemble_watch(ISS, parts, leeway=timedelta(seconds=30))
        self.endpoint = replace(endpoint, places=self.places)

    def reload(self, cast: Cast) -> None:
        """Put another cast in force."""
        self.registry.content = _registry(cast)

    def places_taken(self) -> int:
        """How many streams there are."""
        return self.places._taken.total()

    @contextmanager
    def running(self) -> Iterator["Streaming"]:
        """Serve, in an event loop on a thread, until the end of the block."""
        started: queue.SimpleQueue[int | BaseException] = queue.SimpleQueue()
        over = threading.Event()
        thread = threading.Thread(target=asyncio.run, args=(self._serve(started, over),))
        thread.start()
        try:
            port = started.get(timeout=PATIENCE)
            if isinstance(port, BaseException):
                raise port
            self.port = port
            yield self
        finally:
            over.set()
            thread.join(PATIENCE)
            self.key_ring.close()
            assert not thread.is_alive()

    async def _serve(self, started: "queue.SimpleQueue[Any]", over: threading.Event) -> None:
        feed = RevocationFeed(self.journal, wall=lambda: float(NOW))
        feed.begin()
        try:
            async with streaming(self.endpoint, feed, self.listener) as port:
                started.put(port)
                await asyncio.to_thread(over.wait)
        except BaseException as failure:
            started.put(failure)
            raise

    @contextmanager
    def listening(
        self,
        request: WatchRevocationsRequest | None = None,
        *,
        metadata: Metadata | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> Iterator["Listener"]:
        """A listener with a connection of its own; it is ``web-s`` by its secret if nothing else is told."""
        if metadata is None:
            metadata = by_basic() if request is None else ()
        target, options = f"127.0.0.1:{self.port}", [("grpc.use_local_subchannel_pool", 1)]
        channel = (
            grpc.insecure_channel(target, options=options)
            if credentials is None
            else grpc.secure_channel(target, credentials, options=options)
        )
        with channel:
            listener = Listener(channel, request or WatchRevocationsRequest(), metadata)
            yield listener
            listener.leave()

    def refused(
        self, request: WatchRevocationsRequest | None = None, *, metadata: Metadata | None = None
    ) -> Refusal:
        """How somebody is refused who asks for a stream."""
        with self.listening(request, metadata=metadata) as listener:
            return listener.end()


class Listener:
    """Somebody who listens, on a thread of its own."""

    def __init__(
        self, channel: grpc.Channel, request: WatchRevocationsRequest, metadata: Metadata
    ) -> None:
        self._heard: queue.SimpleQueue[WatchRevocationsResponse | grpc.RpcError | None] = (
            queue.SimpleQueue()
        )
        self.asked_at = time.monotonic()
        self.call: Any = RevocationServiceStub(channel).WatchRevocations(
            request, metadata=metadata, timeout=5 * PATIENCE
        )
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        try:
            for part in self.call:
                self._heard.put(part)
        except grpc.RpcError as error:
            self._heard.put(error)
        else:
            self._heard.put(None)

    def next(self, seconds: float = PATIENCE) -> WatchRevocationsResponse:
        """The next part that is told."""
        heard = self._heard.get(timeout=seconds)
        assert isinstance(heard, WatchRevocationsResponse), heard
        return heard

    def is_silent_for(self, seconds: float) -> bool:
        """Whether nothing more is told, and the stream goes on."""
        with suppress(queue.Empty):
            self._heard.get(timeout=seconds)
            return False
        return True

    def until_told(self, key: bytes) -> None:
        """Listen until something is told to be withdrawn."""
        while all(one.key != key for one in self.next().revocations):
            pass

    def end(self) -> Refusal:
        """How the stream ends; parts before that are passed over."""
        while isinstance(heard := self._heard.get(timeout=PATIENCE), WatchRevocationsResponse):
            pass
        assert heard is not None, "it ended in order"
        return refusal_of(heard)

    def ends_in_order(self) -> bool:
        """Whether the stream ends without a fault; parts before that are passed over."""
        while isinstance(heard := self._heard.get(timeout=PATIENCE), WatchRevocationsResponse):
            pass
        return heard is None

    def leave(self) -> None:
        """Listen no more."""
        self.call.cancel()
        self._thread.join(PATIENCE)


def until(is_so: Callable[[], bool]) -> None:
    """Wait for something to come about; fails the test when it does not."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
