"""A gRPC face with endpoints that do as they are told, and a client that reads its refusals."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import (
    BadRequest,
    ErrorInfo,
    RetryInfo,
)
from grpc_status import rpc_status

from broker.endpoints import Endpoints
from broker.rpc.server import RunningServer, build_server
from broker.v1 import (
    admin_service_pb2_grpc,
    discovery_service_pb2_grpc,
    policy_service_pb2_grpc,
    token_service_pb2_grpc,
)

Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True)
class Refusal:
    """A status that is not OK, with what its details say."""

    code: grpc.StatusCode
    message: str
    infos: tuple[Any, ...]
    violations: dict[str, str]
    retry_after: int | None
    trailers: dict[str, str | bytes]
    everything: str

    @property
    def info(self) -> Any:
        """The one ErrorInfo that every refusal of ours has."""
        (info,) = self.infos
        return info


def refusal_of(error: Any) -> Refusal:
    """Read a refusal as a client would."""
    status = rpc_status.from_call(error)
    details = [] if status is None else list(status.details)
    infos, violations, retry_after = [], {}, None
    for detail in details:
        info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
        if detail.Unpack(info):
            infos.append(info)
        if detail.Unpack(bad):
            violations = {one.field: one.description for one in bad.field_violations}
        if detail.Unpack(retry):
            retry_after = retry.retry_delay.seconds
    return Refusal(
        code=error.code(),
        message=error.details(),
        infos=tuple(infos),
        violations=violations,
        retry_after=retry_after,
        trailers=dict(error.trailing_metadata() or ()),
        everything=f"{error.details()} {status} {error.trailing_metadata()}",
    )


class Client:
    """Calls the face over a channel of its own."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.token = token_service_pb2_grpc.TokenServiceStub(channel)
        self.discovery = discovery_service_pb2_grpc.DiscoveryServiceStub(channel)
        self.policy = policy_service_pb2_grpc.PolicyServiceStub(channel)
        self.admin = admin_service_pb2_grpc.AdminServiceStub(channel)

    def call(
        self,
        method: str,
        message: Message | bytes = b"",
        *,
        metadata: Metadata = (),
        timeout: float | None = 20,
        **options: Any,
    ) -> bytes:
        """One unary call by its full name; the answer is left as bytes."""
        data = message if isinstance(message, bytes) else message.SerializeToString()
        rpc: Any = self.channel.unary_unary(method)
        answer: bytes = rpc(data, metadata=tuple(metadata), timeout=timeout, **options)
        return answer

    def refused(self, method: str, message: Message | bytes = b"", **options: Any) -> Refusal:
        """The same for a call that must fail."""
        try:
            self.call(method, message, **options)
        except grpc.RpcError as error:
            return refusal_of(error)
        raise AssertionError(f"{method} was answered")


EXCHANGE = "/broker.v1.TokenService/ExchangeToken"
EXPLAIN = "/broker.v1.PolicyService/ExplainDecision"


@contextlib.contextmanager
def serving(endpoints: Endpoints, **options: Any) -> Iterator[tuple[RunningServer, Client]]:
    """A face on a free port, and a client of it."""
    server = build_server(endpoints, address="127.0.0.1:0", **options)
    try:
        with connected(server) as client:
            yield server, client
    finally:
        server.stop(0)


@contextlib.contextmanager
def connected(
    server: RunningServer, credentials: grpc.ChannelCredentials | None = None
) -> Iterator[Client]:
    """Another client, on a connection of its own."""
    target = f"127.0.0.1:{server.port}"
    own_connection = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_metadata_size", 1 << 20)]
    if credentials is None:
        channel = grpc.insecure_channel(target, options=own_connection)
    else:
        channel = grpc.secure_channel(target, credentials, options=own_connection)
    with channel:
        yield Client(channel)
