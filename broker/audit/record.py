"""The closed schema of an audit record, and how facts are bounded to fit it."""

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Annotated, Any, Final, Literal, get_type_hints

from msgspec import Meta, Struct

from broker.audit.text import safe_text
from broker.errors import Reason
from broker.model import InputToken, ScopeDecision

VERSION: Final = 1
TEXT_LIMIT: Final = 1024
ID_LIMIT: Final = 512
LIST_LIMIT: Final = 32

_OBJECT_DEPTH: Final = 3
# Integers beyond this are not safe to exchange in JSON (RFC 8259 6).
_LARGEST_INTEGER: Final = 2**53 - 1

Event = Literal[
    "token.issue",
    "policy.explain",
    "config.loaded",
    "config.rejected",
    "service.started",
    "service.stopped",
    "chain.opened",
    "chain.closed",
]
REQUEST_EVENTS: Final = frozenset({"token.issue", "policy.explain"})
"""Events in which somebody asked for something, so that the record says permit or deny."""
SERVICE_EVENTS: Final = frozenset(
    {"config.loaded", "config.rejected", "service.started", "service.stopped"}
)
"""Events of the service itself, which inform."""

Text = Annotated[str, Meta(max_length=TEXT_LIMIT)]
Id = Annotated[str, Meta(max_length=ID_LIMIT)]
Ids = Annotated[list[Id], Meta(max_length=LIST_LIMIT)]
Objects = Annotated[list[dict[str, Any]], Meta(max_length=LIST_LIMIT)]


