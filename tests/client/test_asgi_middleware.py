"""An ASGI application behind the middleware: who gets through, and what the others are told."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from broker.client.asgi import Verified, delegation
from broker.client.current import subject_token
from broker.client.failures import NoSubjectToken
from broker.client.refusals import InsufficientScope
from broker.client.verify import TokenVerifier
from tests.client.key_server import KeyServer, running_key_server
from tests.client.receiving import (
    BROKER_KEY,
    NOW,
    RESOURCE,
    bound,
    good_token,
    hash_of,
    proof_for,
)
from tests.proofs import HOLDER, good_proof_claims, signed_proof

METADATA = "/.well-known/oauth-protected-resource/mcp"


@pytest.fixture(scope="module")
def server() -> Iterator[KeyServer]:
    with running_key_server() as running:
        running.publish(BROKER_KEY.jwk)
        yield running


async def application(scope: Any, _receive: Any, send: Any) -> None:
    """Tell who calls, or that nobody does; some paths need more than the rest."""
    try:
        found = delegation()
        said = f"{found.subject} {scope['state']['delegation'] is found} {subject_token()[-5:]}"
    except NoSubjectToken:
        said = "nobody"
    if scope["path"] == "/mcp/close":
        delegation().require_scopes("tickets:close", "tickets:read")
    if scope["path"] == "/mcp/vault":
        delegation().require_login(acr_values=("phrh",), max_age=60, clock=lambda: NOW)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/mcp/late":
        delegation().require_scopes("tickets:close")
    await send({"type": "http.response.body", "body": said.encode()})


def protected(server: KeyServer, **settings: Any) -> Verified:
    verifier = TokenVerifier(
        server.issuer,
        RESOURCE,
        clock=lambda: NOW,
        required_scopes=settings.pop("required_scopes", ("tickets:read",)),
    )
    return Verified(application, verifier, **settings)


def ask(
    app: Verified, path: str = "/mcp", /, *, method: str = "POST", headers: Any = None
) -> httpx2.Response:
    """One request, to a host that is not the resource's, as behind a proxy."""

    async def asking() -> httpx2.Response:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://inside:8080") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(asking())


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_request_with_a_good_token_is_served_in_its_name(server: KeyServer) -> None:
    token = good_token(server.issuer)

    answer = ask(protected(server), headers=bearer(token))

    assert (answer.status_code, answer.text) == (200, f"ann True {token[-5:]}")


def test_nothing_stays_of_a_request_that_was_served(server: KeyServer) -> None:
    app = protected(server)
    token = good_token(server.issuer)

    async def one_after_the_other() -> None:
        async def receive() -> Any:
            return {"type": "http.request"}

        async def send(_message: Any) -> None: ...

        headers = [(b"authorization", f"Bearer {token}".encode())]
        scope = {"type": "http", "path": "/mcp", "method": "POST", "headers": headers}
        await app(scope, receive, send)
        with pytest.raises(NoSubjectToken):
            delegation()
        with pytest.raises(NoSubjectToken):
            subject_token()

    asyncio.run(one_after_the_other())


@pytest.mark.requirement("MCPRS-05", "STEP-08", "MCPRS-04")
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic YTpi"}, {"Authorization": ""}])
def test_a_request_without_a_token_is_told_where_to_get_one(
    server: KeyServer, headers: dict[str, str]
) -> None:
    answer = ask(protected(server), headers=headers)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == (
        'Bearer scope="tickets:read", resource_metadata="https://tickets.mcp.example'
        '/.well-known/oauth-protected-resource/mcp"'
    )
    assert answer.headers["Cache-Control"] == "no-store"
    assert "error" not in answer.json()


@pytest.mark.requirement("MCPRS-05")
def test_a_token_in_the_query_is_no_token(server: KeyServer) -> None:
    answer = ask(protected(server), f"/mcp?access_token={good_token(server.issuer)}")

    assert answer.status_code == 401
    assert "error=" not in answer.headers["WWW-Authenticate"]


@pytest.mark.requirement("MCPRS-01")
def test_a_token_for_somebody_else_is_refused(server: KeyServer) -> None:
    token = good_token(server.issuer, aud="https://wiki.mcp.example/mcp")

    answer = ask(protected(server), headers=bearer(token))

    assert answer.status_code == 401
    assert answer.json() == {
        "error": "invalid_token",
        "error_description": "The token is not addressed to this recipient.",
    }
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("value", ["Bearer", "Bearer ", "Bearer a b", "Bearer a,b", "Bearer é"])
def test_an_authorization_header_that_is_no_token_is_refused(server: KeyServer, value: str) -> None:
    answer = ask(protected(server), headers={"Authorization": value.encode()})

    assert answer.status_code == 401


