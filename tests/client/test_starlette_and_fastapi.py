"""Starlette and FastAPI as they are, with the dependency, the route and the handler."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from broker.client.current import subject_token
from broker.client.delegation import Delegation
from broker.client.refusals import NotServed
from broker.client.starlette import delegation, metadata_route, not_served, verified
from broker.client.verify import TokenVerifier
from tests.client.key_server import KeyServer, running_key_server
from tests.client.receiving import BROKER_KEY, NOW, RESOURCE, bound, good_token, hash_of
from tests.proofs import HOLDER, good_proof_claims, signed_proof

METADATA = "/.well-known/oauth-protected-resource/mcp"


@pytest.fixture(scope="module")
def server() -> Iterator[KeyServer]:
    with running_key_server() as running:
        running.publish(BROKER_KEY.jwk)
        yield running


def verifier_of(server: KeyServer) -> TokenVerifier:
    return TokenVerifier(
        server.issuer, RESOURCE, required_scopes=("tickets:read",), clock=lambda: NOW
    )


def by_starlette(server: KeyServer) -> Any:
    verifier = verifier_of(server)
    reading, closing = verified(verifier), verified(verifier, "tickets:close")

    async def who(request: Request) -> PlainTextResponse:
        found = await reading(request)
        return PlainTextResponse(f"{found.subject} {delegation() is found} {subject_token()[-5:]}")

    async def close(request: Request) -> PlainTextResponse:
        await closing(request)
        return PlainTextResponse("closed")

    async def vault(request: Request) -> PlainTextResponse:
        (await reading(request)).require_login(acr_values=("phrh",), clock=lambda: NOW)
        return PlainTextResponse("open")

    routes = [Route("/who", who), Route("/close", close), Route("/vault", vault)]
    return Starlette(
        routes=[*routes, metadata_route(verifier)], exception_handlers={NotServed: not_served}
    )


def by_fastapi(server: KeyServer) -> Any:
    verifier = verifier_of(server)
    app = FastAPI()
    app.router.routes.append(metadata_route(verifier))
    app.add_exception_handler(NotServed, not_served)

    @app.get("/who", response_class=PlainTextResponse)
    def who(found: Annotated[Delegation, Depends(verified(verifier))]) -> str:
        # An endpoint that blocks runs in a thread; the request is known there as well.
        return f"{found.subject} {delegation() is found} {subject_token()[-5:]}"

    @app.get("/close", response_class=PlainTextResponse)
    async def close(
        _found: Annotated[Delegation, Depends(verified(verifier, "tickets:close"))],
    ) -> str:
        return "closed"

    @app.get("/vault", response_class=PlainTextResponse)
    async def vault(found: Annotated[Delegation, Depends(verified(verifier))]) -> str:
        found.require_login(acr_values=("phrh",), clock=lambda: NOW)
        return "open"

    return app


FRAMEWORKS: tuple[Callable[[KeyServer], Any], ...] = (by_starlette, by_fastapi)
every_framework = pytest.mark.parametrize("build", FRAMEWORKS)


def ask(app: Any, path: str, /, *, headers: Any = None, method: str = "GET") -> httpx2.Response:
    async def asking() -> httpx2.Response:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://inside") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(asking())


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@every_framework
def test_an_endpoint_gets_the_delegation(build: Any, server: KeyServer) -> None:
    token = good_token(server.issuer)

    answer = ask(build(server), "/who", headers=bearer(token))

    assert (answer.status_code, answer.text) == (200, f"ann True {token[-5:]}")


@pytest.mark.requirement("STEP-08", "MCPRS-04")
@every_framework
def test_without_a_token_nothing_is_served(build: Any, server: KeyServer) -> None:
    answer = ask(build(server), "/who")

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith('Bearer scope="tickets:read"')
    assert "oauth-protected-resource/mcp" in answer.headers["WWW-Authenticate"]


@every_framework
@pytest.mark.parametrize(
    "changes",
    [{"aud": "https://wiki.mcp.example/mcp"}, {"exp": NOW - 31, "iat": NOW - 99}, {"iss": "x"}],
    ids=str,
)
def test_a_bad_token_is_refused(build: Any, server: KeyServer, changes: dict[str, Any]) -> None:
    answer = ask(build(server), "/who", headers=bearer(good_token(server.issuer, **changes)))

    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


@pytest.mark.requirement("STEP-05")
@every_framework
def test_an_endpoint_may_need_more_scopes(build: Any, server: KeyServer) -> None:
    app = build(server)
    enough = good_token(server.issuer, scope="tickets:read tickets:close")
    only_that = good_token(server.issuer, scope="tickets:close")

    assert ask(app, "/close", headers=bearer(enough)).text == "closed"
    for token in (good_token(server.issuer), only_that):
        answer = ask(app, "/close", headers=bearer(token))
        assert answer.status_code == 403
        assert 'scope="tickets:close tickets:read"' in answer.headers["WWW-Authenticate"]


@pytest.mark.requirement("STEP-01")
@every_framework
def test_what_an_endpoint_demands_itself_is_answered_by_the_handler(
    build: Any, server: KeyServer
) -> None:
    answer = ask(build(server), "/vault", headers=bearer(good_token(server.issuer)))

    assert answer.status_code == 401
    assert 'acr_values="phrh"' in answer.headers["WWW-Authenticate"]
    assert answer.json()["error"] == "insufficient_user_authentication"


@every_framework
def test_a_token_with_two_headers_is_refused(build: Any, server: KeyServer) -> None:
    value = f"Bearer {good_token(server.issuer)}"

    assert ask(build(server), "/who", headers=[("Authorization", value)] * 2).status_code == 401


@pytest.mark.requirement("DPOP-08")
@every_framework
def test_a_bound_token_needs_its_proof(build: Any, server: KeyServer) -> None:
    app, token = build(server), bound(server)
    address = "https://tickets.mcp.example/who"
    claims = good_proof_claims(address, htm="GET", ath=hash_of(token))
    proof = signed_proof(claims, key=HOLDER)

    headers = {"Authorization": f"DPoP {token}", "DPoP": proof}
    assert ask(app, "/who", headers=headers).status_code == 200
    assert ask(app, "/who", headers=headers).headers["WWW-Authenticate"].startswith("DPoP ")
    assert ask(app, "/who", headers=bearer(token)).status_code == 401


@every_framework
def test_while_keys_cannot_be_had_the_answer_is_503(build: Any) -> None:
    with running_key_server() as empty:
        answer = ask(build(empty), "/who", headers=bearer(good_token(empty.issuer)))

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert "WWW-Authenticate" not in answer.headers


@pytest.mark.requirement("MCPRS-03")
@every_framework
def test_the_metadata_are_served(build: Any, server: KeyServer) -> None:
    answer = ask(build(server), METADATA)

    assert answer.json()["authorization_servers"] == [server.issuer]
    assert ask(build(server), METADATA, method="OPTIONS").status_code == 204
    assert ask(build(server), METADATA, method="POST").status_code == 405


def test_the_dependency_adds_no_parameter_to_an_endpoint(server: KeyServer) -> None:
    described = by_fastapi(server).openapi()["paths"]["/who"]["get"]

    assert "parameters" not in described
    assert "requestBody" not in described


def test_the_handler_is_for_refusals_alone() -> None:
    with pytest.raises(KeyError):
        asyncio.run(not_served(Request({"type": "http"}), KeyError()))
