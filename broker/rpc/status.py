"""Refusals become gRPC statuses with their details in ``google.rpc`` messages."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import (
    BadRequest,
    ErrorInfo,
    RetryInfo,
)
from google.rpc.status_pb2 import Status

from broker.errors import (
    InsufficientUserAuthentication,
    InvalidRequest,
    OAuthError,
    Reason,
    TemporarilyUnavailable,
)

DECISION_ID: Final = "broker-decision-id"
DOMAIN: Final = "delegation-broker"

_DETAILS: Final = "grpc-status-details-bin"

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call ends that is refused: its status, and the details in its trailing metadata."""

    code: grpc.StatusCode
    message: str
    trailers: Metadata


def decision_metadata(request_id: str) -> Metadata:
    """The metadata that tells a caller the id of the audit record."""
    return ((DECISION_ID, request_id),)


def refuse(
    context: grpc.ServicerContext, error: OAuthError, *, request_id: str | None = None
) -> NoReturn:
    """End the call with the status of ``error``; it raises what gRPC wants to see raised."""
    if request_id is None and isinstance(error, TemporarilyUnavailable):
        refusal = turned_away(error)
    else:
        refusal = refusal_of(error, request_id=request_id)
    context.set_trailing_metadata(refusal.trailers)
    context.abort(refusal.code, refusal.message)


def turned_away(error: TemporarilyUnavailable) -> Refusal:
    """The same for a refusal that has no record, made once for all that are alike: there are many."""
    return _turned_away(error.grpc_status, error.reason, error.retry_after)


@lru_cache(maxsize=256)
def _turned_away(status: str, reason: Reason, retry_after: int) -> Refusal:
    error = TemporarilyUnavailable(reason, retry_after=retry_after)
    return _refusal(error, grpc.StatusCode[status], None)


def refusal_of(error: OAuthError, *, request_id: str | None = None) -> Refusal:
    """
    The status of ``error``.

    The message is the fixed sentence. Exactly one ``ErrorInfo`` tells the OAuth code. ``request_id``
    is told too, unless there is nothing on record under it.
    """
    return _refusal(error, grpc.StatusCode[error.grpc_status], request_id)


def _refusal(error: OAuthError, code: grpc.StatusCode, request_id: str | None) -> Refusal:
    status = Status(code=code.value[0], message=error.description)
    for detail in _details(error, request_id):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    decision = decision_metadata(request_id) if request_id else ()
    trailers: Metadata = (*decision, (_DETAILS, status.SerializeToString()))
    return Refusal(code, error.description, trailers)


def _details(error: OAuthError, request_id: str | None) -> list[Message]:
    facts = {"error": error.error}
    if request_id:
        facts["decision_id"] = request_id
    details: list[Message] = []
    if isinstance(error, InsufficientUserAuthentication):
        if error.acr_values:
            facts["acr_values"] = error.acr_values
        if error.max_age is not None:
            facts["max_age"] = str(error.max_age)
    details.append(ErrorInfo(reason=error.error.upper(), domain=DOMAIN, metadata=facts))
    field = _field_at_fault(error)
    if field:
        violation = BadRequest.FieldViolation(field=field, description=error.description)
        details.append(BadRequest(field_violations=[violation]))
    if isinstance(error, TemporarilyUnavailable):
        details.append(RetryInfo(retry_delay=Duration(seconds=error.retry_after)))
    return details


def _field_at_fault(error: OAuthError) -> str:
    """The field of the request at fault; of several targets it is told which one, and no more."""
    if error.target is not None:
        return f"targets[{error.target}]"
    return error.parameter if isinstance(error, InvalidRequest) else ""
