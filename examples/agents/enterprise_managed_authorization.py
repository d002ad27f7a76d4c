"""
An agent whose users need no consent screen: the MCP extension Enterprise-Managed Authorization.

    python examples/agents/enterprise_managed_authorization.py

Ann has signed in to the agent at Acme's identity provider. Acme's broker turns her ID token into an
identity assertion (ID-JAG) for the wiki's authorization server; that one, a broker that shares nothing
with Acme's, redeems it for a token for its MCP server. The second half is the official SDK's own provider.
"""

import asyncio
import os

import httpx2
from mcp import Client
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from storage import InMemory

ACME = os.environ.get("ACME_ISSUER", "http://127.0.0.1:18950/acme")
WIKI = os.environ.get("WIKI_ISSUER", "http://127.0.0.1:18940/wiki")
SERVER = os.environ.get("WIKI_SERVER", "http://127.0.0.1:18960/mcp")
IDP = os.environ.get("ACME_IDP", "http://127.0.0.1:18961")
# They stand here for everybody to read, so they are for trying out and for nothing else.
SECRET_AT_ACME = "demo-agent-desk-0123456789abcdef0123456789abcdef"
SECRET_AT_WIKI = "demo-desk-at-wiki-0123456789abcdef0123456789abcdef"


async def main() -> None:
    """Call the tools for Ann and print what they say."""
    async with httpx2.AsyncClient() as http:
        answer = await http.get(f"{IDP}/login", params={"sub": "ann", "client_id": "agent-desk"})
        id_token = answer.json()["id_token"]

    async def assertion(audience: str, resource: str) -> str:
        async with httpx2.AsyncClient() as http:
            answer = await http.post(
                f"{ACME}/token",
                auth=("agent-desk", SECRET_AT_ACME),
                data={
                    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                    "requested_token_type": "urn:ietf:params:oauth:token-type:id-jag",
                    "subject_token": id_token,
                    "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
                    "audience": audience,
                    "resource": resource,
                    "scope": "pages.read",
                },
            )
            answer.raise_for_status()
            return str(answer.json()["access_token"])

    provider = IdentityAssertionOAuthProvider(
        SERVER, InMemory(), "desk-at-wiki", SECRET_AT_WIKI, WIKI, assertion, scope="pages.read"
    )
    async with (
        httpx2.AsyncClient(auth=provider) as http,
        Client(streamable_http_client(SERVER, http_client=http)) as client,
    ):
        for tool, arguments in (("whoami", {}), ("search", {"text": "holidays"})):
            result = await client.call_tool(tool, arguments)
            print(result.content[0].text)


if __name__ == "__main__":
    asyncio.run(main())
