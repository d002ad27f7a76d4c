"""The two faces as their callers reach them, over sockets, by libraries of others."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Any, ClassVar, Final, Self
from urllib.parse import urlencode

import grpc
import urllib3
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from broker.v1 import token_service_pb2_grpc
from tests.e2e.patience import until
from tests.e2e.setting import Setting
from tests.harness import Answer, call_for
from tests.world import Parameters

TIMEOUT: Final = 60.0
MOST_AT_ONCE: Final = 16
UNABLE: Final = "temporarily_unavailable"

_CHANNEL_OPTIONS: Final = (
    # A restarted worker is found at once, and nothing is sent twice behind the caller's back.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


class NoAnswer(Exception):
    """The connection could not be made, or ended before the answer."""


class NotReached(NoAnswer):
    """Nobody was there, so nothing was sent."""


class Wire(ABC):
    """A face at the end of a connection, which ``with`` closes."""

    name: ClassVar[str]

    @abstractmethod
    def exchange(self, parameters: Parameters, *authorization: str) -> Answer:
        """The answer; raises ``NoAnswer`` when none comes."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _raised: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()


class HttpWire(Wire):
    """The OAuth face, through urllib3."""

    name = "http"

    def __init__(self, setting: Setting) -> None:
        self._endpoint = setting.issuer + "/token"
        self._pool = urllib3.PoolManager(maxsize=MOST_AT_ONCE, retries=False, timeout=TIMEOUT)

    def exchange(self, parameters: Parameters, *authorization: str) -> Answer:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if authorization:
            headers["Authorization"] = ",".join(authorization)
        body = urlencode(parameters, doseq=True)
        try:
            answer = self._pool.request("POST", self._endpoint, body=body, headers=headers)
        except urllib3.exceptions.NewConnectionError as error:
            raise NotReached(repr(error)) from error
        except urllib3.exceptions.HTTPError as error:
            raise NoAnswer(repr(error)) from error
        fields = json.loads(answer.data)
        return Answer(
            face=self.name,
            status=str(answer.status),
            error=fields.get("error", ""),
            description=fields.get("error_description", ""),
            token=fields.get("access_token", ""),
            fields=fields,
            headers={name.lower(): value for name, value in answer.headers.items()},
            everything=f"{answer.status} {answer.headers} {answer.data.decode()}",
        )

    def close(self) -> None:
        self._pool.clear()


class GrpcWire(Wire):
    """The gRPC face, through grpcio."""

    name = "grpc"

    def __init__(self, setting: Setting) -> None:
        target = f"127.0.0.1:{setting.ports.grpc}"
        self._channel = grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)
        self._stub = token_service_pb2_grpc.TokenServiceStub(self._channel)

    def exchange(self, parameters: Parameters, *authorization: str) -> Answer:
        metadata = tuple(("authorization", value) for value in authorization)
        method, message = call_for(self._stub, parameters)
        try:
            response, call = method.with_call(message, metadata=metadata, timeout=TIMEOUT)
        except grpc.RpcError as error:
            return _refusal(error)
        issued = response.issued_token
        return Answer(
            face=self.name,
            status="OK",
            error="",
            description="",
            token=issued.access_token,
            fields={
                "token_type": issued.token_type,
                "expires_in": issued.expires_in,
                "scope": " ".join(issued.scopes),
                "resource": issued.resource,
            },
            headers={name: str(value) for name, value in call.trailing_metadata()},
            everything=f"{response} {call.trailing_metadata()}",
        )

    def close(self) -> None:
        self._channel.close()


def _refusal(error: Any) -> Answer:
    """What the broker said; an error without details is one of the connection."""
    status = rpc_status.from_call(error)
    if status is None:
        kind = NotReached if "failed to connect" in error.details().lower() else NoAnswer
        raise kind(f"{error.code()} {error.details()}") from error
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
    return Answer(
        face="grpc",
        status=error.code().name,
        error=info.metadata.get("error", ""),
        description=error.details(),
        token="",
        fields={},
        headers=dict(info.metadata),
        everything=f"{error.details()} {status} {error.trailing_metadata()}",
    )


def wire(face: str, setting: Setting) -> Wire:
    """A new connection to the face of this name."""
    return HttpWire(setting) if face == "http" else GrpcWire(setting)


def decision_id(answer: Answer) -> str:
    """The id of the audit record that the answer names."""
    return answer.headers.get("broker-decision-id") or answer.headers["decision_id"]


def settled(face: Wire, ask: Callable[[], Parameters]) -> Answer:
    """
    The answer to what ``ask`` makes, anew for each try, once the broker is able to give one.

    A worker may be about to begin, or a disk that many use too slow for a moment; every client has to
    try again then.
    """

    def answer() -> Answer | None:
        try:
            got = face.exchange(ask())
        except NotReached:
            return None
        return None if got.error == UNABLE else got

    found = until(answer, seconds=60, what="the broker is able to decide")
    assert found is not None
    return found
