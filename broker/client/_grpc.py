"""The broker over gRPC: a message goes out, an answer or a failure comes back."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from broker.client._addresses import DIRECT, is_loopback
from broker.client._oauth_error import refusal, sentence, whole_number
from broker.client._reading import NO_ANSWER, UNREADABLE
from broker.client.asks import Ask, names_of
from broker.client.credentials import Presented
from broker.client.failures import BadAnswer, BrokerError, Refused, StepUp
from broker.oauth import (
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_JAG,
    TOKEN_TYPE_ID_TOKEN,
    TOKEN_TYPE_JWT,
)
from broker.v1 import (
    policy_service_pb2,
    policy_service_pb2_grpc,
    token_pb2,
    token_service_pb2,
    token_service_pb2_grpc,
)

_Answer = TypeVar("_Answer")
_TARGET: Final = re.compile(r"targets\[([0-9]{1,4})\]")
_STATUS: Final = "grpc-status-details-bin"
_REPEATED: Final = {"resource": "resources", "audience": "audiences"}
_TYPES: Final = {
    TOKEN_TYPE_ACCESS_TOKEN: token_pb2.TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_TOKEN: token_pb2.TOKEN_TYPE_ID_TOKEN,
    TOKEN_TYPE_JWT: token_pb2.TOKEN_TYPE_JWT,
    TOKEN_TYPE_ID_JAG: token_pb2.TOKEN_TYPE_ID_JAG,
}
_AUTHENTICATION: Final = frozenset(
    {"client_id", "client_secret", "client_assertion", "client_assertion_type"}
)
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 256 * 1024),
    *DIRECT,
)
_UNAVAILABLE: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
    }
)


class AsyncGrpc:
    """
    Asks over gRPC, for a running event loop; the channel is opened with the first question.

    Without ``ca_file`` and off loopback the system's authorities are believed; on loopback a broker
    without TLS is spoken to.
    """

    def __init__(self, target: str, issuer: str, *, ca_file: str | None = None) -> None:
        self.issuer = issuer
        self._target = target
        self._credentials = channel_credentials(target, ca_file)
        self._channel: grpc.aio.Channel | None = None

    async def ask(self, ask: Ask[_Answer], presented: Presented, *, within: float) -> _Answer:
        """The answer; raises ``BrokerError``."""
        try:
            message = await _method(self._open(), ask)(
                _message(ask, presented), timeout=within, metadata=metadata_of(presented)
            )
        except grpc.aio.AioRpcError as error:
            raise failure_of(error.code(), error.details(), error.trailing_metadata()) from None
        return _read(ask, message)

    def _open(self) -> grpc.aio.Channel:
        # A channel belongs to the event loop that runs when it is opened.
        if self._channel is None:
            self._channel = (
                grpc.aio.insecure_channel(self._target, options=_OPTIONS)
                if self._credentials is None
                else grpc.aio.secure_channel(self._target, self._credentials, options=_OPTIONS)
            )
        return self._channel

    async def aclose(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()


class SyncGrpc:
    """The same for code that blocks."""

    def __init__(self, target: str, issuer: str, *, ca_file: str | None = None) -> None:
        self.issuer = issuer
        credentials = channel_credentials(target, ca_file)
        self._channel = (
            grpc.insecure_channel(target, options=_OPTIONS)
            if credentials is None
            else grpc.secure_channel(target, credentials, options=_OPTIONS)
        )

    def ask(self, ask: Ask[_Answer], presented: Presented, *, within: float) -> _Answer:
        """The answer; raises ``BrokerError``."""
        try:
            message = _method(self._channel, ask)(
                _message(ask, presented), timeout=within, metadata=metadata_of(presented)
            )
        except grpc.RpcError as error:
            call = cast(grpc.Call, error)
            raise failure_of(call.code(), call.details(), call.trailing_metadata()) from None
        return _read(ask, message)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


def channel_credentials(target: str, ca_file: str | None) -> grpc.ChannelCredentials | None:
    """What a channel to the broker is opened with; ``None`` without TLS, on loopback alone."""
    if ca_file is None:
        is_here = is_loopback(target.rpartition(":")[0].strip("[]"))
        return None if is_here else grpc.ssl_channel_credentials()
    return grpc.ssl_channel_credentials(Path(ca_file).read_bytes())


def _method(channel: Any, ask: Ask[Any]) -> Any:
    if ask.method == "ExplainDecision":
        return policy_service_pb2_grpc.PolicyServiceStub(channel).ExplainDecision
    return getattr(token_service_pb2_grpc.TokenServiceStub(channel), ask.method)


def _message(ask: Ask[Any], presented: Presented) -> Any:
    if ask.method == "ExplainDecision":
        form = [(name, value) for name, value in ask.form if name != "explained_client_id"]
        return policy_service_pb2.ExplainDecisionRequest(
            exchange=_fill(token_service_pb2.ExchangeTokenRequest(), form, presented),
            client_id=dict(ask.form).get("explained_client_id", ""),
        )
    message = getattr(token_service_pb2, f"{ask.method}Request")()
    for target in ask.targets:
        message.targets.add(resource=target.resource, scopes=names_of(target.scopes))
    return _fill(message, ask.form, presented)


def _fill(message: Any, form: Sequence[tuple[str, str]], presented: Presented) -> Any:
    """Put form parameters into the fields that carry their names."""
    for name, value in form:
        if name == "grant_type":
            continue
        if name == "scope":
            message.scopes.extend(value.split())
        elif name in _REPEATED:
            getattr(message, _REPEATED[name]).append(value)
        else:
            setattr(message, name, _TYPES.get(value, value) if name.endswith("_type") else value)
    return authenticated(message, presented)


def authenticated(message: Any, presented: Presented) -> Any:
    """The same message with what proves in it who the client is."""
    for name, value in presented.form.items():
        if name in _AUTHENTICATION:
            setattr(message.client_authentication, name, value)
    return message


def metadata_of(presented: Presented) -> tuple[tuple[str, str], ...]:
    """What goes along with a call to prove who the client is."""
    return () if presented.authorization is None else (("authorization", presented.authorization),)


def _read(ask: Ask[_Answer], message: Any) -> _Answer:
    try:
        return ask.read_message(message)
    except UNREADABLE:
        raise BadAnswer(NO_ANSWER) from None


def failure_of(code: grpc.StatusCode, details: str | None, trailing: Any) -> BrokerError:
    """What a call says that ended without an answer."""
    facts, retry_after, target = _details(trailing)
    error, description = facts.get("error", ""), details or ""
    if not error and code not in _UNAVAILABLE:
        return BadAnswer(f"The call ended with {code.name}.")
    failure = refusal(
        error or "temporarily_unavailable",
        description,
        decision_id=facts.get("decision_id", ""),
        retry_after=retry_after,
        step_up=StepUp(sentence(facts.get("acr_values", "")), whole_number(facts.get("max_age"))),
    )
    if isinstance(failure, Refused):
        failure.target = target
    return failure


def _details(trailing: Any) -> tuple[Mapping[str, str], float | None, int | None]:
    """The facts of a refusal, after how many seconds to try again, and which of several targets it is."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    request = error_details_pb2.BadRequest()
    for name, value in trailing or ():
        if name == _STATUS:
            for detail in _unpacked(value):
                for kind in (info, retry, request):
                    if detail.Is(kind.DESCRIPTOR):
                        detail.Unpack(kind)
    delay = retry.retry_delay
    is_told = retry.HasField("retry_delay")
    after = delay.seconds + delay.nanos / 1e9 if is_told else None
    return dict(info.metadata), after, _target(request)


def _target(request: error_details_pb2.BadRequest) -> int | None:
    found = [_TARGET.fullmatch(one.field) for one in request.field_violations]
    return next((int(one[1]) for one in found if one), None)


def _unpacked(value: bytes) -> Sequence[Any]:
    try:
        return tuple(status_pb2.Status.FromString(value).details)
    except DecodeError:
        return ()
