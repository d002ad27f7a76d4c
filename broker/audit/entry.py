"""A record while it is being written, and the structlog pipeline that closes it."""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from types import TracebackType
from typing import Any, Final, Protocol, Self

import structlog

from broker.audit.facts import bounded, bounded_id
from broker.audit.record import KEY_EVENTS, REQUEST_EVENTS, SERVICE_EVENTS, VERSION, Record, rfc3339
from broker.errors import OAuthError, Reason, TemporarilyUnavailable, TokenRejected
from broker.model import RequestContext

Clock = Callable[[], float]
"""Unix seconds. A clock that counts fractions dates records to the microsecond."""

_EVENTS: Final = REQUEST_EVENTS | SERVICE_EVENTS | KEY_EVENTS


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


def audit_logger(sink: RecordSink, *, now: Clock) -> AuditLogger:
    """The pipeline into ``sink``: date the records, close their schema, hand them over."""

    def date(_logger: Any, _method: str, told: MutableMapping[str, Any]) -> Mapping[str, Any]:
        time = rfc3339(now())
        for facts in told["records"]:
            facts.update(event=told["event"], time=time, v=VERSION)
        return told

    pipeline = structlog.wrap_logger(
        sink, processors=[date, _close], wrapper_class=AuditLogger, context_class=dict
    )
    logger: AuditLogger = pipeline.bind()
    return logger


def _close(
    _logger: Any, _method: str, told: MutableMapping[str, Any]
) -> tuple[tuple[Sequence[Record]], dict[str, Any]]:
    """Each record as a closed type: a member that is not on the list raises ``TypeError``."""
    return ([Record(**facts) for facts in told["records"]],), {}


class Entry:
    """
    The record of one request, open for facts while its block runs and written when it is left.

    With parts, it is written as a group of records, one for each.

    Facts are bounded as they are noted, so nothing of a request outlives it here. The facts that
    make the record what it is (event, time, decision, its place in the chain) are set last and
    cannot be noted.
    """

    __slots__ = ("_event", "_facts", "_logger", "_parts")

    def __init__(self, logger: AuditLogger, event: str, context: RequestContext) -> None:
        if event not in _EVENTS:
            raise ValueError(f"there is no audit event named {event!r}")
        self._logger = logger
        self._event = event
        self._facts: dict[str, Any] = {"event_id": bounded_id(context.request_id)}
        self._parts: list[dict[str, Any]] = []
        self.note(face=context.face or None, peer=context.peer or None)

    def note(self, **facts: Any) -> None:
        self._facts.update(bounded(facts))

    def part(self) -> "Part":
        number = len(self._parts) + 1
        return Part(self._facts, {**self._facts, "group_number": number}, self._parts)

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
        outcome = "permit" if raised is None else "deny"
        self._facts["decision"] = outcome if self._event in REQUEST_EVENTS else "info"
        try:
            self._logger.append(self._event, self._records(raised))
        except TemporarilyUnavailable:
            # An interrupt or an exit is no answer to anybody, so it goes on unchanged.
            if raised is None or isinstance(raised, Exception):
                raise

    def _records(self, raised: BaseException | None) -> Sequence[dict[str, Any]]:
        """The facts of each record: of a refusal there is one, whatever was asked for."""
        if raised is not None or not self._parts:
            return [self._facts]
        group, decision = self._facts["event_id"], self._facts["decision"]
        for number, facts in enumerate(self._parts, start=1):
            facts.update(
                event_id=f"{group}#{number}",
                decision=decision,
                group=group,
                group_number=number,
                group_size=len(self._parts),
            )
        return self._parts

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


class Part:
    """What is noted of one of several tokens; it goes to the entry when its block raises."""

    __slots__ = ("_facts", "_parts", "_whole")

    def __init__(
        self, whole: dict[str, Any], facts: dict[str, Any], parts: list[dict[str, Any]]
    ) -> None:
        self._whole = whole
        self._facts = facts
        self._parts = parts

    def note(self, **facts: Any) -> None:
        self._facts.update(bounded(facts))

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
            self._parts.append(self._facts)
        else:
            self._whole.update(self._facts)