def test_two_authorization_headers_are_refused_even_if_both_are_good(server: KeyServer) -> None:
    value = f"Bearer {good_token(server.issuer)}"

    answer = ask(protected(server), headers=[("Authorization", value)] * 2)

    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_the_scheme_is_read_as_http_wants_it(server: KeyServer, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {good_token(server.issuer)}"}

    assert ask(protected(server), headers=headers).status_code == 200


@pytest.mark.requirement("STEP-05")
def test_a_token_without_the_scopes_is_forbidden_and_told_all_of_them(server: KeyServer) -> None:
    app = protected(server, required_scopes=("tickets:read", "tickets:close"))

    answer = ask(app, headers=bearer(good_token(server.issuer)))

    assert (answer.status_code, answer.json()["error"]) == (403, "insufficient_scope")
    assert 'scope="tickets:close tickets:read"' in answer.headers["WWW-Authenticate"]


@pytest.mark.requirement("STEP-01", "STEP-05")
@pytest.mark.parametrize(
    ("path", "status", "part"),
    [
        ("/mcp/close", 403, 'scope="tickets:close tickets:read"'),
        ("/mcp/vault", 401, 'acr_values="phrh", max_age="60"'),
    ],
)
def test_what_an_endpoint_demands_is_answered_with_its_challenge(
    server: KeyServer, path: str, status: int, part: str
) -> None:
    answer = ask(protected(server), path, headers=bearer(good_token(server.issuer)))

    assert answer.status_code == status
    assert part in answer.headers["WWW-Authenticate"]


def test_a_demand_after_the_answer_began_is_an_error(server: KeyServer) -> None:
    with pytest.raises(InsufficientScope):
        ask(protected(server), "/mcp/late", headers=bearer(good_token(server.issuer)))


def test_while_keys_cannot_be_had_nobody_is_sent_to_log_in_again() -> None:
    with running_key_server() as empty:
        answer = ask(protected(empty), headers=bearer(good_token(empty.issuer)))

    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "10"
    assert "WWW-Authenticate" not in answer.headers


def test_public_paths_need_no_token_and_have_no_name(server: KeyServer) -> None:
    app = protected(server, public={"/healthz"})

    answer = ask(app, "/healthz", headers=bearer(good_token(server.issuer)))

    assert (answer.status_code, answer.text) == (200, "nobody")
    assert ask(app, "/healthz/more").status_code == 401


@pytest.mark.requirement("MCPRS-03")
def test_anybody_may_read_the_metadata(server: KeyServer) -> None:
    answer = ask(protected(server), METADATA, method="GET")

    assert answer.status_code == 200
    assert answer.json()["resource"] == RESOURCE
    assert answer.json()["authorization_servers"] == [server.issuer]
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert ask(protected(server), METADATA + "?x=1", method="GET").status_code == 200


def test_a_page_of_another_origin_may_ask_for_the_metadata_first(server: KeyServer) -> None:
    answer = ask(protected(server), METADATA, method="OPTIONS")

    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["Access-Control-Allow-Methods"] == "GET"


def test_nobody_may_write_the_metadata(server: KeyServer) -> None:
    assert ask(protected(server), METADATA, method="PUT").status_code == 405
    assert ask(protected(server), METADATA, method="HEAD").content == b""


@pytest.mark.requirement("DPOP-08")
def test_a_bound_token_is_served_with_its_proof(server: KeyServer) -> None:
    token = bound(server)
    headers = {"Authorization": f"DPoP {token}", "DPoP": proof_for(token)}

    assert ask(protected(server), headers=headers).status_code == 200


def test_the_address_of_a_proof_is_the_one_that_the_client_knows(server: KeyServer) -> None:
    token = bound(server)
    claims = good_proof_claims("http://inside:8080/mcp", ath=hash_of(token))
    proof = signed_proof(claims, key=HOLDER)

    answer = ask(protected(server), headers={"Authorization": f"DPoP {token}", "DPoP": proof})

    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_dpop_proof")


@pytest.mark.requirement("DPOP-01", "DPOP-08")
@pytest.mark.parametrize("scheme", ["Bearer", "DPoP"])
@pytest.mark.parametrize("count", [0, 2])
def test_a_bound_token_without_its_one_proof_is_refused(
    server: KeyServer, scheme: str, count: int
) -> None:
    token = bound(server)
    proofs = [("DPoP", proof_for(token)) for _ in range(count)]

    answer = ask(protected(server), headers=[("Authorization", f"{scheme} {token}"), *proofs])

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("DPoP ")


def connect(app: Verified, /, *, headers: Any = (), extensions: Any = None) -> list[Any]:
    """What a server is sent when somebody opens a WebSocket."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/mcp",
        "headers": headers,
        "extensions": extensions or {},
    }
    asyncio.run(app(scope, receive, send))
    return sent


def test_a_websocket_needs_a_token_as_well(server: KeyServer) -> None:
    denied = connect(protected(server), extensions={"websocket.http.response": {}})

    assert connect(protected(server)) == [{"type": "websocket.close", "code": 1008}]
    assert [one["type"] for one in denied] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert denied[0]["status"] == 401


def test_a_websocket_with_a_token_is_let_through(server: KeyServer) -> None:
    headers = [(b"authorization", f"Bearer {good_token(server.issuer)}".encode())]

    assert connect(protected(server), headers=headers)[0]["status"] == 200


def test_the_life_of_the_application_is_its_own(server: KeyServer) -> None:
    seen: list[str] = []

    async def living(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope["type"])

    async def receive() -> Any: ...

    async def send(_message: Any) -> None: ...

    app = Verified(living, TokenVerifier(server.issuer, RESOURCE))
    asyncio.run(app({"type": "lifespan"}, receive, send))

    assert seen == ["lifespan"]
    with pytest.raises(ValueError, match="no way to verify"):
        asyncio.run(app({"type": "webtransport"}, receive, send))
    assert seen == ["lifespan"]
