"""MCP servers as they are, of the official SDK and of FastMCP, that take tokens by our adapters."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from broker.client.failures import NoSubjectToken
from broker.client.fastmcp import BrokerAuthProvider
from broker.client.fastmcp import delegation as of_fastmcp
from broker.client.mcp import delegation as of_the_sdk
from broker.client.verify import TokenVerifier
from tests.client.key_server import KeyServer, running_key_server
from tests.client.receiving import BROKER_KEY, NOW, RESOURCE, bound, good_token
from tests.client.served_mcp import (
    Caller,
    behind_middleware,
    by_fastmcp,
    by_fastmcp_behind_middleware,
    by_sdk,
    serving,
)

METADATA = "/.well-known/oauth-protected-resource/mcp"
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
HEADERS = {"Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def server() -> Iterator[KeyServer]:
    with running_key_server() as running:
        running.publish(BROKER_KEY.jwk)
        yield running


@pytest.fixture(scope="module", params=[by_sdk, by_fastmcp, behind_middleware])
def address(request: pytest.FixtureRequest, server: KeyServer) -> Iterator[str]:
    verifier = TokenVerifier(server.issuer, RESOURCE, required_scopes=("tickets:read",))
    with serving(request.param(verifier)) as running:
        yield running


def token_now(server: KeyServer, **changes: Any) -> str:
    """A token that is good now, for these frameworks look at the clock themselves."""
    now = int(time.time())
    return good_token(server.issuer, **{"iat": now, "exp": now + 300, **changes})


def post(address: str, *authorization: str) -> httpx2.Response:
    headers = [*HEADERS.items(), *(("Authorization", value) for value in authorization)]
    return httpx2.post(f"{address}/mcp", json=INITIALIZE, headers=headers, trust_env=False)


def test_a_tool_sees_who_calls_through_whom(address: str, server: KeyServer) -> None:
    caller = Caller(address, lambda: token_now(server))

    assert caller.call("whoami") == ("ann by agent at mcp-desk, token T-1", False)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_each_call_of_a_session_has_its_own_token(
    address: str, server: KeyServer, mode: str
) -> None:
    serial = itertools.count(1)
    caller = Caller(address, lambda: token_now(server, jti=f"N-{next(serial)}"), mode)

    answers = caller.call_all(("whoami", {}), ("whoami", {}), ("whoami", {}))

    numbers = [int(text.rpartition("-")[2]) for text, _ in answers]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 3


@pytest.mark.parametrize(
    "build", [by_sdk, by_fastmcp, behind_middleware, by_fastmcp_behind_middleware]
)
def test_a_session_is_its_owners_alone(server: KeyServer, build: Callable[..., Any]) -> None:
    """Who knows the id of a session and has a good token of their own must not get into it."""
    ann = {"Authorization": f"Bearer {token_now(server)}"}
    bob = {"Authorization": f"Bearer {token_now(server, sub='bob', jti='T-2')}"}
    with serving(build(TokenVerifier(server.issuer, RESOURCE))) as address:
        client = httpx2.Client(base_url=address, headers=HEADERS, trust_env=False)
        with client:
            opened = client.post("/mcp", json=INITIALIZE, headers=ann)
            session = {"Mcp-Session-Id": opened.headers["mcp-session-id"]}
            listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}
            answers = [
                client.request(method, "/mcp", json=body, headers={**session, **bob}).status_code
                for method, body in (("POST", listing), ("GET", None), ("DELETE", None))
            ]
            own = client.delete("/mcp", headers={**session, **ann}).status_code

    assert answers == [404, 404, 404]
    assert own == 200


@pytest.mark.requirement("MCPRS-01", "MCPRS-07", "STEP-08")
@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "https://wiki.mcp.example/mcp"},
        {"aud": "https://tickets.mcp.example"},
        {"aud": [RESOURCE, "https://wiki.mcp.example/mcp"]},
        {"iss": "https://evil.example"},
        {"exp": NOW - 1_000, "iat": NOW - 2_000},
        {"client_id": None},
        {"sub": None},
        {"jti": None},
        {"cnf": {"jkt": "A" * 43}},
    ],
    ids=str,
)
def test_a_bad_token_is_refused_by_the_frameworks(
    address: str, server: KeyServer, changes: dict[str, Any]
) -> None:
    answer = post(address, f"Bearer {token_now(server, **changes)}")

    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert METADATA in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("authorization", [(), ("Basic YTpi",), ("Bearer",), ("Bearer x",)])
def test_without_a_token_nobody_gets_in(address: str, authorization: tuple[str, ...]) -> None:
    answer = post(address, *authorization)

    assert answer.status_code == 401
    assert METADATA in answer.headers["WWW-Authenticate"]


@pytest.mark.requirement("MCPRS-05")
def test_a_token_in_the_query_gets_nobody_in(address: str, server: KeyServer) -> None:
    query = {"access_token": token_now(server)}

    answer = httpx2.post(
        f"{address}/mcp", params=query, json=INITIALIZE, headers=HEADERS, trust_env=False
    )

    assert answer.status_code == 401


@pytest.mark.requirement("STEP-05")
def test_a_token_without_the_scopes_is_forbidden(address: str, server: KeyServer) -> None:
    answer = post(address, f"Bearer {token_now(server, scope='tickets:comment')}")

    assert answer.status_code == 403
    assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]


@pytest.mark.requirement("DPOP-08")
def test_a_bound_token_is_refused_without_a_proof(address: str, server: KeyServer) -> None:
    for scheme in ("Bearer", "DPoP"):
        assert post(address, f"{scheme} {bound(server)}").status_code == 401


@pytest.mark.requirement("MCPRS-03")
def test_the_frameworks_serve_the_metadata_of_the_resource(address: str, server: KeyServer) -> None:
    document = httpx2.get(address + METADATA, trust_env=False).json()

    assert document["resource"] == RESOURCE
    assert document["authorization_servers"] == [server.issuer]
    assert document["scopes_supported"] == ["tickets:read"]


def test_the_model_reads_what_a_tool_demands(address: str, server: KeyServer) -> None:
    text, is_error = Caller(address, lambda: token_now(server)).call("close")

    assert is_error
    assert "insufficient_scope: The token does not have the scopes that this needs." in text


def test_a_tool_whose_demands_are_met_answers(address: str, server: KeyServer) -> None:
    enough = "tickets:read tickets:close"

    assert Caller(address, lambda: token_now(server, scope=enough)).call("close") == (
        "closed",
        False,
    )


@pytest.mark.parametrize(
    ("build", "status"), [(by_sdk, 500), (by_fastmcp, 500), (behind_middleware, 503)]
)
def test_while_keys_cannot_be_had_nobody_is_sent_to_log_in(
    build: Callable[..., Any], status: int
) -> None:
    with (
        running_key_server() as empty,
        serving(build(TokenVerifier(empty.issuer, RESOURCE))) as address,
    ):
        answer = post(address, f"Bearer {token_now(empty)}")

    assert answer.status_code == status
    assert "WWW-Authenticate" not in answer.headers


def test_a_fastmcp_server_that_is_not_at_its_resource_does_not_start(server: KeyServer) -> None:
    provider = BrokerAuthProvider(TokenVerifier(server.issuer, RESOURCE))

    with pytest.raises(ValueError, match="and its tokens are for"):
        provider.get_routes("/elsewhere")


def test_outside_a_request_there_is_no_delegation() -> None:
    for delegation in (of_the_sdk, of_fastmcp):
        with pytest.raises(NoSubjectToken):
            delegation()
