"""A FastMCP server that accepts the wiki's tokens by our adapter; started with an issuer and its address."""

import sys
from urllib.parse import urlsplit

from fastmcp import FastMCP

from broker.client.fastmcp import BrokerAuthProvider, delegation
from broker.client.verify import TokenVerifier


def build(issuer: str, address: str) -> FastMCP:
    """The server, all of whose tokens our verifier checks."""
    verifier = TokenVerifier(issuer, address, required_scopes=["pages.read"])
    server: FastMCP = FastMCP("wiki", auth=BrokerAuthProvider(verifier))

    @server.tool
    def whoami() -> str:
        """Tell who calls, through which client, and what the broker states of them."""
        caller = delegation()
        return f"{caller.subject} through {caller.mcp_client} at {caller.resource}"

    return server


if __name__ == "__main__":
    own_address = sys.argv[2]
    build(sys.argv[1], own_address).run(
        transport="http", host="127.0.0.1", port=urlsplit(own_address).port, show_banner=False
    )
