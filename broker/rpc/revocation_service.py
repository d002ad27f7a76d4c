"""The revocation service: a client is admitted, and told what is withdrawn for as long as it listens."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import grpc
import grpc.aio
import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from broker.endpoints.limits import source_of
from broker.endpoints.overload import Overloaded
from broker.endpoints.watching import WatchEndpoint, Watcher
from broker.errors import OAuthError, Reason, ServerError
from broker.model import ClientCredential, RequestContext, Revocation, new_request_id
from broker.rpc.boundary import log_failure
from broker.rpc.call import Call, CallMetadata, peer_address
from broker.rpc.revocation_feed import Moment, RevocationFeed
from broker.rpc.status import decision_metadata, refusal_of
from broker.rpc.token_service import check_sizes, read_credential
from broker.rpc.unheard import NotHeard, Unheard
from broker.v1 import revocation_service_pb2
from broker.v1.revocation_service_pb2 import WatchRevocationsRequest, WatchRevocationsResponse

SERVICE: Final[str] = revocation_service_pb2.DESCRIPTOR.services_by_name[
    "RevocationService"
].full_name
METHOD: Final = "WatchRevocations"

_ADMISSION_SECONDS: Final = 10.0
_MOST_WAITING: Final = 64
_PART: Final = 500
"""How many revocations one message holds at most: some 30 KiB."""

_log = structlog.get_logger("broker.rpc")

_Context = grpc.aio.ServicerContext[Any, Any]
_Admission = Future[Watcher]


class ListenerTooSlow(Exception):
    """What was sent to a listener was not taken in time."""


class RevocationService:
    """
    Answers for ``broker.v1.RevocationService``, in the event loop that ``feed`` lives in.

    Admission blocks, so it happens on ``threads``. A listener that takes nothing for ``write_timeout`` is
    cut off; nothing is kept for it meanwhile, since streams read on where they are.
    """

    def __init__(
        self,
        endpoint: WatchEndpoint,
        feed: RevocationFeed,
        *,
        threads: Executor,
        unheard: Unheard,
        max_message_bytes: int,
        write_timeout: timedelta,
    ) -> None:
        self._endpoint = endpoint
        self._feed = feed
        self._threads = threads
        self._unheard = unheard
        self._max_message_bytes = max_message_bytes
        self._write_seconds = write_timeout.total_seconds()
        self._admissions: set[_Admission] = set()

    def handlers(self) -> dict[str, "grpc.RpcMethodHandler[Any, Any]"]:
        """The methods by their names."""
        # One message is all that is taken, but our code runs before it is there and bounds the wait.
        return {METHOD: grpc.stream_stream_rpc_method_handler(self._watch)}

    async def _watch(self, _messages: object, context: _Context) -> None:
        opened_at = time.monotonic()
        request_id = new_request_id()
        async with _boundary(context, request_id):
            data = await self._unheard.message(context)
            watcher = await self._admitted(self._call(data, context, request_id))
            try:
                # What ends a stream must not give its place away before the stream has ended.
                async with _boundary(context, request_id):
                    await context.send_initial_metadata(decision_metadata(request_id))
                    await self._tell(watcher, context, opened_at=opened_at)
            finally:
                self._endpoint.dismiss(watcher)

    def _call(
        self, data: bytes | None, context: _Context, request_id: str
    ) -> Call[WatchRevocationsRequest]:
        deadline = time.monotonic() + _ADMISSION_SECONDS
        peer = peer_address(context.peer())
        return Call(
            RequestContext("grpc", request_id, peer, deadline, source_of(peer)),
            CallMetadata.read(context.invocation_metadata() or ()),
            data,
            WatchRevocationsRequest.FromString,
            self._max_message_bytes,
        )

    async def _admitted(self, call: Call[WatchRevocationsRequest]) -> Watcher:
        """The client behind a call; raises ``OAuthError``. One that goes away meanwhile keeps no place."""
        self._endpoint.limits.enter(call.context)
        if len(self._admissions) >= _MOST_WAITING:
            raise Overloaded

        def read() -> ClientCredential:
            # What is not known now cannot be told; the record says so.
            self._feed.check()
            return _credential(call)

        admission = self._threads.submit(self._endpoint.admit, call.context, read)
        self._admissions.add(admission)
        admission.add_done_callback(self._admissions.discard)
        try:
            return await asyncio.wrap_future(admission)
        except asyncio.CancelledError:
            admission.add_done_callback(self._dismiss)
            raise

    def _dismiss(self, admission: _Admission) -> None:
        if not admission.cancelled() and admission.exception() is None:
            self._endpoint.dismiss(admission.result())

    async def _tell(self, watcher: Watcher, context: _Context, *, opened_at: float) -> None:
        """Tell everything, then what changes, until something changes about the client."""
        edition = number = 0
        while True:
            await self._feed.newer_than(edition)
            if not self._endpoint.is_as_admitted(watcher):
                return
            moment, found = self._feed.looked_at, self._feed.after(number)
            is_all = len(found) <= _PART
            # What takes many messages takes a while, and more may have been withdrawn by its end.
            edition = self._feed.edition if is_all else 0
            for part in _parts(found):
                message = _message(part, moment if is_all else None, opened_at=opened_at)
                await self._write(message, context)
                number = part[-1].number if part else number

    async def _write(self, message: WatchRevocationsResponse, context: _Context) -> None:
        try:
            async with asyncio.timeout(self._write_seconds):
                await context.write(message.SerializeToString())
        except TimeoutError:
            raise ListenerTooSlow from None


@asynccontextmanager
async def _boundary(context: _Context, request_id: str) -> AsyncIterator[None]:
    """
    End the call as whatever goes wrong in the block wants it.

    A status is sent after what was not taken yet: until that is taken, or the connection's time is up,
    the block is not left.
    """
    try:
        yield
    except grpc.aio.AbortError:
        raise
    except OAuthError as error:
        await _refuse(context, error, request_id=request_id if error.is_recorded else None)
    except NotHeard:
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, Reason.DEADLINE_EXCEEDED.sentence)
    except ListenerTooSlow:
        _log.warning("listener_too_slow", request_id=request_id)
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "What was sent was not taken.")
    except Exception as error:  # noqa: BLE001 - The caller learns nothing of what it is.
        log_failure(error, request_id, method=f"{SERVICE}/{METHOD}")
        await _refuse(context, ServerError(Reason.INTERNAL_ERROR), request_id=request_id)


async def _refuse(context: _Context, error: OAuthError, *, request_id: str | None = None) -> None:
    refusal = refusal_of(error, request_id=request_id)
    await context.abort(refusal.code, refusal.message, refusal.trailers)


def _credential(call: Call[WatchRevocationsRequest]) -> ClientCredential:
    credential = read_credential(call.message().client_authentication, call.metadata)
    check_sizes(
        {
            "client_id": credential.client_id,
            "client_secret": credential.client_secret,
            "client_assertion": credential.client_assertion,
            "client_assertion_type": credential.client_assertion_type,
        }
    )
    return credential


def _parts(found: Sequence[Revocation]) -> Iterator[Sequence[Revocation]]:
    """What was found in parts that fit into a message; one empty part when that is nothing."""
    for start in range(0, max(1, len(found)), _PART):
        yield found[start : start + _PART]


def _message(
    part: Sequence[Revocation], moment: Moment | None, *, opened_at: float
) -> WatchRevocationsResponse:
    message = WatchRevocationsResponse(
        revocations=[
            revocation_service_pb2.Revocation(
                key=one.key,
                issued_since=one.issued_since,
                issued_until=one.issued_until,
                kept_until=one.kept_until,
            )
            for one in part
        ]
    )
    if moment is not None:
        whole = math.floor(moment.wall)
        message.as_of.CopyFrom(Timestamp(seconds=whole, nanos=int((moment.wall - whole) * 1e9)))
        message.elapsed_ms = math.floor((moment.monotonic - opened_at) * 1000)
    return message
