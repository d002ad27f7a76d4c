"""
The API behind the wiki's MCP server: it accepts tokens for itself alone, and tells whom it serves.

    python examples/index_api.py
"""

import os
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from broker.client.refusals import NotServed
from broker.client.starlette import metadata_route, not_served, verified
from broker.client.verify import TokenVerifier

ISSUER = os.environ.get("WIKI_ISSUER", "http://127.0.0.1:18940/wiki")
API = os.environ.get("INDEX_API", "http://127.0.0.1:18962/index")

verifier = TokenVerifier(ISSUER, API)


async def search(request: Request) -> JSONResponse:
    """One made-up page for whatever is looked for, and the claims that the request came with."""
    caller = await verified(verifier, "index.search")(request)
    found: dict[str, Any] = {"page": request.query_params.get("q", ""), "claims": caller.claims}
    return JSONResponse(found)


app = Starlette(
    routes=[Route("/index/search", search), metadata_route(verifier)],
    exception_handlers={NotServed: not_served},
)


if __name__ == "__main__":
    import uvicorn

    port = int(API.rsplit(":", 1)[1].split("/")[0])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
