"""The audit service: questions about the record, for clients that may read it."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from broker.audit.query import (
    CURSOR,
    AuditReader,
    Found,
    PeopleAway,
    Query,
    QueryRefused,
    QueryTooExpensive,
    RecordChanged,
    onward,
)
from broker.audit.seal.integrity import NotSealed
from broker.audit.segments import AuditLogRefused
from broker.endpoints.overload import Overloaded
from broker.endpoints.record_reading import Question, RecordReadingEndpoint
from broker.endpoints.watching import Watcher
from broker.errors import (
    InvalidRequest,
    NotFound,
    NotYet,
    Reason,
    RecordDamaged,
    TemporarilyUnavailable,
)
from broker.model import new_request_id
from broker.rpc.audit_messages import (
    as_many_as_fit,
    event_of,
    nodes_of,
    query_of,
    told_of,
    typed_in,
    untyped,
)
from broker.rpc.call import Call
from broker.rpc.status import decision_metadata
from broker.rpc.stream_calls import StreamCalls, StreamContext, credential_of, stream_boundary
from broker.v1 import audit_service_pb2
from broker.v1.audit_service_pb2 import (
    GetEventRequest,
    GetEventResponse,
    GetLineageRequest,
    GetLineageResponse,
    ListEventsRequest,
    ListEventsResponse,
    ProveEventRequest,
    ProveEventResponse,
    WatchEventsRequest,
    WatchEventsResponse,
)

SERVICE: Final[str] = audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name

_USUAL_PAGE: Final = 50
_LARGEST_PAGE: Final = 200
_MOST_AT_ONCE: Final = 100
_LONGEST_ID: Final = 1024
_MOST_WAITING: Final = 32
_LOOK_EVERY: Final = 1.0
_BEAT_EVERY: Final = 5.0

Prove = Callable[[str, int], str]
"""The proof, as text, of the record of a writer with a number."""

_Read = Callable[[Any, Call[Any]], Question[Any]]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RecordReading:
    """
    Who may read the record, what answers, and what proves a record by its writer and number.

    ``prove`` raises as that of ``Proofs`` does; without it nothing is proved.
    """

    endpoint: RecordReadingEndpoint
    reader: AuditReader
    prove: Prove | None = None


class AuditService:
    """
    Answers for ``broker.v1.AuditService``, in one event loop.

    Reading blocks, so it happens on ``threads``. A stream looks for events every second and reads on where
    it is, so nothing is kept for one that is slow.
    """

    def __init__(
        self,
        reading: RecordReading,
        *,
        threads: Executor,
        calls: StreamCalls,
        look_every: float = _LOOK_EVERY,
        beat_every: float = _BEAT_EVERY,
    ) -> None:
        self._endpoint = reading.endpoint
        self._reader = reading.reader
        self._prover = reading.prove
        self._threads = threads
        self._calls = calls
        self._look_every = look_every
        self._beat_every = beat_every
        self._waiting: set[Future[Any]] = set()

    def handlers(self) -> dict[str, "grpc.RpcMethodHandler[Any, Any]"]:
        """The methods by their names."""
        answering: dict[str, Callable[[object, StreamContext], Awaitable[None]]] = {
            "ListEvents": self._answering("ListEvents", ListEventsRequest, self._list),
            "GetEvent": self._answering("GetEvent", GetEventRequest, self._get),
            "GetLineage": self._answering("GetLineage", GetLineageRequest, self._lineage),
            "ProveEvent": self._answering("ProveEvent", ProveEventRequest, self._prove),
            "WatchEvents": self._watch,
        }
        # On the wire these are the methods of the service; but our code runs before the message is there.
        return {
            name: grpc.stream_stream_rpc_method_handler(answer)
            for name, answer in answering.items()
        }

    def _answering(
        self, name: str, kind: type[Message], read: _Read
    ) -> Callable[[object, StreamContext], Awaitable[None]]:
        async def answer(_messages: object, context: StreamContext) -> None:
            request_id = new_request_id()
            async with stream_boundary(context, request_id, method=f"{SERVICE}/{name}"):
                call = await self._calls.read(context, kind.FromString, request_id)
                told: Message = await self._in_thread(
                    call,
                    lambda: self._endpoint.answer(call.context, lambda: read(call.message(), call)),
                )
                context.set_trailing_metadata(decision_metadata(request_id))
                await self._calls.write(context, told.SerializeToString())

        return answer

    async def _in_thread(self, call: Call[Any], work: Callable[[], _T]) -> _T:
        """Do what blocks. Raises ``OAuthError`` when too much does already."""
        self._endpoint.limits.enter(call.context)
        if len(self._waiting) >= _MOST_WAITING:
            raise Overloaded
        future = self._threads.submit(work)
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return await asyncio.wrap_future(future)

    # What is asked, and how it is answered.

    def _list(
        self, message: ListEventsRequest, call: Call[ListEventsRequest]
    ) -> Question[ListEventsResponse]:
        query, size = query_of(message.filter), message.page_size
        if not 0 <= size <= _LARGEST_PAGE:
            raise InvalidRequest(Reason.QUERY_MALFORMED, parameter="page_size")
        _check_length(message.page_token, "page_token")

        def answer() -> tuple[ListEventsResponse, int]:
            with _reading():
                page = self._reader.find(
                    query, limit=size or _USUAL_PAGE, cursor=message.page_token
                )
            events = as_many_as_fit(page.found)
            is_cut = len(events) < len(page.found)
            told = ListEventsResponse(
                events=events,
                next_page_token=events[-1].cursor if is_cut else page.next_cursor,
                changed=page.changed,
            )
            return told, len(events)

        return _listed("list", query, call, answer)

    def _get(
        self, message: GetEventRequest, call: Call[GetEventRequest]
    ) -> Question[GetEventResponse]:
        key = message.WhichOneof("key") or "event_id"
        wanted = _wanted(getattr(message, key), key)
        find = self._reader.of_token if key == "token" else self._reader.get

        def answer() -> tuple[GetEventResponse, int]:
            with _reading():
                found = find(wanted)
                if found is None:
                    raise NotFound(Reason.EVENT_UNKNOWN, parameter=key)
                parents = self._reader.parents(found)
                children = self._reader.children(found)
            told = GetEventResponse(
                event=event_of(found),
                parent_event_ids=[one.record.event_id for one in parents],
                child_event_ids=[one.record.event_id for one in children],
            )
            return told, 1

        return _typed(f"get {key}", wanted, call, answer)

    def _lineage(
        self, message: GetLineageRequest, call: Call[GetLineageRequest]
    ) -> Question[GetLineageResponse]:
        token = _wanted(message.token, "token")

        def answer() -> tuple[GetLineageResponse, int]:
            with _reading():
                lineage = self._reader.lineage(token)
            nodes, is_cut = nodes_of(lineage)
            return GetLineageResponse(nodes=nodes, is_cut=is_cut), len(nodes)

        return _typed("lineage token", token, call, answer)

    def _prove(
        self, message: ProveEventRequest, call: Call[ProveEventRequest]
    ) -> Question[ProveEventResponse]:
        event_id = _wanted(message.event_id, "event_id")

        def answer() -> tuple[ProveEventResponse, int]:
            with _reading():
                found = self._reader.get(event_id)
                if found is None:
                    raise NotFound(Reason.EVENT_UNKNOWN, parameter="event_id")
                proof = self._proof(found)
            return ProveEventResponse(proof=proof, event=event_of(found)), 1

        return _typed("prove event_id", event_id, call, answer)

    def _proof(self, found: Found) -> str:
        if self._prover is None:
            raise NotYet(Reason.EVENT_NOT_SEALED, parameter="event_id")
        return self._prover(found.record.writer, found.record.seq)

    # Streams.

    async def _watch(self, _messages: object, context: StreamContext) -> None:
        request_id, method = new_request_id(), f"{SERVICE}/WatchEvents"
        async with stream_boundary(context, request_id, method=method):
            call = await self._calls.read(context, WatchEventsRequest.FromString, request_id)
            watcher, stream = await self._admitted(call)
            try:
                # What ends a stream must not give its place away before the stream has ended.
                async with stream_boundary(context, request_id, method=method):
                    await context.send_initial_metadata(decision_metadata(request_id))
                    await self._tell(watcher, stream, context)
            finally:
                self._endpoint.dismiss(watcher)

    async def _admitted(self, call: Call[WatchEventsRequest]) -> tuple[Watcher, "_Stream"]:
        def admit() -> tuple[Watcher, _Stream]:
            return self._endpoint.admit(
                call.context, lambda: self._stream_question(call.message(), call)
            )

        admission: list[tuple[Watcher, _Stream]] = []

        def admit_unless_gone() -> None:
            admission.append(admit())

        work = asyncio.ensure_future(self._in_thread(call, admit_unless_gone))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            # Whoever goes away meanwhile keeps no place.
            work.add_done_callback(lambda _: self._forget(work, admission))
            raise
        return admission[0]

    def _forget(
        self, work: "asyncio.Future[None]", admission: Sequence[tuple[Watcher, "_Stream"]]
    ) -> None:
        if not work.cancelled():
            work.exception()
        for watcher, _ in admission:
            self._endpoint.dismiss(watcher)

    def _stream_question(
        self, message: WatchEventsRequest, call: Call[WatchEventsRequest]
    ) -> Question["_Stream"]:
        query = query_of(message.filter)
        _check_length(message.cursor, "cursor")

        def answer() -> tuple[_Stream, int]:
            stream = _Stream(self._reader, query, message.cursor)
            if message.cursor:
                # One that is none is refused now, and not in the middle of the stream.
                stream.look()
            else:
                stream.begin()
            return stream, 0

        # What is none is refused, and may be anything.
        since = f" from {message.cursor}" if CURSOR.fullmatch(message.cursor) else ""
        return _listed(f"watch{since}", query, call, answer)

    async def _tell(self, watcher: Watcher, stream: "_Stream", context: StreamContext) -> None:
        """Tell what there is, then what comes, until something changes about the client."""
        told_at = -math.inf
        while self._endpoint.is_as_admitted(watcher):
            events = as_many_as_fit(stream.found)
            is_due = time.monotonic() >= told_at + self._beat_every
            if events or is_due:
                stream.told(len(events))
                await self._calls.write(context, _beat(stream.cursor, events))
                told_at = time.monotonic()
            if not stream.found:
                if not events:
                    await asyncio.sleep(self._look_every)
                await asyncio.wrap_future(self._threads.submit(stream.look))


class _Stream:
    """What a stream has still to tell, and where it reads on; for one thread at a time."""

    def __init__(self, reader: AuditReader, query: Query, cursor: str) -> None:
        self._reader = reader
        self._query = query
        self.cursor = cursor
        self.found: Sequence[Found] = ()

    def begin(self) -> None:
        """Begin at the newest event."""
        with _reading():
            self.cursor = self._reader.latest()

    def look(self) -> None:
        """Read what came since. Raises ``OAuthError``."""
        with _reading():
            # Asked for first, so that what comes in between is looked at again.
            latest = self._reader.latest()
            self.found = self._reader.newer(self._query, than=self.cursor, limit=_MOST_AT_ONCE)
        if not self.found:
            self.cursor = onward(self.cursor, latest)

    def told(self, number: int) -> None:
        """So many of what was found are on their way."""
        if number:
            self.cursor = self.found[number - 1].cursor
            self.found = self.found[number:]


def _beat(cursor: str, events: Sequence[audit_service_pb2.AuditEvent]) -> bytes:
    as_of = Timestamp()
    as_of.FromNanoseconds(time.time_ns())
    return WatchEventsResponse(events=events, cursor=cursor, as_of=as_of).SerializeToString()


@contextmanager
def _reading() -> Iterator[None]:
    """Turn whatever keeps a question from being answered into what the caller is told."""
    try:
        yield
    except QueryRefused as refused:
        raise InvalidRequest(Reason.QUERY_MALFORMED, detail=str(refused)) from None
    except QueryTooExpensive:
        raise InvalidRequest(Reason.QUERY_TOO_EXPENSIVE) from None
    except RecordChanged as changed:
        raise RecordDamaged(Reason.EVENT_CHANGED, detail=str(changed)) from None
    except NotSealed:
        raise NotYet(Reason.EVENT_NOT_SEALED) from None
    except AuditLogRefused as refused:
        raise RecordDamaged(Reason.EVENT_CHANGED, detail=str(refused)) from None
    except (PeopleAway, OSError) as error:
        raise TemporarilyUnavailable(Reason.AUDIT_UNREADABLE, detail=type(error).__name__) from None


def _listed(
    what: str, query: Query, call: Call[Any], answer: Callable[[], tuple[_T, int]]
) -> Question[_T]:
    asked, bare = (f"{what} {one}".rstrip() for one in (told_of(query), told_of(untyped(query))))
    return Question(_credential(call), asked, answer, query.names, bare, typed_in(query))


def _typed(
    what: str, value: str, call: Call[Any], answer: Callable[[], tuple[_T, int]]
) -> Question[_T]:
    return Question(_credential(call), f"{what}={value}", answer, (), what, (value,))


def _credential(call: Call[Any]) -> Any:
    return credential_of(call.message().client_authentication, call.metadata)


def _wanted(value: str, name: str) -> str:
    if not value:
        raise InvalidRequest(Reason.PARAM_MISSING, parameter=name)
    _check_length(value, name)
    return value


def _check_length(value: str, name: str) -> None:
    if len(value) > _LONGEST_ID:
        raise InvalidRequest(Reason.PARAM_TOO_LARGE, parameter=name)
