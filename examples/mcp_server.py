"""
An MCP server (official SDK) that accepts tokens for itself alone, and calls the API behind it with others.

    python examples/mcp_server.py

It never passes on the token that it was called with: the client for the API exchanges that one at the
broker, for each user, agent and API its own.
"""

import io
import os
import time

import httpx2
from mcp.server import MCPServer
from rich.console import Console

from broker.client import Broker, Secret
from broker.client.httpx2 import BrokerAuth
from broker.client.mcp import delegation, protected, tell_refusals
from broker.client.verify import TokenVerifier
from broker.drawing import token_tree

ISSUER = os.environ.get("WIKI_ISSUER", "http://127.0.0.1:18940/wiki")
SERVER = os.environ.get("WIKI_SERVER", "http://127.0.0.1:18960/mcp")
API = os.environ.get("INDEX_API", "http://127.0.0.1:18962/index")
# It stands here for everybody to read, so it is for trying out and for nothing else.
SECRET = "demo-mcp-wiki-0123456789abcdef0123456789abcdef"

verifier = TokenVerifier(ISSUER, SERVER, required_scopes=["pages.read"])
server = MCPServer("wiki", **protected(verifier))
broker = Broker(ISSUER, Secret("mcp-wiki", SECRET))
index = httpx2.AsyncClient(base_url=API, auth=BrokerAuth(broker, API, scopes=["index.search"]))


@server.tool()
def whoami() -> str:
    """Tell who calls, and through which client."""
    caller = delegation()
    return f"{caller.subject} through {caller.client_id}, may {' '.join(sorted(caller.scopes))}"


@server.tool()
@tell_refusals
async def search(text: str) -> str:
    """Search the wiki; the answer shows whom the API behind it has served."""
    answer = await index.get("search", params={"q": text})
    answer.raise_for_status()
    return drawn(answer.json()["claims"])


def drawn(claims: dict[str, object]) -> str:
    """The chain of a token as the broker's own command line draws it."""
    page = io.StringIO()
    Console(file=page, width=100).print(token_tree(claims, now=int(time.time())))
    return page.getvalue()


if __name__ == "__main__":
    import uvicorn

    port = int(SERVER.rsplit(":", 1)[1].split("/")[0])
    uvicorn.run(server.streamable_http_app(), host="127.0.0.1", port=port, log_level="warning")
