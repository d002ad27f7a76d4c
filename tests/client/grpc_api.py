"""A gRPC service that tells what it was sent, with methods of all four kinds; its messages are bytes."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import grpc.aio

from broker.client import NoSubjectToken
from broker.client.current import subject_token

SERVICE: Final = "test.Echo"
KINDS: Final = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


@dataclass
class GrpcApi:
    """
    What reached the service: the ``Authorization`` values of each call.

    ``refusals`` are still to come; ``while_asked`` is done before a call is answered.
    """

    port: int = 0
    asked: list[list[str]] = field(default_factory=list)
    refusals: list[grpc.StatusCode] = field(default_factory=list)
    while_asked: Callable[[grpc.ServicerContext], None] = lambda _context: None

    @property
    def target(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def note(self, context: grpc.ServicerContext) -> None:
        """Remember a call, and refuse it if that is planned."""
        values = [str(v) for k, v in context.invocation_metadata() if k == "authorization"]
        self.asked.append(values)
        self.while_asked(context)
        if self.refusals:
            context.abort(self.refusals.pop(0), "No.")


def current_or_nothing() -> bytes:
    """The current token as an answer."""
    try:
        return subject_token().encode()
    except NoSubjectToken:
        return b""


@contextmanager
def grpc_api(
    credentials: grpc.ServerCredentials | None = None,
    interceptors: Sequence[grpc.ServerInterceptor] = (),
) -> Iterator[GrpcApi]:
    """The service on a server with threads, until the end of the block."""
    api = GrpcApi()
    server = grpc.server(ThreadPoolExecutor(max_workers=8), interceptors=list(interceptors))
    server.add_generic_rpc_handlers((_handlers(api),))
    api.port = (
        server.add_insecure_port("127.0.0.1:0")
        if credentials is None
        else server.add_secure_port("127.0.0.1:0", credentials)
    )
    server.start()
    try:
        yield api
    finally:
        server.stop(0).wait()


def _handlers(api: GrpcApi) -> grpc.GenericRpcHandler:
    def unary(_request: Any, context: grpc.ServicerContext) -> bytes:
        api.note(context)
        return current_or_nothing()

    def stream(_request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
        api.note(context)
        yield current_or_nothing()

    behaviours = {"unary": unary, "stream": stream}
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            kind: getattr(grpc, f"{kind}_rpc_method_handler")(behaviours[kind.partition("_")[2]])
            for kind in KINDS
        },
    )


def aio_handlers() -> grpc.GenericRpcHandler:
    """The same methods for a ``grpc.aio`` server."""

    async def unary(_request: Any, _context: Any) -> bytes:
        return current_or_nothing()

    async def stream(_request: Any, _context: Any) -> AsyncIterator[bytes]:
        yield current_or_nothing()

    behaviours: dict[str, Any] = {"unary": unary, "stream": stream}
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            kind: getattr(grpc, f"{kind}_rpc_method_handler")(behaviours[kind.partition("_")[2]])
            for kind in KINDS
        },
    )


async def call(channel: grpc.aio.Channel, kind: str, **options: Any) -> bytes:
    """Call a method of this kind and return what it says."""

    async def requests() -> AsyncIterator[bytes]:
        yield b""

    method = getattr(channel, kind)(f"/{SERVICE}/{kind}")
    made = method(requests() if kind.startswith("stream") else b"", timeout=10, **options)
    if kind.endswith("unary"):
        return bytes(await made)
    return b"".join([bytes(one) async for one in made])


def call_blocking(channel: grpc.Channel, kind: str, **options: Any) -> bytes:
    """The same from code that blocks."""
    method = getattr(channel, kind)(f"/{SERVICE}/{kind}")
    made = method(iter([b""]) if kind.startswith("stream") else b"", timeout=10, **options)
    return bytes(made) if kind.endswith("unary") else b"".join(made)
