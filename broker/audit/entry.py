"""A record while it is being written, and the structlog pipeline that closes it."""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from types import TracebackType
from typing import Any, Final, Protocol, Self

import structlog

from broker.audit.facts import Facts
from broker.audit.people.naming import InClear, Naming
from broker.audit.record import (
    KEY_EVENTS,
    PEOPLE_EVENTS,
    REQUEST_EVENTS,
    SERVICE_EVENTS,
    VERSION,
    Record,
    rfc3339,
)
from broker.errors import OAuthError, Reason, TemporarilyUnavailable, TokenRejected
from broker.model import RequestContext

Clock = Callable[[], float]
"""Unix seconds. A clock that counts fractions dates records to the microsecond."""

_EVENTS: Final = REQUEST_EVENTS | SERVICE_EVENTS | KEY_EVENTS | PEOPLE_EVENTS
_IN_CLEAR: Final = InClear()


class RecordSink(Protocol):
    """
    Where finished records go.

    ``append`` returns once all of the records are kept, which belong together, and raises
    ``TemporarilyUnavailable`` (``audit_unavailable``) when they cannot be.
    """

    def append(self, records: Sequence[Record]) -> None: ...


class AuditLogger(structlog.BoundLoggerBase):
    """The logger at the head of the pipeline: facts in, closed records out."""

    def append(self, event: str, facts: Sequence[dict[str, Any]]) -> None:
        """Close a record for each and hand them to the sink together; return once they are kept."""
        self._proxy_to_logger("append", event, records=facts)


def audit_logger(sink: RecordSink, *, now: Clock, naming: Naming = _IN_CLEAR) -> AuditLogger:
    """The pipeline into ``sink``: date the records, name people, close their schema, hand them over."""

    def close(
        _logger: Any, _method: str, told: MutableMapping[str, Any]
    ) -> tuple[tuple[Sequence[Record]], dict[str, Any]]:
        # A record is a closed type: a member that is not on the list raises ``TypeError``.
        moment = now()
        time, event = rfc3339(moment), told["event"]
        for facts in told["records"]:
            naming.settle(facts, moment)
        records = [Record(v=VERSION, event=event, time=time, **facts) for facts in told["records"]]
        return (records,), {}

    pipeline = structlog.wrap_logger(
        sink, processors=[close], wrapper_class=AuditLogger, context_class=dict
    )
    logger: AuditLogger = pipeline.bind()
    return logger


Place = Callable[[], str]
"""Tells where the next record will stand at the earliest: the log, the chain and the number in it."""


class Entry(Facts):
    """
    The record of one request, open for facts while its block runs and written when it is left.

    With parts, it is written as a group of records, one for each.

    The facts that make the record what it is (event, time, decision, its place in the chain) are set
    last and cannot be noted.
    """

    __slots__ = ("_event", "_logger", "_parts", "_place")

    def __init__(
        self, logger: AuditLogger, event: str, context: RequestContext, place: Place
    ) -> None:
        if event not in _EVENTS:
            raise ValueError(f"there is no audit event named {event!r}")
        told = {"event_id": context.request_id}
        if context.face:
            told["face"] = context.face
        if context.peer:
            told["peer"] = context.peer
        super().__init__(told)
        self._logger = logger
        self._event = event
        self._place = place
        self._parts: list[Part] = []

    @property
    def receipt(self) -> str:
        """What a token tells of this record; the number of a record is known only when it is written."""
        return f"{self.held['event_id']}@{self._place()}"

    def part(self) -> "Part":
        return Part(self, self._parts, self._place)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        raised: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if isinstance(raised, OAuthError) and not raised.is_recorded:
            return
        if raised is not None:
            self._note_failure(raised)
        decision = "permit" if raised is None else "deny"
        if self._event not in REQUEST_EVENTS:
            decision = "info"
        facts = self.settled()
        facts["decision"] = decision
        parts = self._parts if raised is None else []
        try:
            self._logger.append(self._event, _grouped(facts, parts) if parts else [facts])
        except TemporarilyUnavailable:
            # An interrupt or an exit is no answer to anybody, so it goes on unchanged.
            if raised is None or isinstance(raised, Exception):
                raise

    def _note_failure(self, raised: BaseException) -> None:
        """Only our own errors tell their story: other texts may hold a secret."""
        if isinstance(raised, OAuthError):
            self.note(
                error=raised.error,
                reason=raised.reason,
                parameter=raised.parameter or None,
                detail=raised.detail or None,
            )
        elif isinstance(raised, TokenRejected):
            self.note(reason=raised.reason, detail=raised.detail or None)
        else:
            self.note(
                error="server_error", reason=Reason.INTERNAL_ERROR, detail=type(raised).__name__
            )


class Part(Facts):
    """What is noted of one of several tokens; it goes to the entry when its block raises."""

    __slots__ = ("_parts", "_place", "_whole")

    def __init__(self, whole: Facts, parts: list["Part"], place: Place) -> None:
        super().__init__({})
        self.add(whole)
        self.note(group_number=len(parts) + 1)
        self._whole = whole
        self._parts = parts
        self._place = place

    @property
    def receipt(self) -> str:
        """The same for the record of this part."""
        name = part_id(self._whole.held["event_id"], len(self._parts) + 1)
        return f"{name}@{self._place()}"

    def part(self) -> "Part":
        raise TypeError("a part of a request has no parts")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        raised: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if raised is None:
            self._parts.append(self)
        else:
            self._whole.add(self)


def part_id(group: str, number: int) -> str:
    """The id of a record in a group."""
    return f"{group}#{number}"


def _grouped(whole: Mapping[str, Any], parts: Sequence[Part]) -> Sequence[dict[str, Any]]:
    """The facts of each part; of a refusal there is one record, whatever was asked for."""
    group, decision = whole["event_id"], whole["decision"]
    records = []
    for number, part in enumerate(parts, start=1):
        facts = part.settled()
        facts.update(
            event_id=part_id(group, number),
            decision=decision,
            group=group,
            group_number=number,
            group_size=len(parts),
        )
        records.append(facts)
    return records
