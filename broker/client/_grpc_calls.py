"""Interceptors that give calls of gRPC their tokens."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio

from broker.client._bearing import Bearing, Wanted
from broker.client.broker import Broker

AUTHORIZATION: Final = "authorization"
WATCH: Final = "broker.client: until a call ends"
_UNAUTHENTICATED: Final = 401

_REFUSED: Final = frozenset({grpc.StatusCode.UNAUTHENTICATED})
# When a call ends while its stream of requests is still being sent, that is all that is told at first.
_PERHAPS_REFUSED: Final = _REFUSED | {grpc.StatusCode.INTERNAL}


class Calls:
    """Gives calls their tokens, and forgets those that were not accepted."""

    def __init__(self, broker: Broker, wanted: Wanted, attach: Callable[[Any, str], Any]) -> None:
        self._broker = broker
        self._wanted = wanted
        self._attach = attach
        self._watches: set[asyncio.Task[None]] = set()

    async def call(self, call: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """A call that can be made once more with a new token, if its first is refused."""
        bearing = self._wanted.begin()
        while True:
            made = await call(await self._with_token(bearing, details))
            try:
                code = await made.code()
            except asyncio.CancelledError:
                # Whoever gives up waiting gives up the call, as without an interceptor.
                made.cancel()
                raise
            if code not in _REFUSED or not self._may_try_again(bearing):
                return made

    async def call_once(self, call: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """A call that cannot, since it sends or receives a stream; a token that is refused is forgotten."""
        bearing = self._wanted.begin()
        borne = await self._with_token(bearing, details)
        try:
            made = await call(borne)
        except grpc.aio.AioRpcError as failure:
            # It has ended even before there was anything to be read from it.
            self._ended(failure.code(), bearing)
            raise
        watch = asyncio.create_task(self._watch(made, bearing), name=WATCH)
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)
        return made

    async def _with_token(self, bearing: Bearing, details: Any) -> Any:
        return self._attach(details, await bearing.token(self._broker))

    async def _watch(self, made: Any, bearing: Bearing) -> None:
        self._ended(await made.code(), bearing)

    def _ended(self, code: grpc.StatusCode, bearing: Bearing) -> None:
        if code in _PERHAPS_REFUSED:
            self._may_try_again(bearing)

    def _may_try_again(self, bearing: Bearing) -> bool:
        return bearing.may_try_again(self._broker, status=_UNAUTHENTICATED, challenges=())


class _Interceptor:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls


class _UnaryUnary(_Interceptor, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return await self._calls.call(
            lambda details: continuation(details, request), client_call_details
        )


class _UnaryStream(_Interceptor, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return await self._calls.call_once(
            lambda details: continuation(details, request), client_call_details
        )


class _StreamUnary(_Interceptor, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await self._calls.call_once(
            lambda details: continuation(details, request_iterator), client_call_details
        )


class _StreamStream(_Interceptor, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await self._calls.call_once(
            lambda details: continuation(details, request_iterator), client_call_details
        )


def interceptors_for(calls: Calls) -> list[grpc.aio.ClientInterceptor]:
    """All the interceptors of a channel."""
    # gRPC takes an interceptor for one kind of call alone, whatever others it could serve.
    kinds = (_UnaryUnary, _UnaryStream, _StreamUnary, _StreamStream)
    return [kind(calls) for kind in kinds]


def without_token(metadata: Any) -> grpc.aio.Metadata:
    """The metadata of a call, less any token that it was to carry: there is one, and it is ours."""
    kept = [(name, value) for name, value in metadata or () if name.lower() != AUTHORIZATION]
    return grpc.aio.Metadata(*kept)
