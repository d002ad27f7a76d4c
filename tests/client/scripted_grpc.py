"""A real gRPC server in the broker's place, which answers as it is told."""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Final

import grpc
import trustme
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from broker.v1 import token_pb2, token_service_pb2

SERVICE: Final = "broker.v1.TokenService"
DETAILS: Final = "grpc-status-details-bin"


@dataclass(frozen=True)
class Failure:
    """How a call ends; ``trailing`` is the metadata that tells more."""

    code: grpc.StatusCode
    text: str = "It failed."
    trailing: tuple[tuple[str, str | bytes], ...] = ()


def failure(
    code: grpc.StatusCode,
    facts: Mapping[str, str],
    *,
    retry_after: int | None = None,
    at_fault: str = "",
) -> Failure:
    """A failure as the broker tells it; ``at_fault`` is a field."""
    status = Status(code=code.value[0], message="It failed.")
    messages: list[Any] = [ErrorInfo(reason="IT_FAILED", metadata=facts)]
    if retry_after is not None:
        messages.append(RetryInfo(retry_delay=Duration(seconds=retry_after)))
    if at_fault:
        violation = BadRequest.FieldViolation(field=at_fault)
        messages.append(BadRequest(field_violations=[violation]))
    for message in messages:
        packed = AnyMessage()
        packed.Pack(message)
        status.details.append(packed)
    return Failure(code, trailing=((DETAILS, status.SerializeToString()),))


def issued(**changes: Any) -> token_service_pb2.ExchangeTokenResponse:
    """An answer with a token."""
    fields = {"access_token": "new", "token_type": "Bearer", "expires_in": 300, **changes}
    return token_service_pb2.ExchangeTokenResponse(issued_token=token_pb2.IssuedToken(**fields))


def issued_together(request: Any) -> token_service_pb2.ExchangeTokensResponse:
    """An answer with a token for each target, which tells in its name what it is for."""
    return token_service_pb2.ExchangeTokensResponse(
        issued_tokens=[
            token_pb2.IssuedToken(
                access_token=f"new-{target.resource}",
                token_type="Bearer",
                expires_in=300,
                scopes=target.scopes,
                resource=target.resource,
            )
            for target in request.targets
        ]
    )


@dataclass
class ScriptedGrpc:
    """Answers with what is next in ``script``, after ``gate`` opens; ``asked`` are the messages so far."""

    script: deque[Any] = field(default_factory=deque)
    asked: list[Any] = field(default_factory=list)
    gate: Event | None = None
    port: int = 0

    def exchange(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answer a call."""
        self.asked.append(request)
        if self.gate is not None:
            self.gate.wait(30)
        next_one = self.script.popleft() if self.script else self._usual(request)
        if isinstance(next_one, Failure):
            context.set_trailing_metadata(next_one.trailing)
            context.abort(next_one.code, next_one.text)
        return next_one

    def _usual(self, request: Any) -> Any:
        is_batch = isinstance(request, token_service_pb2.ExchangeTokensRequest)
        return issued_together(request) if is_batch else issued()


def server_credentials(certificate: trustme.LeafCert) -> grpc.ServerCredentials:
    """What a gRPC server proves itself by."""
    chain = b"".join(part.bytes() for part in certificate.cert_chain_pems)
    return grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])


@contextmanager
def scripted_grpc(certificate: trustme.LeafCert | None = None) -> Iterator[ScriptedGrpc]:
    """A server on a port of its own, until the end of the block; with a certificate it speaks TLS."""
    scripted = ScriptedGrpc()
    server = grpc.server(ThreadPoolExecutor(max_workers=16))
    exchange = grpc.unary_unary_rpc_method_handler(
        scripted.exchange,
        request_deserializer=token_service_pb2.ExchangeTokenRequest.FromString,
        response_serializer=token_service_pb2.ExchangeTokenResponse.SerializeToString,
    )
    together = grpc.unary_unary_rpc_method_handler(
        scripted.exchange,
        request_deserializer=token_service_pb2.ExchangeTokensRequest.FromString,
        response_serializer=token_service_pb2.ExchangeTokensResponse.SerializeToString,
    )
    served: dict[str, Any] = {"ExchangeToken": exchange, "ExchangeTokens": together}
    methods = grpc.method_handlers_generic_handler(SERVICE, served)
    server.add_generic_rpc_handlers((methods,))
    scripted.port = (
        server.add_insecure_port("127.0.0.1:0")
        if certificate is None
        else server.add_secure_port("127.0.0.1:0", server_credentials(certificate))
    )
    server.start()
    try:
        yield scripted
    finally:
        server.stop(0).wait()
