"""A token for people: its delegation as a tree, what else it says, and which of it is proved."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.text import Text
from rich.tree import Tree

from broker.cli.output import plain
from broker.cli.token_checks import Check
from broker.drawing import token_tree
from broker.errors import TokenRejected
from broker.jws import UnverifiedToken
from broker.tokens.claims import read_act

_ALSO: Final = (
    "typ",
    "token_type",
    "iss",
    "aud",
    "client_id",
    "jti",
    "acr",
    "amr",
    "auth_time",
    "cnf",
    "may_act",
)
_MCP_MEMBERS: Final = ("client", "server", "resource")


def draw(parts: UnverifiedToken, checks: Sequence[Check], *, now: int) -> Tree:
    """The tree of a token. Every value in it is shown as text that no terminal obeys."""
    typ = parts.header.unverified_typ or "none"
    tree = draw_claims({**parts.unverified_claims, "typ": typ}, now=now)
    for check in checks:
        tree.add(_checked(check))
    return tree


def draw_claims(told: Mapping[str, Any], *, now: int) -> Tree:
    """The tree of what a token says, or of what somebody tells about it."""
    claims, is_chain_sound = _with_sound_chain(told)
    tree = token_tree(claims, now=now)
    if not is_chain_sound:
        tree.add(Text("the chain of actors cannot be read", style="bold red"))
    _add_mcp(tree, claims)
    for name in _ALSO:
        if name in claims:
            tree.add(_named(name, claims[name]))
    return tree


def _with_sound_chain(claims: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    try:
        read_act(claims)
    except TokenRejected:
        return {name: value for name, value in claims.items() if name != "act"}, False
    return claims, True


def _add_mcp(tree: Tree, claims: Mapping[str, Any]) -> None:
    """The object that names MCP client, server and resource, whatever its claim is called."""
    for name, value in claims.items():
        if name == "act" or not isinstance(value, Mapping):
            continue
        members = [member for member in _MCP_MEMBERS if member in value]
        if members:
            branch = tree.add(plain(name, "dim"))
            for member in members:
                branch.add(_named(member, value[member]))


def _named(name: str, value: object) -> Text:
    return Text(f"{name} ", style="dim").append_text(plain(value))


def _checked(check: Check) -> Text:
    mark, style = ("✔", "green") if check.is_passed else ("✖", "bold red")
    return Text(f"{mark} {check.name} ", style=style).append_text(plain(check.detail))
