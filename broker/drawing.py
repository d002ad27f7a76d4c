"""A token's delegation chain as a tree for people: person, actors, resource, scopes, lifetime."""

import unicodedata
from collections.abc import Mapping
from typing import Any

from rich.text import Text
from rich.tree import Tree

from broker.model import actors_of
from broker.oauth import CLIENT_SUBJECT_PREFIX

_LONGEST = 200
_MCP_CLIENT = "MCP client"
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def visible(value: object) -> str:
    """Any value as one harmless line: what could move a cursor or hide is shown as an escape."""
    text = str(value)
    if len(text) <= _LONGEST and text.isascii() and text.isprintable():
        return text
    shown = "".join(
        one.encode("unicode_escape").decode() if unicodedata.category(one) in _HIDDEN else one
        for one in text[:_LONGEST]
    )
    return shown + ("…" if len(text) > _LONGEST else "")


def token_tree(claims: Mapping[str, Any], *, now: int) -> Tree:
    """
    The chain of a token: the person or client on top, then whoever acts for it, newest last, then the target.

    ``claims`` must have the form of a token of this broker or of any RFC 8693 chain; what they say is
    shown as text whatever it contains. ``now`` is in unix seconds.
    """
    mcp = _mcp_object(claims)
    subject = str(claims.get("sub", "?"))
    label = "person" if _client_of(subject) is None else "client"
    tree = Tree(
        labelled(label, _client_of(subject) or subject, claims_note(mcp)), guide_style="dim"
    )
    branch = tree
    act = claims.get("act")
    actors = actors_of(act) if isinstance(act, Mapping) else ()
    # A list, since what a token claims need not be text.
    shown = [_client_of(subject), *(actor.get("sub") for actor in actors)]
    client = mcp.get("client")
    if client is not None and client not in shown:
        branch = branch.add(labelled(_MCP_CLIENT, client, ""))
        shown.append(client)
    for actor in reversed(actors):
        branch = branch.add(_actor_line(actor, claims, mcp))
    if not actors and claims.get("client_id") not in shown:
        branch = branch.add(labelled("client", claims.get("client_id", "?"), ""))
    target = branch.add(labelled("resource", claims.get("aud", "?"), ""))
    target.add(labelled("scopes", claims.get("scope") or "none", ""))
    target.add(labelled("lifetime", _lifetime(claims, now), ""))
    return tree


def _client_of(subject: str) -> str | None:
    """The client that a token is about, if it is about one."""
    is_client = subject.startswith(CLIENT_SUBJECT_PREFIX)
    return subject.removeprefix(CLIENT_SUBJECT_PREFIX) if is_client else None


def claims_note(mcp: Mapping[str, Any]) -> str:
    """Who vouched for the person, if the token tells."""
    issuer = mcp.get("subject_issuer")
    return f"known to {visible(issuer)}" if issuer else ""


def _mcp_object(claims: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, value in claims.items():
        if name.endswith("/claims/mcp") and isinstance(value, Mapping):
            return value
    return {}


def _actor_line(
    actor: Mapping[str, Any], claims: Mapping[str, Any], mcp: Mapping[str, Any]
) -> Text:
    sub = actor.get("sub", "?")
    if sub == mcp.get("client"):
        return labelled(_MCP_CLIENT, sub, "")
    if sub == claims.get("client_id") and "server" in mcp:
        return labelled("MCP server", sub, visible(mcp["server"]))
    return labelled("actor", sub, visible(actor.get("iss", "")))


def _lifetime(claims: Mapping[str, Any], now: int) -> str:
    expires_at = claims.get("exp")
    if not isinstance(expires_at, int):
        return "unknown"
    left = expires_at - now
    return f"{left // 60}m{left % 60:02}s left" if left > 0 else "expired"


def labelled(label: str, value: object, note: str) -> Text:
    """A line of a tree: what it is, its value as harmless text, and a note where there is one."""
    line = Text.assemble((f"{label:<11}", "cyan"), (visible(value), "bold"))
    return line.append(f"   {note}", "dim") if note else line
