"""A gRPC server behind the interceptors: which calls get through, and what the others are told."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import grpc.aio
import pytest

from broker.client.current import subject_token
from broker.client.failures import NoSubjectToken
from broker.client.grpc_server import (
    SyncVerified,
    Verified,
    abort,
    abort_blocking,
    delegation,
)
from broker.client.refusals import NotServed
from broker.client.verify import SyncTokenVerifier, TokenVerifier
from tests.client.key_server import KeyServer, running_key_server
from tests.client.receiving import BROKER_KEY, NOW, RESOURCE, bound, good_token, hash_of
from tests.proofs import HOLDER, good_proof_claims, signed_proof

SERVICE = "crm.v1.Contacts"
READ, STREAM, CLOSE, DEMAND, HEALTH = (
    f"/{SERVICE}/{name}" for name in ("Read", "Stream", "Close", "Demand", "Health")
)
SCOPES = {CLOSE: ("tickets:close",)}
Metadata = Sequence[tuple[str, str]]


@pytest.fixture(scope="module")
def server() -> Iterator[KeyServer]:
    with running_key_server() as running:
        running.publish(BROKER_KEY.jwk)
        yield running


def said() -> bytes:
    """Who calls, as a handler sees it."""
    try:
        return f"{delegation().subject} {subject_token()[-5:]}".encode()
    except NoSubjectToken:
        return b"nobody"


@dataclass(frozen=True)
class Answer:
    """What a caller got: the messages, or the status and the challenge."""

    messages: tuple[bytes, ...] = ()
    status: str = "OK"
    challenge: str = ""


class Service(Protocol):
    """A running server, asked by method and metadata."""

    def ask(self, method: str, metadata: Metadata) -> Answer: ...


class Blocking:
    """A server with threads."""

    def __init__(self, server: KeyServer) -> None:
        verifier = SyncTokenVerifier(server.issuer, RESOURCE, clock=lambda: NOW)
        self._verified = SyncVerified(verifier, scopes=SCOPES, public={HEALTH})

    def ask(self, method: str, metadata: Metadata) -> Answer:
        def unary(_request: bytes, _context: Any) -> bytes:
            return said()

        def demand(_request: bytes, context: Any) -> bytes:
            try:
                delegation().require_scopes("tickets:close")
            except NotServed as refused:
                abort_blocking(context, refused)
            return said()

        def stream(requests: Iterator[bytes], _context: Any) -> Iterator[bytes]:
            for request in requests:
                yield request + b" " + said()

        server = grpc.server(ThreadPoolExecutor(4), interceptors=[self._verified])
        server.add_generic_rpc_handlers((handlers(unary, demand, stream),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            return call(port, method, metadata)
        finally:
            server.stop(None).wait(5)


class InALoop:
    """A ``grpc.aio`` server."""

    def __init__(self, server: KeyServer) -> None:
        self._verifier = TokenVerifier(server.issuer, RESOURCE, clock=lambda: NOW)

    def ask(self, method: str, metadata: Metadata) -> Answer:
        return asyncio.run(self._ask(method, metadata))

    async def _ask(self, method: str, metadata: Metadata) -> Answer:
        async def unary(_request: bytes, _context: Any) -> bytes:
            return said()

        async def demand(_request: bytes, context: Any) -> bytes:
            try:
                delegation().require_scopes("tickets:close")
            except NotServed as refused:
                await abort(context, refused)
            return said()

        async def stream(requests: Any, _context: Any) -> Any:
            async for request in requests:
                yield request + b" " + said()

        verified = Verified(self._verifier, scopes=SCOPES, public={HEALTH})
        server = grpc.aio.server(interceptors=[verified])
        server.add_generic_rpc_handlers((handlers(unary, demand, stream),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            return await asyncio.to_thread(call, port, method, metadata)
        finally:
            await server.stop(None)


def handlers(unary: Any, demand: Any, stream: Any) -> Any:
    read: Any = grpc.unary_unary_rpc_method_handler(unary)
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "Read": read,
            "Close": read,
            "Health": read,
            "Demand": grpc.unary_unary_rpc_method_handler(demand),
            "Stream": grpc.stream_stream_rpc_method_handler(stream),
        },
    )


def call(port: int, method: str, metadata: Metadata) -> Answer:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            if method == STREAM:
                streaming: Any = channel.stream_stream(method)
                return Answer(tuple(streaming(iter([b"1", b"2"]), 10, metadata)))
            unary: Any = channel.unary_unary(method)
            return Answer((unary(b"", 10, metadata),))
        except grpc.RpcError as error:
            told: Any = error
            trailing = dict(told.trailing_metadata() or ())
            return Answer((), told.code().name, str(trailing.get("www-authenticate", "")))


KINDS = (Blocking, InALoop)


@pytest.fixture(params=KINDS)
def service(request: pytest.FixtureRequest, server: KeyServer) -> Service:
    made: Service = request.param(server)
    return made


def bearer(token: str) -> Metadata:
    return [("authorization", f"Bearer {token}")]


def test_a_call_with_a_good_token_is_served_in_its_name(
    service: Service, server: KeyServer
) -> None:
    token = good_token(server.issuer)

    assert service.ask(READ, bearer(token)).messages == (f"ann {token[-5:]}".encode(),)


def test_a_stream_is_served_in_the_name_of_its_call(service: Service, server: KeyServer) -> None:
    token = good_token(server.issuer)
    name = f"ann {token[-5:]}".encode()

    assert service.ask(STREAM, bearer(token)).messages == (b"1 " + name, b"2 " + name)


@pytest.mark.requirement("MCPRS-01", "STEP-08")
@pytest.mark.parametrize("method", [READ, STREAM])
@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "https://wiki.mcp.example/mcp"},
        {"iss": "https://evil.example"},
        {"exp": NOW - 31, "iat": NOW - 99},
        {"sub": None},
    ],
    ids=str,
)
def test_a_call_with_a_bad_token_is_refused(
    service: Service, server: KeyServer, method: str, changes: dict[str, Any]
) -> None:
    answer = service.ask(method, bearer(good_token(server.issuer, **changes)))

    assert (answer.messages, answer.status) == ((), "UNAUTHENTICATED")
    assert 'error="invalid_token"' in answer.challenge


@pytest.mark.parametrize("method", [READ, STREAM])
@pytest.mark.parametrize(
    "metadata", [[], [("authorization", "Basic YTpi")], [("Authorization".lower(), "")]]
)
def test_a_call_without_a_token_is_told_where_to_get_one(
    service: Service, method: str, metadata: Metadata
) -> None:
    answer = service.ask(method, metadata)

    assert (answer.messages, answer.status) == ((), "UNAUTHENTICATED")
    assert answer.challenge.startswith("Bearer resource_metadata=")


def test_a_call_with_two_tokens_is_refused(service: Service, server: KeyServer) -> None:
    answer = service.ask(READ, [*bearer(good_token(server.issuer))] * 2)

    assert (answer.messages, answer.status) == ((), "UNAUTHENTICATED")


@pytest.mark.requirement("STEP-05")
@pytest.mark.parametrize("method", [CLOSE, DEMAND])
def test_a_method_may_need_more_scopes(service: Service, server: KeyServer, method: str) -> None:
    enough = good_token(server.issuer, scope="tickets:close")

    refused = service.ask(method, bearer(good_token(server.issuer)))

    assert service.ask(method, bearer(enough)).status == "OK"
    assert (refused.messages, refused.status) == ((), "PERMISSION_DENIED")
    assert 'scope="tickets:close"' in refused.challenge


def test_public_methods_need_no_token_and_have_no_name(service: Service) -> None:
    assert service.ask(HEALTH, []).messages == (b"nobody",)


def test_an_unknown_method_is_not_served(service: Service, server: KeyServer) -> None:
    answer = service.ask(f"/{SERVICE}/Other", bearer(good_token(server.issuer)))

    assert answer.status == "UNIMPLEMENTED"


@pytest.mark.parametrize("kind", KINDS)
def test_while_keys_cannot_be_had_the_service_is_unavailable(kind: Any) -> None:
    with running_key_server() as empty:
        answer = kind(empty).ask(READ, bearer(good_token(empty.issuer)))

    assert (answer.status, answer.challenge) == ("UNAVAILABLE", "")


@pytest.mark.requirement("DPOP-08", "DPOP-11")
def test_a_bound_token_needs_a_proof_for_the_method(service: Service, server: KeyServer) -> None:
    token = bound(server)
    address = f"https://tickets.mcp.example{READ}"
    claims = good_proof_claims(address, ath=hash_of(token))
    proof = ("dpop", signed_proof(claims, key=HOLDER))
    presented = [("authorization", f"DPoP {token}")]

    assert service.ask(CLOSE, [*presented, proof]).status == "UNAUTHENTICATED"
    assert service.ask(READ, [*presented, proof]).status == "OK"
    assert service.ask(READ, [*presented, proof]).challenge.startswith("DPoP ")
    assert service.ask(READ, presented).status == "UNAUTHENTICATED"
    assert service.ask(READ, [*bearer(token), proof]).status == "UNAUTHENTICATED"
