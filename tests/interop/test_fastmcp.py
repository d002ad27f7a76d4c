"""FastMCP as a server, as a client, and as a judge of our identity assertions."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport
from fastmcp.server.auth.identity_assertion import (
    IdentityAssertion,
    IdentityAssertionError,
    IdentityAssertionValidator,
)
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider

from broker.oauth import GRANT_TOKEN_EXCHANGE, TOKEN_TYPE_ID_JAG, TOKEN_TYPE_ID_TOKEN
from tests.interop.stage_of_examples import Examples
from tests.interop.storage import InMemory

SECRET = "demo-{}-0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def server(examples: Examples) -> Iterator[str]:
    """The address of a FastMCP server that takes the place of the other MCP server."""
    with examples.in_place_of_the_server(
        "tests/interop/fastmcp_server.py", examples.wiki, examples.server
    ):
        yield examples.server


@pytest.mark.requirement("CC-02", "CC-04")
def test_a_fastmcp_client_gets_its_own_token_and_calls_a_fastmcp_server(
    examples: Examples, server: str
) -> None:
    provider = ClientCredentialsOAuthProvider(
        server,
        InMemory(),
        "agent-nightly",
        SECRET.format("agent-nightly"),
        scope="pages.read",
        issuer=examples.wiki,
    )

    async def call() -> Any:
        async with Client(StreamableHttpTransport(server, auth=provider)) as client:
            return await client.call_tool("whoami", {})

    result = asyncio.run(call())

    assert result.data == "client:agent-nightly through agent-nightly"


@pytest.mark.requirement("IDJAG-I-11", "IDJAG-I-12", "IDJAG-I-19")
def test_the_id_jag_validator_of_fastmcp_accepts_what_is_issued_here(examples: Examples) -> None:
    claims = asyncio.run(_judge(examples, issue(examples), client_id="desk-at-wiki"))

    assert claims["sub"] == "ann"
    assert claims["aud"] == examples.wiki
    assert claims["resource"] == examples.server


def test_the_id_jag_validator_of_fastmcp_refuses_it_for_another_client(examples: Examples) -> None:
    with pytest.raises(IdentityAssertionError):
        asyncio.run(_judge(examples, issue(examples), client_id="agent-desk"))


async def _judge(examples: Examples, assertion: str, *, client_id: str) -> dict[str, Any]:
    config = IdentityAssertion(
        trusted_issuers=[examples.acme],
        jwks_uris={examples.acme: f"{examples.acme}/jwks"},
        algorithm="ES256",
    )
    validator = IdentityAssertionValidator(config, audience=examples.wiki)
    validated: dict[str, Any] = await validator.validate(
        assertion, client_id=client_id, resource_url=examples.server
    )
    return validated


def issue(examples: Examples) -> str:
    """An ID-JAG of Acme's broker for Ann at the wiki."""
    query = {"sub": "ann", "client_id": "agent-desk"}
    id_token = httpx2.get(f"{examples.idp}/login", params=query).json()["id_token"]
    answer = httpx2.post(
        f"{examples.acme}/token",
        auth=("agent-desk", SECRET.format("agent-desk")),
        data={
            "grant_type": GRANT_TOKEN_EXCHANGE,
            "requested_token_type": TOKEN_TYPE_ID_JAG,
            "subject_token": id_token,
            "subject_token_type": TOKEN_TYPE_ID_TOKEN,
            "audience": examples.wiki,
            "scope": "pages.read",
        },
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])
