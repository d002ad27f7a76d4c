"""The exchange over gRPC."""

import ipaddress
from typing import Final, cast
from urllib.parse import urlsplit

import grpc
import rich_click as click
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from broker.cli.exchange import ExchangeRequest, Issued, Server, refusal
from broker.cli.stop import Negative
from broker.oauth import (
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_TOKEN,
    TOKEN_TYPE_JWT,
)
from broker.v1.token_pb2 import TokenType
from broker.v1.token_service_pb2 import ExchangeTokenRequest
from broker.v1.token_service_pb2_grpc import TokenServiceStub

_SECONDS: Final = 10.0
_TYPES: Final = {
    None: TokenType.TOKEN_TYPE_UNSPECIFIED,
    TOKEN_TYPE_ACCESS_TOKEN: TokenType.TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_TOKEN: TokenType.TOKEN_TYPE_ID_TOKEN,
    TOKEN_TYPE_JWT: TokenType.TOKEN_TYPE_JWT,
}
_NAMES: Final = {value: name for name, value in _TYPES.items()}


def exchange_over_grpc(server: Server, request: ExchangeRequest) -> Issued:
    """The token that the broker issues; raises ``Negative`` with its refusal."""
    message = ExchangeTokenRequest(
        subject_token=request.subject_token,
        subject_token_type=_TYPES[request.subject_token_type],
        actor_token=request.actor_token or "",
        actor_token_type=_TYPES[request.actor_token_type],
        resources=request.resources,
        audiences=request.audiences,
        scopes=request.scopes,
    )
    with _channel(server) as channel:
        try:
            response = TokenServiceStub(channel).ExchangeToken(
                message, timeout=_SECONDS, metadata=(("authorization", request.authorization),)
            )
        except grpc.RpcError as error:
            raise _refusal(error) from None
    token = response.issued_token
    return Issued(
        access_token=token.access_token,
        issued_token_type=_NAMES.get(token.issued_token_type) or "",
        token_type=token.token_type,
        expires_in=token.expires_in,
        scope=" ".join(token.scopes),
    )


def _channel(server: Server) -> grpc.Channel:
    """A channel with TLS, which only a broker on loopback may do without."""
    target = server.grpc or ""
    if server.ca_file is None and _is_loopback(target):
        return grpc.insecure_channel(target)
    try:
        roots = server.ca_file.read_bytes() if server.ca_file is not None else None
    except OSError as error:
        raise click.UsageError(f"--ca-file: {server.ca_file}: {error.strerror}.") from None
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(roots))


def _is_loopback(target: str) -> bool:
    try:
        host = urlsplit(f"//{target}").hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refusal(error: grpc.RpcError) -> Negative:
    # What a call raises is the call itself, which the types do not say.
    status = rpc_status.from_call(cast(grpc.Call, error))
    for detail in () if status is None else status.details:
        info = ErrorInfo()
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info):
            facts = info.metadata
            return refusal(facts["error"], status.message, facts["decision_id"])
    return refusal(error.code().name, error.details(), "")
