"""Clients of FastMCP and of the official SDK before a FastMCP server that takes tokens by our adapter."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider

from tests.interop.stage_of_examples import Examples
from tests.interop.storage import InMemory

SECRET = "demo-agent-nightly-0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def server(examples: Examples) -> Iterator[str]:
    """The address of a FastMCP server that takes the place of the other MCP server."""
    with examples.in_place_of_the_server(
        "tests/interop/fastmcp_receiver.py", examples.wiki, examples.server
    ):
        yield examples.server


@pytest.mark.requirement("CC-02", "MCPRS-03", "MCPRS-04")
def test_a_fastmcp_client_finds_the_broker_through_our_metadata(
    examples: Examples, server: str
) -> None:
    provider = ClientCredentialsOAuthProvider(
        server, InMemory(), "agent-nightly", SECRET, scope="pages.read", issuer=examples.wiki
    )

    async def call() -> Any:
        async with Client(StreamableHttpTransport(server, auth=provider)) as client:
            return await client.call_tool("whoami", {})

    result = asyncio.run(call())

    assert result.data == f"client:agent-nightly through agent-nightly at {server}"


@pytest.mark.requirement("IDJAG-R-01")
def test_an_enterprises_user_is_told_by_name(examples: Examples, server: str) -> None:
    said = examples.agent("examples/agents/enterprise_managed_authorization.py")

    assert said.splitlines()[0] == f"acme|ann through desk-at-wiki at {server}"


@pytest.mark.requirement("MCPRS-01")
def test_a_token_of_the_other_broker_is_refused(examples: Examples, server: str) -> None:
    query = {"sub": "ann", "client_id": "agent-desk"}
    id_token = httpx2.get(f"{examples.idp}/login", params=query).json()["id_token"]

    answer = httpx2.post(server, json={}, headers={"Authorization": f"Bearer {id_token}"})

    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
