"""The standard health service, with the same bounds on its callers as every other."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1.health import OVERALL_HEALTH, SERVICE_NAME, HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from broker.rpc.reading import MessageReads

__all__ = ["SERVICE_NAME", "Health"]

_MOST_WATCHERS: Final = 64

_Send = Callable[[HealthCheckResponse | None], None]


class Health:
    """
    Says whether this process takes requests (``grpc.health.v1``), and says nothing else.

    It holds for all ``services`` alike, and for the server as a whole.
    """

    def __init__(self, services: Iterable[str], reads: MessageReads) -> None:
        self._names = (OVERALL_HEALTH, *services)
        self._servicer = HealthServicer(experimental_non_blocking=True)
        self._reads = reads
        self._watchers = threading.BoundedSemaphore(_MOST_WATCHERS)
        self.set_serving(is_serving=False)

    def set_serving(self, *, is_serving: bool) -> None:
        """Tell all who ask or watch from now on."""
        status = HealthCheckResponse.SERVING if is_serving else HealthCheckResponse.NOT_SERVING
        for name in self._names:
            self._servicer.set(name, status)

    def register(self, server: grpc.Server) -> None:
        """Serve ``Check`` and ``Watch``."""
        watch = _NonBlocking(self._watch)
        server.add_registered_method_handlers(
            SERVICE_NAME,
            {
                "Check": grpc.stream_unary_rpc_method_handler(
                    self._check, None, HealthCheckResponse.SerializeToString
                ),
                "Watch": grpc.stream_stream_rpc_method_handler(
                    watch, None, HealthCheckResponse.SerializeToString
                ),
            },
        )

    def _check(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        return self._servicer.Check(self._request(messages, context), context)

    def _watch(self, messages: Iterator[bytes], context: grpc.ServicerContext, send: _Send) -> None:
        request = self._request(messages, context)
        if not self._watchers.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many watch already.")
        if not context.add_callback(self._watchers.release):
            self._watchers.release()
            return
        self._servicer.Watch(request, context, send)

    def _request(
        self, messages: Iterator[bytes], context: grpc.ServicerContext
    ) -> HealthCheckRequest:
        try:
            return HealthCheckRequest.FromString(self._reads.first(messages, context) or b"")
        except (DecodeError, UnicodeDecodeError):
            return context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The message cannot be read.")


class _NonBlocking:
    """Marks a streaming method that sends from where its news come from and leaves its thread at once."""

    experimental_non_blocking = True

    def __init__(
        self, behaviour: Callable[[Iterator[bytes], grpc.ServicerContext, _Send], None]
    ) -> None:
        self._behaviour = behaviour

    def __call__(
        self, messages: Iterator[bytes], context: grpc.ServicerContext, send: _Send
    ) -> None:
        self._behaviour(messages, context, send)
