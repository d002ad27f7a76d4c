"""
An MCP server (official SDK) that accepts tokens of one broker, for itself alone.

    python examples/mcp_server.py

It checks every token against the broker's published keys: who signed it, that it is an access token,
that it is addressed to this very server, and that it has not expired.
"""

import os

import jwt
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from pydantic import AnyHttpUrl

ISSUER = os.environ.get("WIKI_ISSUER", "http://127.0.0.1:18940/wiki")
SERVER = os.environ.get("WIKI_SERVER", "http://127.0.0.1:18960/mcp")


class BrokerTokens:
    """Verifies the broker's access tokens (RFC 9068 4); the SDK asks it for every request."""

    def __init__(self, issuer: str, resource: str) -> None:
        self._issuer, self._resource = issuer, resource
        self._keys = jwt.PyJWKClient(f"{issuer}/jwks", lifespan=300)

    async def verify_token(self, token: str) -> AccessToken | None:
        """What the token says, or ``None`` when it is not one for this server."""
        try:
            if str(jwt.get_unverified_header(token).get("typ", "")).lower() != "at+jwt":
                return None
            claims = jwt.decode(
                token,
                self._keys.get_signing_key_from_jwt(token),
                algorithms=["ES256"],
                audience=self._resource,
                issuer=self._issuer,
                options={"require": ["exp", "iat", "sub", "jti", "client_id"]},
            )
        except jwt.PyJWTError:
            return None
        return AccessToken(
            token=token,
            client_id=claims["client_id"],
            scopes=claims.get("scope", "").split(),
            expires_at=claims["exp"],
            resource=claims["aud"],
            subject=claims["sub"],
            claims=claims,
        )


server = MCPServer(
    "wiki",
    token_verifier=BrokerTokens(ISSUER, SERVER),
    auth=AuthSettings(
        issuer_url=AnyHttpUrl(ISSUER),
        resource_server_url=AnyHttpUrl(SERVER),
        required_scopes=["pages.read"],
        validate_token_resource=True,
    ),
)


@server.tool()
def whoami() -> str:
    """Tell who calls, and through which client."""
    token = get_access_token()
    if token is None:
        return "nobody"
    return f"{token.subject} through {token.client_id}, may {' '.join(token.scopes)}"


if __name__ == "__main__":
    import uvicorn

    port = int(SERVER.rsplit(":", 1)[1].split("/")[0])
    uvicorn.run(server.streamable_http_app(), host="127.0.0.1", port=port, log_level="warning")
