"""
An MCP server (official SDK) that accepts tokens of one broker, for itself alone.

    python examples/mcp_server.py

Every token is checked against the broker's published keys: who signed it, that it is an access token, that
it is addressed to this very server, and that it has not expired.
"""

import os

from mcp.server import MCPServer

from broker.client.mcp import delegation, protected
from broker.client.verify import TokenVerifier

ISSUER = os.environ.get("WIKI_ISSUER", "http://127.0.0.1:18940/wiki")
SERVER = os.environ.get("WIKI_SERVER", "http://127.0.0.1:18960/mcp")

verifier = TokenVerifier(ISSUER, SERVER, required_scopes=["pages.read"])
server = MCPServer("wiki", **protected(verifier))


@server.tool()
def whoami() -> str:
    """Tell who calls, and through which client."""
    caller = delegation()
    return f"{caller.subject} through {caller.client_id}, may {' '.join(sorted(caller.scopes))}"


if __name__ == "__main__":
    import uvicorn

    port = int(SERVER.rsplit(":", 1)[1].split("/")[0])
    uvicorn.run(server.streamable_http_app(), host="127.0.0.1", port=port, log_level="warning")
