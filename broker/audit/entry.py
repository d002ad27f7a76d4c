"""A record while it is being written, and the structlog pipeline that closes it."""

from collections.abc import Callable, Mapping, MutableMapping
from types import TracebackType
from typing import Any, Final, Protocol, Self

import structlog

from broker.audit.facts import bounded, bounded_id
from broker.audit.record import REQUEST_EVENTS, SERVICE_EVENTS, VERSION, Record, rfc3339
from broker.errors import OAuthError, Reason, TemporarilyUnavailable, TokenRejected
from broker.model import RequestContext

Clock = Callable[[], float]
"""Unix seconds. A clock that counts fractions dates records to the microsecond."""

_EVENTS: Final = REQUEST_EVENTS | SERVICE_EVENTS


class RecordSink(Protocol):
    """
    Where finished records go.

    ``append`` returns once the record is kept and raises ``TemporarilyUnavailable``
    (``audit_unavailable``) when it cannot be.
    """

    def append(self, record: Record) -> None: ...


class AuditLogger(structlog.BoundLoggerBase):
    """The logger at the head of the pipeline: facts in, a closed record out."""

    def append(self, event: str, facts: Mapping[str, Any]) -> None:
        """Close the record and hand it to the sink; return once it is kept."""
        self._proxy_to_logger("append", event, **facts)


def audit_logger(sink: RecordSink, *, now: Clock) -> AuditLogger:
    """The pipeline into ``sink``: date the record, close its schema, hand it over."""

    def date(_logger: Any, _method: str, facts: MutableMapping[str, Any]) -> Mapping[str, Any]:
        facts["time"] = rfc3339(now())
        facts["v"] = VERSION
        return facts

    pipeline = structlog.wrap_logger(
        sink, processors=[date, _close], wrapper_class=AuditLogger, context_class=dict
    )
    logger: AuditLogger = pipeline.bind()
    return logger


def _close(
    _logger: Any, _method: str, facts: MutableMapping[str, Any]
) -> tuple[tuple[Record], dict[str, Any]]:
    """The record as a closed type: a member that is not on the list raises ``TypeError``."""
    return (Record(**facts),), {}


class Entry:
    """
    The record of one request, open for facts while its block runs and written when it is left.

    Facts are bounded as they are noted, so nothing of a request outlives it here. The facts that
    make the record what it is (event, time, decision, its place in the chain) are set last and
    cannot be noted.
    """

    __slots__ = ("_event", "_facts", "_logger")

    def __init__(self, logger: AuditLogger, event: str, context: RequestContext) -> None:
        if event not in _EVENTS:
            raise ValueError(f"there is no audit event named {event!r}")
        self._logger = logger
        self._event = event
        self._facts: dict[str, Any] = {"event_id": bounded_id(context.request_id)}
        self.note(face=context.face or None, peer=context.peer or None)

    def note(self, **facts: Any) -> None:
        self._facts.update(bounded(facts))

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
            self._logger.append(self._event, self._facts)
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
