"""Says in words what a fact would have to be."""

from collections.abc import Iterable, Mapping
from typing import Any

from broker.model import Relation

Path = tuple[str, ...]
"""Where a fact stands, as a policy would write it: ``("context", "auth", "acr")``."""

_NOUNS: Mapping[Path, str] = {
    ("context", "subject"): "the subject",
    ("context", "subject", "issuer"): "the subject's issuer",
    ("context", "subject", "kind"): "the subject's kind",
    ("context", "subject", "tenant"): "the subject's tenant",
    ("context", "subject_issuer"): "the subject's issuer",
    ("context", "subject_kind"): "the subject's kind",
    ("context", "tenant"): "the subject's tenant",
    ("context", "subject_audience"): "the subject token's audience",
    ("context", "mcp_client"): "the MCP client",
    ("context", "mcp_server"): "the MCP server",
    ("context", "chain_depth"): "the number of actors",
    ("context", "auth", "acr"): "the login's acr",
    ("context", "auth", "age"): "the login's age in seconds",
    ("principal", "client_id"): "the client",
    ("principal", "profile"): "the client's profile",
    ("principal", "tenant"): "the client's tenant",
    ("resource", "name"): "the scope asked for",
    ("resource", "uri"): "the resource asked for",
    ("resource", "authorization_server"): "the resource's authorization server",
    ("resource", "owner"): "the resource's owner",
    ("resource", "tenant"): "the resource's tenant",
}

_HAVING: Mapping[Path, tuple[str, str]] = {
    ("context", "subject_scopes"): ("the subject token carried", "the subject token lacked"),
    ("context", "auth", "amr"): ("the user logged in with", "the user logged in without"),
    ("resource", "derives_from"): ("the scope derived from", "the scope did not derive from"),
}

_RELATIONS: Mapping[str, str] = {
    Relation.AUDIENCE: "the client owned the resource that the subject token is addressed to",
    Relation.ISSUED_TO: "the subject token had been issued to the client",
    Relation.IDENTITY: "the client presented an ID token that was issued to it",
    Relation.SELF: "the client asked for itself, without a subject token",
    Relation.ASSERTED: "an identity assertion named the client",
}

_FLAGS: Mapping[Path, tuple[str, str]] = {
    ("context", "has_actor_token"): (
        "the client proved itself as the actor with a token of its own",
        "the client sent no actor token",
    ),
}


def equals(path: Path, value: Any) -> str:
    """The fact was this value."""
    if path == ("context", "relation") and value in _RELATIONS:
        return _RELATIONS[value]
    return f"{_noun(path)} was {shown(value)}"


def differs(path: Path, values: Iterable[Any]) -> str:
    """The fact was none of these values."""
    return f"{_noun(path)} was not {alternatives(values)}"


def one_of(path: Path, values: Iterable[Any]) -> str:
    """The fact was any of these values."""
    return f"{_noun(path)} was {alternatives(values)}"


def compares(path: Path, bound: str, *, value: Any) -> str:
    """The fact was on this side of the value; ``bound`` is ``at most`` or ``at least``."""
    return f"{_noun(path)} was {bound} {shown(value)}"


def holds(path: Path, what: str) -> str:
    """The set contained what is said."""
    return f"{_HAVING[path][0] if path in _HAVING else f'{_noun(path)} contained'} {what}"


def lacks(path: Path, what: str) -> str:
    """The set did not contain what is said."""
    return f"{_HAVING[path][1] if path in _HAVING else f'{_noun(path)} lacked'} {what}"


def is_so(path: Path, *, wanted: bool) -> str:
    """The fact was true, or it was false."""
    said = _FLAGS.get(path, (f"{_noun(path)} was so", f"{_noun(path)} was not so"))
    return said[0 if wanted else 1]


def known(path: Path) -> str:
    """The fact was there."""
    return f"{_noun(path)} was known"


def absent(path: Path) -> str:
    """The fact was not there."""
    return f"there was nothing known of {_noun(path)}"


def alternatives(values: Iterable[Any]) -> str:
    """The values, any of which will do."""
    return " or ".join(map(shown, values))


def together(values: Iterable[Any]) -> str:
    """The values, all of which are needed."""
    return " and ".join(map(shown, values))


def shown(value: Any) -> str:
    """A value as a reader would write it."""
    if isinstance(value, dict) and "__entity" in value:
        return str(value["__entity"]["id"])
    return str(value)


def _noun(path: Path) -> str:
    return _NOUNS.get(path, ".".join(path))
