"""A FastMCP server that accepts the wiki's tokens; started with an issuer and its own address."""

import sys
from urllib.parse import urlsplit

from fastmcp import FastMCP
from fastmcp.server.auth import JWTVerifier, RemoteAuthProvider
from fastmcp.server.dependencies import get_access_token
from pydantic import AnyHttpUrl


def build(issuer: str, address: str) -> FastMCP:
    """The server, which checks tokens by FastMCP's own verifier."""
    verifier = JWTVerifier(
        jwks_uri=f"{issuer}/jwks", issuer=issuer, audience=address, algorithm="ES256"
    )
    origin = address.removesuffix("/mcp")
    server: FastMCP = FastMCP(
        "wiki",
        auth=RemoteAuthProvider(
            token_verifier=verifier,
            authorization_servers=[AnyHttpUrl(issuer)],
            base_url=origin,
        ),
    )

    @server.tool
    def whoami() -> str:
        """Tell who calls, and through which client."""
        token = get_access_token()
        return "nobody" if token is None else f"{token.claims['sub']} through {token.client_id}"

    return server


if __name__ == "__main__":
    own_address = sys.argv[2]
    build(sys.argv[1], own_address).run(
        transport="http", host="127.0.0.1", port=urlsplit(own_address).port, show_banner=False
    )
