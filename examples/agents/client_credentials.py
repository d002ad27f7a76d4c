"""
An agent that acts for itself: the MCP extension OAuth Client Credentials, by the official SDK.

    python examples/agents/client_credentials.py secret
    python examples/agents/client_credentials.py key

It calls the MCP server without a token, is told where to get one, authenticates to the broker with its
secret or with its key, and calls again. Nothing in it is specific to this broker.
"""

import asyncio
import os
import sys
from pathlib import Path

import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.client.streamable_http import streamable_http_client
from storage import InMemory

ISSUER = os.environ.get("WIKI_ISSUER", "http://127.0.0.1:18940/wiki")
SERVER = os.environ.get("WIKI_SERVER", "http://127.0.0.1:18960/mcp")
CLIENT = "agent-nightly"
# It stands here for everybody to read, so it is for trying out and for nothing else.
SECRET = "demo-agent-nightly-0123456789abcdef0123456789abcdef"
KEY = Path(os.environ.get("AGENT_KEY", ".broker-examples/agent-nightly.pem"))


def provider(how: str) -> OAuthClientProvider:
    """The SDK's own provider, for a secret or for a key."""
    if how == "secret":
        return ClientCredentialsOAuthProvider(
            SERVER, InMemory(), CLIENT, SECRET, scope="pages.read", issuer=ISSUER
        )
    signing = SignedJWTParameters(
        issuer=CLIENT, subject=CLIENT, signing_key=KEY.read_text(), signing_algorithm="ES256"
    )
    return PrivateKeyJWTOAuthProvider(
        SERVER,
        InMemory(),
        CLIENT,
        signing.create_assertion_provider(),
        scope="pages.read",
        issuer=ISSUER,
    )


async def main(how: str) -> None:
    """Call the tools and print what they say."""
    async with (
        httpx2.AsyncClient(auth=provider(how)) as http,
        Client(streamable_http_client(SERVER, http_client=http)) as client,
    ):
        for tool, arguments in (("whoami", {}), ("search", {"text": "holidays"})):
            result = await client.call_tool(tool, arguments)
            print(result.content[0].text)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "secret"))
