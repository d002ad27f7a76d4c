"""Servers of the MCP packages: with our verifier nothing is found, and with others what those do not do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from fastmcp import FastMCP
from fastmcp.server.auth import RemoteAuthProvider
from fastmcp.server.auth.providers.introspection import IntrospectionTokenVerifier
from fastmcp.server.auth.providers.jwt import JWTVerifier
from mcp.server import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl

from broker.client.asgi import Verified
from broker.client.fastmcp import BrokerAuthProvider
from broker.client.mcp import protected
from broker.client.resource import origin_of
from broker.client.verify import TokenVerifier
from broker.verify_server.cases import Verdict
from broker.verify_server.proof_cases import PROOF_CASES
from tests.verify_kit.servers import SCOPE, serving_at
from tests.verify_kit.trials import Serving, happened, named, results_of

Build = Callable[[str, str], Any]
_ANY_HOST = TransportSecuritySettings(enable_dns_rebinding_protection=False)
_VERSION = b"mcp-protocol-version"
_NEVER_SHOWN = {"withdrawn", "outlived"}
_OF_PROOFS = {case.name for case in PROOF_CASES}


def serving(build: Build) -> Serving:
    """How to serve an application, which is built from its issuer and its address."""
    return lambda issuer: serving_at(lambda url: build(issuer.url, url))


def by_sdk(issuer: str, url: str) -> Any:
    """The official SDK with our verifier, as in the examples."""
    verifier = TokenVerifier(issuer, url, required_scopes=[SCOPE])
    server: MCPServer[Any] = MCPServer("wiki", **protected(verifier))
    return server.streamable_http_app(transport_security=_ANY_HOST)


def behind_middleware(issuer: str, url: str) -> Any:
    """The official SDK behind our middleware."""
    verifier = TokenVerifier(issuer, url, required_scopes=[SCOPE])
    server: MCPServer[Any] = MCPServer("wiki")
    return Verified(server.streamable_http_app(transport_security=_ANY_HOST), verifier)


def by_fastmcp(issuer: str, url: str) -> Any:
    """FastMCP with our provider."""
    verifier = TokenVerifier(issuer, url, required_scopes=[SCOPE])
    server: FastMCP = FastMCP("wiki", auth=BrokerAuthProvider(verifier))
    return server.http_app(path="/mcp", host_origin_protection=False)


def by_jwt_verifier(issuer: str, url: str) -> Any:
    """FastMCP with its own verifier of JWTs."""
    verifier = JWTVerifier(
        jwks_uri=f"{issuer}/jwks",
        issuer=issuer,
        audience=url,
        algorithm="ES256",
        required_scopes=[SCOPE],
    )
    return _with_metadata(verifier, issuer, url)


def by_introspection(issuer: str, url: str) -> Any:
    """FastMCP that asks the issuer about every token."""
    verifier = IntrospectionTokenVerifier(
        introspection_url=f"{issuer}/introspect",
        client_id="wiki",
        client_secret="not-a-secret",
        required_scopes=[SCOPE],
    )
    return _with_metadata(verifier, issuer, url)


def _with_metadata(verifier: Any, issuer: str, url: str) -> Any:
    auth = RemoteAuthProvider(verifier, [AnyHttpUrl(issuer)], origin_of(url))
    server: FastMCP = FastMCP("wiki", auth=auth)
    return server.http_app(path="/mcp", host_origin_protection=False)


@pytest.mark.requirement("MCPRS-01", "MCPRS-03", "MCPRS-05", "MCPRS-07")
@pytest.mark.parametrize("build", [by_sdk, behind_middleware, by_fastmcp])
def test_a_server_with_our_verifier_fails_nothing(build: Build) -> None:
    results = results_of(serving(build), longest_chain=15)

    assert named(results, Verdict.FAIL) == set()
    bearers_alone = set() if build is behind_middleware else _OF_PROOFS
    assert named(results, Verdict.SKIP) == _NEVER_SHOWN | bearers_alone


@pytest.mark.requirement("MCPRS-04")
def test_our_middleware_does_what_is_recommended_too() -> None:
    assert named(results_of(serving(behind_middleware)), Verdict.WARN) == set()


def test_what_a_verifier_of_any_jwt_does_not_look_at_is_found() -> None:
    results = results_of(serving(by_jwt_verifier), longest_chain=15)

    assert named(results, Verdict.FAIL) == {
        "two-audiences",
        "no-exp",
        "not-yet-valid",
        "plain-jwt",
        "id-token",
        "id-jag",
        "other-type",
        "no-sub",
        "no-client-id",
        "no-iat",
        "no-jti",
        "duplicate-members",
        "bound-as-bearer",
        "chain-too-long",
        "insufficient-scope",
    }


def test_a_server_that_introspects_refuses_what_is_withdrawn_and_may_forget_the_audience(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # FastMCP reads all certificates of the machine anew for every token, and needs none here.
    authority = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    results = results_of(serving(by_introspection), introspects=True)

    assert "withdrawn" in named(results, Verdict.PASS)
    assert named(results, Verdict.FAIL) == {
        "wrong-audience",
        "no-audience",
        "two-audiences",
        "parent-audience",
        "child-audience",
        "look-alike-audience",
        "no-iat",
        "bound-as-bearer",
        "insufficient-scope",
    }


def test_a_server_with_sessions_alone_is_tried_in_one() -> None:
    def build(issuer: str, url: str) -> Any:
        verifier = TokenVerifier(issuer, url, required_scopes=[SCOPE])
        server: MCPServer[Any] = MCPServer("wiki")
        app = server.streamable_http_app(transport_security=_ANY_HOST)
        return Verified(_without_stateless(app), verifier)

    results = results_of(serving(build))

    assert named(results, Verdict.PASS) >= {"good-token", "good-token-again"}
    assert named(results, Verdict.FAIL) == set()


def _without_stateless(app: Any) -> Any:
    async def older(scope: Any, receive: Any, send: Any) -> None:
        versions = [value for name, value in scope.get("headers", ()) if name == _VERSION]
        if b"2026-07-28" in versions:
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await app(scope, receive, send)

    return older


def test_a_session_that_serves_everybody_is_found() -> None:
    def build(issuer: str, url: str) -> Any:
        verifier = TokenVerifier(issuer, url, required_scopes=[SCOPE])
        server: MCPServer[Any] = MCPServer("wiki")
        app = server.streamable_http_app(transport_security=_ANY_HOST)
        return Verified(_without_user(app), verifier)

    results = results_of(serving(build))

    assert named(results, Verdict.FAIL) == {"session-of-another"}


def _without_user(app: Any) -> Any:
    async def blind(scope: Any, receive: Any, send: Any) -> None:
        await app({name: value for name, value in scope.items() if name != "user"}, receive, send)

    return blind


def test_a_server_that_does_not_introspect_takes_what_is_withdrawn() -> None:
    results = results_of(serving(by_fastmcp), introspects=True)

    assert named(results, Verdict.FAIL) == {"withdrawn"}


@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA"])
def test_other_algorithms_are_tried_alike(algorithm: str) -> None:
    def build(issuer: str, url: str) -> Any:
        verifier = TokenVerifier(issuer, url, required_scopes=[SCOPE], algorithms=[algorithm])
        return Verified(MCPServer("wiki").streamable_http_app(), verifier)

    results = results_of(serving(build), algorithm=algorithm)

    assert named(results, Verdict.FAIL) == set(), happened(results)


def test_of_a_server_that_trusts_somebody_else_nothing_is_shown() -> None:
    def build(_issuer: str, url: str) -> Any:
        return by_sdk("http://127.0.0.1:9", url)

    results = results_of(serving(build))

    assert {"good-token", "metadata-issuer"} <= named(results, Verdict.FAIL)
    assert "wrong-audience" in named(results, Verdict.SKIP)
    assert "no-token" in named(results, Verdict.PASS)
