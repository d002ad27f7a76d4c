"""A view of what is withdrawn, pushed by the broker, for verifiers that ask nobody about a token."""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, cast

import grpc
import grpc.aio

from broker.client._grpc import authenticated, channel_credentials, failure_of, metadata_of
from broker.client._revoked import Stream, keys_of
from broker.client.credentials import Credential, Presented
from broker.client.failures import BrokerError, CredentialUnusable, Unavailable
from broker.client.refusals import Unverifiable
from broker.errors import Reason
from broker.v1.revocation_service_pb2 import WatchRevocationsRequest
from broker.v1.revocation_service_pb2_grpc import RevocationServiceStub

__all__ = ["RevocationView", "StaleView", "SyncRevocationView"]

_LEAST_AGE: Final = 3.0
_CONNECT_SECONDS: Final = 5.0
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0
# Who is refused once will be refused again, until an operator changes something.
_PAUSE_WHEN_REFUSED: Final = 15.0
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 1024 * 1024),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    # Each attempt has a connection of its own, which waits for nothing that happened before.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class StaleView(Unverifiable):
    """What is known of withdrawn tokens is older than the bound, so no token can be accepted now."""


@dataclass(frozen=True, slots=True)
class _Known:
    """
    What is known, complete up to a moment of the monotonic clock in seconds.

    ``told_at`` is the moment of the wall clock at which that was heard.
    """

    stream: Stream
    complete_at: float
    told_at: float


class _View:
    """What both views are: the last that was told, and how old it is."""

    def __init__(
        self,
        issuer: str,
        credential: Credential,
        streams: str,
        *,
        ca_file: str | None = None,
        max_age: float = 10.0,
        mcp_claim: str | None = None,
        capacity: int = 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if max_age < _LEAST_AGE:
            raise ValueError(f"The broker is heard once a second: {_LEAST_AGE:g} s is the least.")
        self.issuer = issuer
        self.max_age = max_age
        self._credential = credential
        self._target = streams
        self._channel_credentials = channel_credentials(streams, ca_file)
        self._mcp_claim = mcp_claim or f"{issuer}/claims/mcp"
        self._capacity = capacity
        self._monotonic = monotonic
        self._wall = wall
        self._known: _Known | None = None
        self._failure = "The stream was not opened yet."
        self._failures = 0

    @property
    def age(self) -> float:
        """
        How many seconds ago, at most, what is known was complete.

        It is told by whichever clock says more: the monotonic one may stand still while the machine sleeps,
        and the other may be set.
        """
        known = self._known
        if known is None:
            return float("inf")
        return max(self._monotonic() - known.complete_at, self._wall() - known.told_at)

    def refuses(self, claims: Mapping[str, Any]) -> bool:
        """
        Whether a token of the broker with these verified claims is withdrawn, or made of one that is.

        Raises ``StaleView`` when what is known is older than ``max_age``. It may be called from any thread.
        """
        known = self._known
        if known is None or self.age > self.max_age:
            raise self._stale()
        try:
            keys = keys_of(claims, issuer=self.issuer, mcp_claim=self._mcp_claim)
            return known.stream.ends(keys, issued_at=int(claims["iat"]))
        except (AttributeError, KeyError, TypeError, ValueError):
            # Not even what it derives from can be told.
            return True

    def _stale(self) -> StaleView:
        return StaleView(Reason.REVOCATION_UNAVAILABLE.sentence, detail=self._failure)

    def _begin(self) -> Stream:
        return Stream(
            asked_at=self._monotonic(), longest_lag=self.max_age / 2, capacity=self._capacity
        )

    def _take(self, stream: Stream, part: Any) -> bool:
        """Take in what a stream tells; whether everything is known with it."""
        complete_at = stream.take(part, now=self._monotonic())
        if complete_at is None:
            return False
        self._known = _Known(stream, complete_at, self._wall())
        return True

    def _pause_after(self, failure: Exception | None, *, was_told: bool) -> float:
        """How many seconds to wait before the next attempt, since the last ended so."""
        self._failure = "The stream ended." if failure is None else _sentence(failure)
        self._failures = 0 if was_told else self._failures + 1
        pause = min(_FIRST_PAUSE * 2.0 ** min(self._failures, 16), _LONGEST_PAUSE)
        if isinstance(failure, BrokerError) and not failure.is_retryable:
            pause = _PAUSE_WHEN_REFUSED
        # Those who lost the broker together should not come back together.
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 - nothing secret depends on it.


class RevocationView(_View):
    """
    Everything withdrawn, as the broker pushes it to a running event loop.

    ``issuer`` is the broker's, ``streams`` is its ``host:port`` for streams, and ``credential`` any
    client's. ``ca_file`` names the authorities to believe, if not the system's; without TLS only a broker
    on this machine is spoken to. A stream that ends, lags or falls silent is opened anew. ``max_age`` is in
    seconds. ``mcp_claim`` is as for the verifier.
    """

    _task: "asyncio.Task[None] | None" = None

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _raised: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def start(self) -> None:
        """Begin to listen, in the event loop that runs."""
        if self._task is None:
            self._first = asyncio.Event()
            self._task = asyncio.create_task(self._hold())

    async def caught_up(self, within: float = 10.0) -> None:
        """Return once everything is known for the first time; raises ``StaleView`` after ``within`` seconds."""
        self.start()
        try:
            async with asyncio.timeout(within):
                await self._first.wait()
        except TimeoutError:
            raise self._stale() from None

    async def aclose(self) -> None:
        """Stop listening; soon everything is refused."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _hold(self) -> None:
        while True:
            before, failure = self._known, None
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001 - Whatever it was, the next attempt may do.
                failure = error
            was_told = self._known is not before
            await asyncio.sleep(self._pause_after(failure, was_told=was_told))

    async def _listen(self) -> None:
        """Take in one stream until it ends; raises for whatever else ends it."""
        # Keys come from files or from Vault, which the event loop should not wait for.
        presented = await asyncio.to_thread(self._credential.present, self.issuer)
        async with self._open() as channel:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await channel.channel_ready()
            stream = self._begin()
            call = RevocationServiceStub(channel).WatchRevocations(
                _request(presented), metadata=metadata_of(presented)
            )
            while True:
                async with asyncio.timeout(self.max_age / 2):
                    part = await call.read()
                if part is grpc.aio.EOF:
                    return
                if self._take(stream, part):
                    self._first.set()

    def _open(self) -> grpc.aio.Channel:
        if self._channel_credentials is None:
            return grpc.aio.insecure_channel(self._target, options=_OPTIONS)
        return grpc.aio.secure_channel(self._target, self._channel_credentials, options=_OPTIONS)


class SyncRevocationView(_View):
    """The same for code that blocks; it listens on threads of its own."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._first = threading.Event()
        self._closed = threading.Event()
        self._heard_at = self._monotonic()
        self._call: grpc.Call | None = None
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _raised: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()