class InputFact(Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A verified token that a request presented, by its slot, issuer, id and expiry."""

    slot: Id
    issuer: Id
    expires_at: int
    jti: Id | None = None


class ScopeFact(Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What policy said to one scope, by which policies, and what went wrong in evaluation."""

    scope: Id
    verdict: Id
    policy_ids: Ids = []
    errors: Ids = []


Inputs = Annotated[list[InputFact], Meta(max_length=LIST_LIMIT)]
ScopeFacts = Annotated[list[ScopeFact], Meta(max_length=LIST_LIMIT)]


class Record(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """
    One line of the audit log. What is not known is left out.

    ``writer``, ``seq`` and ``prev`` place it in its chain; only the chain sets them. Times named
    ``..._at`` are unix seconds, ``lifetime`` is in seconds, ``time`` is RFC 3339 in UTC.
    ``boot_id``, ``cause`` and ``torn_bytes`` belong to the records that the chain writes about
    itself.
    """

    v: int
    event: Event
    event_id: Id
    time: str
    decision: Literal["permit", "deny", "info"]

    writer: Id = ""
    seq: int = -1
    prev: str = ""

    actors: Objects | None = None
    auth_method: Id | None = None
    boot_id: Id | None = None
    cause: Id | None = None
    chain_depth: int | None = None
    client_id: Id | None = None
    detail: Text | None = None
    error: Id | None = None
    expires_at: int | None = None
    face: Id | None = None
    foreign_actors_from: Id | None = None
    grant_type: Id | None = None
    inputs: Inputs | None = None
    issued_at: int | None = None
    issued_token_type: Id | None = None
    jti: Id | None = None
    kid: Id | None = None
    lifetime: int | None = None
    lifetime_limit: Id | None = None
    mcp_client: Id | None = None
    mcp_server: Id | None = None
    parameter: Id | None = None
    peer: Id | None = None
    policy_digest: Id | None = None
    policy_ids: Ids | None = None
    reason: Id | None = None
    relation: Id | None = None
    resource: Text | None = None
    scope_decisions: ScopeFacts | None = None
    scopes_asked: Ids | None = None
    scopes_granted: Ids | None = None
    subject: Text | None = None
    subject_issuer: Text | None = None
    subject_kind: Id | None = None
    targets_asked: Ids | None = None
    tenant: Id | None = None
    torn_bytes: int | None = None
    unverified_client_id: Id | None = None


def bounded(name: str, value: object) -> Any:
    """
    The value of a fact in the form that its record holds.

    Raises ``ValueError`` for a name that is not on the list or a reason that is not on its own, and
    ``TypeError`` for a value of the wrong type: both are mistakes in the program, never the fault
    of a request.
    """
    try:
        bound = _BOUNDS[name]
    except KeyError:
        raise ValueError(f"an audit record has no fact named {name!r}") from None
    return bound(value)


def rfc3339(seconds: float) -> str:
    """A moment in unix seconds as RFC 3339 in UTC, to the microsecond."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _text(value: object, limit: int = TEXT_LIMIT) -> str:
    if not isinstance(value, str):
        raise TypeError(f"an audit fact is text, not {type(value).__name__}")
    return safe_text(str.__str__(value), limit)


def _id(value: object) -> str:
    return _text(value, ID_LIMIT)


def _reason(value: object) -> str:
    code = value.code if isinstance(value, Reason) else value
    if code not in _REASONS:
        raise ValueError("an audit record's reason comes from the closed list")
    return str(code)


def _integer(value: object) -> int:
    if isinstance(value, timedelta):
        value = int(value.total_seconds())
    if not isinstance(value, int):
        raise TypeError(f"an audit fact is an integer, not {type(value).__name__}")
    return max(-_LARGEST_INTEGER, min(int(value), _LARGEST_INTEGER))


def _listed(value: object, bound: Callable[[Any], Any]) -> list[Any]:
    """Each item bounded, at most ``LIST_LIMIT`` of them; a set is put in order first."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Collection):
        raise TypeError(f"an audit fact is a list, not {type(value).__name__}")
    items = sorted(value) if isinstance(value, set | frozenset) else list(value)
    return [bound(item) for item in items[:LIST_LIMIT]]


def _ids(value: object) -> list[str]:
    """Bounded ids; when there are too many, the last one tells how many are left out."""
    shown: list[str] = _listed(value, _id)
    if isinstance(value, Collection) and len(value) > LIST_LIMIT:
        shown[-1] = f"[cut, {len(value)} items]"
    return shown


def _objects(value: object) -> list[dict[str, Any]]:
    return _listed(value, lambda item: _json(dict(item), _OBJECT_DEPTH))


def _json(value: object, depth: int) -> Any:
    """JSON of any shape with every text, list, object and depth bounded."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, str):
        return _text(value, ID_LIMIT)
    if depth == 0:
        return "[cut, nested too deeply]"
    if isinstance(value, Mapping):
        members = list(value.items())[:LIST_LIMIT]
        return {_text(name, 128): _json(member, depth - 1) for name, member in members}
    return _listed(value, lambda item: _json(item, depth - 1))


def _inputs(value: object) -> list[InputFact]:
    return _listed(value, _input)


def _input(value: InputToken | Mapping[str, Any]) -> InputFact:
    if isinstance(value, Mapping):
        value = InputToken(**{"jti": None, **value})
    return InputFact(
        slot=_id(value.slot),
        issuer=_id(value.issuer),
        expires_at=_integer(value.expires_at),
        jti=None if value.jti is None else _id(value.jti),
    )


def _scope_facts(value: object) -> list[ScopeFact]:
    return _listed(value, _scope_fact)


def _scope_fact(value: ScopeDecision | Mapping[str, Any]) -> ScopeFact:
    if isinstance(value, Mapping):
        value = ScopeDecision(**value)
    return ScopeFact(
        scope=_id(value.scope),
        verdict=_id(value.verdict),
        policy_ids=_ids(value.policy_ids),
        errors=_ids(value.errors),
    )


_REASONS: Final = frozenset(reason.code for reason in Reason)

_BOUND_BY_TYPE: Final[Mapping[Any, Callable[[object], Any]]] = {
    int | None: _integer,
    Text | None: _text,
    Id | None: _id,
    Ids | None: _ids,
    Objects | None: _objects,
    Inputs | None: _inputs,
    ScopeFacts | None: _scope_facts,
}

_CHAIN_FACTS: Final = frozenset({"boot_id", "cause", "torn_bytes"})

# Facts are exactly the members of a record that may be absent, so that a name is declared once.
_BOUNDS: Final[Mapping[str, Callable[[object], Any]]] = {
    name: _reason if name == "reason" else _BOUND_BY_TYPE[hint]
    for name, hint in get_type_hints(Record, include_extras=True).items()
    if hint in _BOUND_BY_TYPE and name not in _CHAIN_FACTS
}
