"""A view of what is withdrawn, pushed by the broker, for verifiers that ask nobody about a token."""

import asyncio
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self, cast

import grpc
import grpc.aio

from broker.client._addresses import DIRECT
from broker.client._grpc import authenticated, channel_credentials, failure_of, metadata_of
from broker.client._view import StaleView, View
from broker.client.credentials import Presented
from broker.client.failures import BrokerError, CredentialUnusable, Unavailable
from broker.v1.revocation_service_pb2 import WatchRevocationsRequest
from broker.v1.revocation_service_pb2_grpc import RevocationServiceStub

__all__ = ["RevocationView", "StaleView", "SyncRevocationView"]

_CONNECT_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.5
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 1024 * 1024),
    ("grpc.enable_retries", 0),
    *DIRECT,
    # Each attempt has a connection of its own, which waits for nothing that happened before.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_ENDED: Final = "The stream ended."
_SILENT: Final = "The broker is silent."


class RevocationView(View):
    """The view of a program that runs an event loop."""

    _task: "asyncio.Task[None] | None" = None
    _first: asyncio.Event

    def start(self) -> None:
        """Begin to listen, in the event loop that runs."""
        if self._task is None:
            self._first = asyncio.Event()
            self._task = asyncio.create_task(self._hold())

    async def caught_up(self, within: float = 10.0) -> None:
        """
        Begin to listen, and return once everything is known for the first time.

        Raises ``StaleView`` when that is not so ``within`` seconds; listening goes on.
        """
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

    async def _hold(self) -> None:
        while True:
            before = self._known
            try:
                await self._listen()
                failure: BrokerError = Unavailable(_ENDED)
            except Exception as error:  # noqa: BLE001 - whatever it was, the next attempt may do.
                failure = _failure(error)
            await asyncio.sleep(self._pause_after(failure, was_told=self._known is not before))

    async def _listen(self) -> None:
        """Take in one stream until it ends; raises for whatever else becomes of it."""
        # Keys come from files or from Vault, which the event loop should not wait for.
        presented = await asyncio.to_thread(self.credential.present, self.issuer)
        async with self._open() as channel:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await channel.channel_ready()
            stream = self._begin()
            call = RevocationServiceStub(channel).WatchRevocations(
                _request(presented), metadata=metadata_of(presented)
            )
            while True:
                async with asyncio.timeout(self._patience):
                    part = await call.read()
                if part is grpc.aio.EOF:
                    return
                self._take(stream, part)
                if self._known is not None:
                    self._first.set()

    def _open(self) -> grpc.aio.Channel:
        credentials = channel_credentials(self.streams, self.ca_file)
        if credentials is None:
            return grpc.aio.insecure_channel(self.streams, options=_OPTIONS)
        return grpc.aio.secure_channel(self.streams, credentials, options=_OPTIONS)


class SyncRevocationView(View):
    """The view of a program that blocks. One thread listens, another ends streams that have fallen silent."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._first = threading.Event()
        self._closed = threading.Event()
        self._pending: Any = None
        self._heard_at = 0.0
        self._threads: tuple[threading.Thread, ...] = ()

    def start(self) -> None:
        """Begin to listen."""
        if not self._threads:
            self._threads = tuple(
                threading.Thread(target=run, name="revocations", daemon=True)
                for run in (self._hold, self._watch)
            )
            for thread in self._threads:
                thread.start()

    def caught_up(self, within: float = 10.0) -> None:
        """
        Begin to listen, and return once everything is known for the first time.

        Raises ``StaleView`` when that is not so ``within`` seconds; listening goes on.
        """
        self.start()
        if not self._first.wait(within):
            raise self._stale()

    def close(self) -> None:
        """Stop listening for good; soon everything is refused."""
        self._closed.set()
        self._give_up()
        for thread in self._threads:
            thread.join(_CONNECT_SECONDS)

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

    def _hold(self) -> None:
        pause = 0.0
        while not self._closed.wait(pause):
            before = self._known
            try:
                self._listen()
                failure: BrokerError = Unavailable(_ENDED)
            except Exception as error:  # noqa: BLE001 - whatever it was, the next attempt may do.
                failure = _failure(error)
            pause = self._pause_after(failure, was_told=self._known is not before)

    def _listen(self) -> None:
        presented = self.credential.present(self.issuer)
        with self._open() as channel:
            ready = grpc.channel_ready_future(channel)
            self._wait_for(ready)
            ready.result(_CONNECT_SECONDS)
            stream = self._begin()
            call = RevocationServiceStub(channel).WatchRevocations(
                _request(presented), metadata=metadata_of(presented)
            )
            self._wait_for(call)
            for part in call:
                self._heard_at = self.monotonic()
                self._take(stream, part)
                if self._known is not None:
                    self._first.set()

    def _wait_for(self, pending: Any) -> None:
        """Let what is waited for be given up by others."""
        self._heard_at = self.monotonic()
        self._pending = pending
        # Whoever closes the view says so first, and then gives up what he finds.
        if self._closed.is_set():
            pending.cancel()

    def _watch(self) -> None:
        """Give up a stream that has fallen silent: whoever waits for its next part cannot."""
        while not self._closed.wait(_LOOK_SECONDS):
            if self.monotonic() - self._heard_at > self._patience:
                self._give_up()

    def _give_up(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()

    def _open(self) -> grpc.Channel:
        credentials = channel_credentials(self.streams, self.ca_file)
        if credentials is None:
            return grpc.insecure_channel(self.streams, options=_OPTIONS)
        return grpc.secure_channel(self.streams, credentials, options=_OPTIONS)


def _request(presented: Presented) -> WatchRevocationsRequest:
    if presented.grant is not None:
        raise CredentialUnusable("This workload's token is good for a token of its own alone.")
    request: WatchRevocationsRequest = authenticated(WatchRevocationsRequest(), presented)
    return request


def _failure(error: Exception) -> BrokerError:
    """Why there is no stream, whatever it was that said so."""
    if isinstance(error, BrokerError):
        return error
    if isinstance(error, grpc.RpcError):
        call = cast(grpc.Call, error)
        return failure_of(call.code(), call.details(), call.trailing_metadata())
    if isinstance(error, TimeoutError | grpc.FutureTimeoutError):
        return Unavailable(_SILENT)
    return Unavailable(f"There is no stream: {type(error).__name__}.")
