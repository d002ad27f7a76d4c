"""
The same MCP server with FastMCP, at the same address.

    python examples/fastmcp_server.py

The token for the API is a parameter that the model never sees.
"""

import os

import httpx2
from fastmcp import FastMCP

from broker.client import Broker, Secret
from broker.client.fastmcp import BrokerAuthProvider, DownstreamToken, TellRefusals, delegation
from broker.client.verify import TokenVerifier

ISSUER = os.environ.get("WIKI_ISSUER", "http://127.0.0.1:18940/wiki")
SERVER = os.environ.get("WIKI_SERVER", "http://127.0.0.1:18960/mcp")
API = os.environ.get("INDEX_API", "http://127.0.0.1:18962/index")
# It stands here for everybody to read, so it is for trying out and for nothing else.
SECRET = "demo-mcp-wiki-0123456789abcdef0123456789abcdef"

broker = Broker(ISSUER, Secret("mcp-wiki", SECRET))
verifier = TokenVerifier(ISSUER, SERVER, required_scopes=["pages.read"])
server: FastMCP = FastMCP("wiki", auth=BrokerAuthProvider(verifier), middleware=[TellRefusals()])


@server.tool
def whoami() -> str:
    """Tell who calls, and through which client."""
    caller = delegation()
    return f"{caller.subject} through {caller.client_id}, may {' '.join(sorted(caller.scopes))}"


@server.tool
async def search(text: str, token: str = DownstreamToken(broker, API, "index.search")) -> str:
    """Search the wiki; the answer names who acted for whom."""
    async with httpx2.AsyncClient() as http:
        headers = {"Authorization": f"Bearer {token}"}
        answer = await http.get(f"{API}/search", params={"q": text}, headers=headers)
    claims = answer.raise_for_status().json()["claims"]
    return f"{claims['act']['sub']} for {claims['sub']} at {claims['aud']}"


if __name__ == "__main__":
    port = int(SERVER.rsplit(":", 1)[1].split("/")[0])
    server.run(transport="http", host="127.0.0.1", port=port, show_banner=False)
