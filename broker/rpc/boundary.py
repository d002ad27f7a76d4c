"""What stands between gRPC and every servicer: limits on the way in, one error boundary on the way out."""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic

import grpc
import structlog
from google.protobuf.message import Message

from broker.endpoints.limits import Limits, source_of
from broker.endpoints.overload import Places
from broker.errors import OAuthError, Reason, ServerError
from broker.model import RequestContext, new_request_id
from broker.rpc.call import Call, CallMetadata, M, peer_address
from broker.rpc.reading import MessageReads
from broker.rpc.status import decision_metadata, refuse

_QUEUE_SECONDS: Final = 2.0

_log = structlog.get_logger("broker.rpc")


@dataclass(frozen=True, slots=True)
class Rpc(Generic[M]):
    """
    One method of a service: how its message is parsed, and who answers it.

    One that ``is_open`` tells everybody the same, so its callers prove nothing and enter as they like.
    """

    parse: Callable[[bytes], M]
    answer: Callable[[Call[M]], Message]
    is_open: bool = False


@dataclass(frozen=True, slots=True)
class CallLimits:
    """
    What the face grants its callers.

    ``threads`` calls are in the core at once; ``max_concurrent`` have been read and wait or are there,
    and more are refused. ``timeout`` is the longest deadline of a call, and the one of a call without;
    its message must come within ``read_timeout``.
    """

    threads: int = 16
    max_concurrent: int = 64
    max_message_bytes: int = 65_536
    timeout: timedelta = timedelta(seconds=30)
    read_timeout: timedelta = timedelta(seconds=5)


class Boundary:
    """
    Registers methods so that none can forget the boundary: a servicer never touches gRPC itself.

    It sees messages with their deadline and credential, and raises ``OAuthError``. Everything else it
    may raise ends here, because gRPC would send the text of an exception to the caller. What a DPoP
    proof must be for is a method's name under ``proof_origin``.
    """

    def __init__(
        self, reads: MessageReads, limits: CallLimits, door: Limits, *, proof_origin: str
    ) -> None:
        self._reads = reads
        self._door = door
        self._proof_origin = proof_origin
        self._limits = limits
        self._longest = limits.timeout.total_seconds()
        self._read = Places(limits.max_concurrent, patience=0, waiting=0)
        self._working = Places(limits.threads, patience=_QUEUE_SECONDS)

    def register(self, server: grpc.Server, service: str, rpcs: Mapping[str, Rpc[Any]]) -> None:
        """Serve ``rpcs``, by their names, as the methods of ``service``."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            # One message is all that is ever taken, so on the wire this is an ordinary unary method;
            # but our code runs before the message is there and can bound the wait for it. gRPC hands
            # the message over unparsed.
            name: grpc.stream_unary_rpc_method_handler(self._behaviour(f"{service}/{name}", rpc))
            for name, rpc in rpcs.items()
        }
        server.add_registered_method_handlers(service, handlers)

    def _behaviour(
        self, method: str, rpc: Rpc[Any]
    ) -> Callable[[Iterator[bytes], grpc.ServicerContext], bytes]:
        def behave(messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            try:
                # What is to be turned away is so before its message is waited for.
                self._working.check()
                if not rpc.is_open:
                    self._check_source(context)
            except OAuthError as error:
                return self._refuse(context, error, "")
            request_id = new_request_id()
            # A caller that goes away, or is given up in here, ends the call: nobody is to be answered.
            data = self._reads.first(messages, context)
            try:
                answer = self._answer(rpc, data, context, method=method, request_id=request_id)
            except OAuthError as error:
                return self._refuse(context, error, request_id)
            except NotImplementedError:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "This method is not served here.")
            except _CallerGone:
                context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, Reason.DEADLINE_EXCEEDED.sentence)
            except Exception as error:  # noqa: BLE001 - The caller learns nothing of what it is.
                log_failure(error, request_id, method=method)
                return refuse(context, ServerError(Reason.INTERNAL_ERROR), request_id=request_id)
            context.set_trailing_metadata(decision_metadata(request_id))
            return answer

        return behave

    def _check_source(self, context: grpc.ServicerContext) -> None:
        source = source_of(peer_address(context.peer()))
        self._door.enter(RequestContext("grpc", "", source=source))

    def _refuse(self, context: grpc.ServicerContext, error: OAuthError, request_id: str) -> bytes:
        if error.is_recorded:
            return refuse(context, error, request_id=request_id)
        self._door.count("grpc", error)
        return refuse(context, error)

    def _answer(
        self,
        rpc: Rpc[Any],
        data: bytes | None,
        context: grpc.ServicerContext,
        *,
        method: str,
        request_id: str,
    ) -> bytes:
        # A call that failed while its message came has no peer any more. Only a caller that is still
        # there has ended it without a message.
        if data is None and not context.peer():
            raise _CallerGone
        deadline = time.monotonic() + min(context.time_remaining(), self._longest)
        peer = peer_address(context.peer())
        circumstances = RequestContext("grpc", request_id, peer, deadline, source_of(peer))
        if not rpc.is_open:
            self._door.enter(circumstances)
        with self._read, self._working:
            if time.monotonic() >= deadline or not context.is_active():
                raise _CallerGone
            call = Call(
                circumstances,
                CallMetadata.read(
                    context.invocation_metadata(), proof_target=f"{self._proof_origin}/{method}"
                ),
                data,
                rpc.parse,
                self._limits.max_message_bytes,
            )
            return rpc.answer(call).SerializeToString()


class _CallerGone(Exception):
    """Nobody waits for the answer any more, so no work was begun."""


def log_failure(error: Exception, request_id: str, *, method: str) -> None:
    """Log where it went wrong, but not the message, which may hold anything."""
    places = [f"{one.filename}:{one.lineno}" for one in traceback.extract_tb(error.__traceback__)]
    _log.error(
        "call_failed",
        request_id=request_id,
        method=method,
        kind=type(error).__name__,
        places=places[-8:],
    )
