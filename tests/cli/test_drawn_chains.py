"""The tree of a token shows everybody who takes part once, whatever the token claims."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from broker.drawing import token_tree

ISSUER = "https://broker.example"
API = "https://api.example/v2"
WIKI = "https://wiki.example/mcp"


def drawn(**claims: Any) -> list[str]:
    """Who is in the tree, one line each, as far as the resource."""
    page = StringIO()
    Console(width=200, file=page).print(token_tree({"aud": API, **claims}, now=0))
    lines = [" ".join(line.strip("│├└─ ").split()) for line in page.getvalue().splitlines()]
    return lines[: lines.index(f"resource {API}")]


def told(**members: Any) -> dict[str, Any]:
    """The object about client and server."""
    return {f"{ISSUER}/claims/mcp": members}


CHAINS = {
    "a person's login at a client": (
        {"sub": "ann", "client_id": "desk", **told(client="desk", subject_issuer="https://idp")},
        ["person ann known to https://idp", "MCP client desk"],
    ),
    "a redeemed assertion, exchanged by a server": (
        {
            "sub": "ann",
            "client_id": "wiki",
            "act": {"sub": "wiki"},
            **told(client="desk", server=WIKI),
        },
        ["person ann", "MCP client desk", f"MCP server wiki {WIKI}"],
    ),
    "an exchange of what was exchanged": (
        {
            "sub": "ann",
            "client_id": "wiki",
            "act": {"sub": "wiki", "act": {"sub": "desk"}},
            **told(client="desk", server=WIKI),
        },
        ["person ann", "MCP client desk", f"MCP server wiki {WIKI}"],
    ),
    "a client for itself": (
        {"sub": "client:nightly", "client_id": "nightly", **told(client="nightly")},
        ["client nightly"],
    ),
    "a server for such a client": (
        {
            "sub": "client:nightly",
            "client_id": "wiki",
            "act": {"sub": "wiki"},
            **told(client="nightly", server=WIKI),
        },
        ["client nightly", f"MCP server wiki {WIKI}"],
    ),
    "a token that tells of no client": (
        {"sub": "ann", "client_id": "wiki"},
        ["person ann", "client wiki"],
    ),
    "claims that are no text": (
        {"sub": ["ann"], "client_id": 1, "act": {"sub": {}}, **told(client=["desk"], server=None)},
        ["person ['ann']", "MCP client ['desk']", "actor {}"],
    ),
    "claims that would move the cursor": (
        {"sub": "ann\x1b[2J", "client_id": "wiki", **told(client="d\u202eesk")},
        ["person ann\\x1b[2J", "MCP client d\\u202eesk", "client wiki"],
    ),
}


@pytest.mark.parametrize(("claims", "shown"), CHAINS.values(), ids=list(CHAINS))
def test_everybody_is_drawn_once(claims: dict[str, Any], shown: list[str]) -> None:
    assert drawn(**claims) == shown
