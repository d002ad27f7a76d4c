"""The revocation service: a client is admitted, and told what is withdrawn for as long as it listens."""

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from broker.endpoints.overload import Overloaded
from broker.endpoints.watching import WatchEndpoint, Watcher
from broker.model import ClientCredential, Revocation, new_request_id
from broker.rpc.call import Call
from broker.rpc.revocation_feed import Moment, RevocationFeed
from broker.rpc.status import decision_metadata
from broker.rpc.stream_calls import StreamCalls, StreamContext, credential_of, stream_boundary
from broker.v1 import revocation_service_pb2
from broker.v1.revocation_service_pb2 import WatchRevocationsRequest, WatchRevocationsResponse

SERVICE: Final[str] = revocation_service_pb2.DESCRIPTOR.services_by_name[
    "RevocationService"
].full_name
METHOD: Final = "WatchRevocations"

_MOST_WAITING: Final = 64
_PART: Final = 500
"""How many revocations one message holds at most: some 30 KiB."""

_Admission = Future[Watcher]


class RevocationService:
    """
    Answers for ``broker.v1.RevocationService``, in the event loop that ``feed`` lives in.

    Admission blocks, so it happens on ``threads``. A listener that takes nothing for some time is
    cut off; nothing is kept for it meanwhile, since streams read on where they are.
    """

    def __init__(
        self,
        endpoint: WatchEndpoint,
        feed: RevocationFeed,
        *,
        threads: Executor,
        calls: StreamCalls,
    ) -> None:
        self._endpoint = endpoint
        self._feed = feed
        self._threads = threads
        self._calls = calls
        self._admissions: set[_Admission] = set()

    def handlers(self) -> dict[str, "grpc.RpcMethodHandler[Any, Any]"]:
        """The methods by their names."""
        # One message is all that is taken, but our code runs before it is there and bounds the wait.
        return {METHOD: grpc.stream_stream_rpc_method_handler(self._watch)}

    async def _watch(self, _messages: object, context: StreamContext) -> None:
        opened_at = time.monotonic()
        request_id = new_request_id()
        async with stream_boundary(context, request_id, method=f"{SERVICE}/{METHOD}"):
            call = await self._calls.read(context, WatchRevocationsRequest.FromString, request_id)
            watcher = await self._admitted(call)
            try:
                # What ends a stream must not give its place away before the stream has ended.
                async with stream_boundary(context, request_id, method=f"{SERVICE}/{METHOD}"):
                    await context.send_initial_metadata(decision_metadata(request_id))
                    await self._tell(watcher, context, opened_at=opened_at)
            finally:
                self._endpoint.dismiss(watcher)

    async def _admitted(self, call: Call[WatchRevocationsRequest]) -> Watcher:
        """The client behind a call; raises ``OAuthError``. One that goes away meanwhile keeps no place."""
        self._endpoint.limits.enter(call.context)
        if len(self._admissions) >= _MOST_WAITING:
            raise Overloaded

        def read() -> ClientCredential:
            # What is not known now cannot be told; the record says so.
            self._feed.check()
            return credential_of(call.message().client_authentication, call.metadata)

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

    async def _tell(self, watcher: Watcher, context: StreamContext, *, opened_at: float) -> None:
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
                await self._calls.write(context, message.SerializeToString())
                number = part[-1].number if part else number


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
