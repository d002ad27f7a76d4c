"""The delegation that a record is about: who acts for whom, and which token each of them showed the next."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from broker.audit.record import InputFact, Record
from broker.audit.telling.words import seconds_of
from broker.model import Relation
from broker.oauth import CLIENT_SUBJECT_PREFIX, TOKEN_TYPE_ID_JAG

_LONGEST: Final = 16
_OWN_SLOTS: Final = ("subject", "assertion", "token")
_ISSUE: Final = "token.issue"
_PERMIT: Final = "permit"


class StepKind(StrEnum):
    """What somebody is in a delegation. The value is a word for people once its ``_`` is a blank."""

    PERSON = "person"
    CLIENT = "client"
    ACTOR = "actor"
    """Somebody in between, of whom no more is recorded than the name."""
    MCP_SERVER = "MCP server"
    AUTHORIZATION_SERVER = "authorization server"
    RESOURCE = "resource"


@dataclass(frozen=True, slots=True)
class Handed:
    """
    A token that one party showed the next, or would have.

    ``scopes`` are what it carries, or ``None`` where the records at hand do not tell; ``asked`` were
    asked for, and ``dropped`` are those of them that it does not carry. ``expires_at`` is in unix seconds.
    ``lifetime`` is how many seconds it had left when it was handed on, ``limit`` what limits that
    (``configuration``, ``resource``, ``policy``, ``input``). ``event_id`` is the record of its issue where
    that is at hand. ``is_refused`` is set for the token that was asked for in vain.
    """

    jti: str | None = None
    issuer: str = ""
    scopes: tuple[str, ...] | None = None
    asked: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    expires_at: int | None = None
    lifetime: int | None = None
    limit: str = ""
    is_assertion: bool = False
    is_refused: bool = False
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """
    One of those in a delegation. ``note`` tells who knows the person, or the server's address.

    ``handed`` are the tokens by which the one before reached it, oldest first. ``party_kind`` and ``party``
    are by which its page is found, and empty where there is none.
    """

    kind: StepKind
    name: str
    note: str = ""
    handed: tuple[Handed, ...] = ()
    party_kind: str = ""
    party: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """
    A delegation from the person, or the client that acts for itself, to the resource.

    ``is_granted`` tells whether the last step was reached. A record that is about no delegation has no steps.
    """

    steps: tuple[Step, ...] = ()
    is_granted: bool = False


def chain_of(record: Record, ancestors: Mapping[str, Record] | None = None) -> Chain:
    """
    The delegation of a record.

    ``ancestors`` are the records of the issue of tokens that were presented, by ``jti``; the more of them
    there are, the more is known of the tokens on the way. Values are as in the records, and so may hold
    anything.
    """
    known = ancestors or {}
    if record.event in ABOUT_TOKENS:
        issue = known.get((shown.jti if (shown := _shown(record)) else None) or "")
        record = record if issue is None else issue
    has_somebody = record.subject is not None or record.client_id is not None
    if record.event not in _WITH_CHAIN or not has_somebody:
        return Chain()
    parties = list(_parties(record))
    if len(parties) == 1:
        return Chain()
    hands = _hands(record, known, arrows=len(parties) - 1)
    steps = [
        Step(kind, name, note, handed, party_kind=_PARTY_KINDS.get(kind, ""), party=party)
        for (kind, name, note, party), handed in zip(parties, hands, strict=True)
    ]
    return Chain(tuple(steps), is_granted=record.decision == _PERMIT)


ABOUT_TOKENS: Final = frozenset({"token.introspect", "token.revoke"})
"""Events in which somebody asks about a token and presents none."""

_WITH_CHAIN: Final = frozenset({_ISSUE, "policy.explain", *ABOUT_TOKENS})
_PARTY_KINDS: Final[Mapping[StepKind, str]] = {
    StepKind.PERSON: "person",
    StepKind.CLIENT: "client",
    StepKind.ACTOR: "client",
    StepKind.MCP_SERVER: "mcp_server",
    StepKind.RESOURCE: "resource",
}

_Party = tuple[StepKind, str, str, str]
"""Kind, name, note, and by which name its page is found."""


# ---- who stands in the chain


def _parties(record: Record) -> Iterator[_Party]:
    seen: list[str] = []
    for party in (*_beginning(record), *_acting(record)):
        if party[1] not in seen or party[0] is StepKind.PERSON:
            seen.append(party[1])
            yield party
    yield from _targets(record)


def _beginning(record: Record) -> Iterator[_Party]:
    subject = record.subject
    if subject is None:
        return
    if record.subject_kind == "client" or subject.startswith(CLIENT_SUBJECT_PREFIX):
        name = subject.removeprefix(CLIENT_SUBJECT_PREFIX)
        yield StepKind.CLIENT, name, "", name
    else:
        issuer = record.subject_issuer
        yield StepKind.PERSON, subject, f"known to {issuer}" if issuer else "", subject


def _acting(record: Record) -> Iterator[_Party]:
    """The MCP client where it is no actor, the actors with the newest last, and whoever asks."""
    if record.event not in {_ISSUE, "policy.explain"}:
        return
    actors = [str(one.get("sub", "?")) for one in reversed((record.actors or [])[:_LONGEST])]
    if record.mcp_client and record.mcp_client not in actors:
        yield StepKind.CLIENT, record.mcp_client, "", record.mcp_client
    for name in actors:
        yield _actor(record, name)
    if record.client_id and record.event == _ISSUE and record.client_id not in actors:
        yield _actor(record, record.client_id)


def _actor(record: Record, name: str) -> _Party:
    server = record.mcp_server
    if name == record.mcp_client:
        return StepKind.CLIENT, name, "", name
    if name == record.client_id and server and record.relation == Relation.AUDIENCE:
        return StepKind.MCP_SERVER, name, server, server
    return (StepKind.CLIENT if name == record.client_id else StepKind.ACTOR), name, "", name


def _targets(record: Record) -> Iterator[_Party]:
    if record.authorization_server:
        yield StepKind.AUTHORIZATION_SERVER, record.authorization_server, "", ""
    if record.resource:
        yield StepKind.RESOURCE, record.resource, "", record.resource
    elif not record.authorization_server and record.targets_asked:
        yield (
            StepKind.RESOURCE,
            " ".join(record.targets_asked[:_LONGEST]),
            "as it was asked for",
            "",
        )


# ---- which tokens they showed


def _hands(
    record: Record, ancestors: Mapping[str, Record], *, arrows: int
) -> Sequence[tuple[Handed, ...]]:
    """What was handed to each step, the first of which got nothing."""
    hands: list[list[Handed]] = [[] for _ in range(arrows + 1)]
    place = arrows
    for handed, is_narrowed in _tokens(record, ancestors):
        if place <= 0:
            break
        hands[place].insert(0, handed)
        if not is_narrowed:
            place -= 1
    return [tuple(one) for one in hands]


def _tokens(record: Record, ancestors: Mapping[str, Record]) -> Iterator[tuple[Handed, bool]]:
    """
    The token of the record and those that it derives from, newest first.

    With each comes whether its holder narrowed the one before by itself, so that both were on one way.
    """
    current: Record | None = record
    if record.event in {_ISSUE, "policy.explain"}:
        yield _own(record, at=record), _is_narrowed(record)
    for _ in range(_LONGEST):
        shown = None if current is None else _shown(current)
        if current is None or shown is None:
            return
        parent = ancestors.get(shown.jti or "")
        if parent is None:
            yield _presented(shown, at=current), False
        else:
            yield _own(parent, at=current), _is_narrowed(parent)
        current = parent


def _is_narrowed(record: Record) -> bool:
    return record.relation == Relation.ISSUED_TO


def _shown(record: Record) -> InputFact | None:
    """The token that was presented for the subject."""
    return next((one for one in record.inputs or () if one.slot in _OWN_SLOTS), None)


def _presented(shown: InputFact, *, at: Record) -> Handed:
    return Handed(
        jti=shown.jti,
        issuer=shown.issuer,
        expires_at=shown.expires_at,
        lifetime=_left(shown.expires_at, at),
        is_assertion=shown.slot == "assertion",
    )


def _own(record: Record, *, at: Record) -> Handed:
    """The token of a record as it was when ``at`` was recorded."""
    is_refused = record.decision != _PERMIT or record.event != _ISSUE
    scopes = None if is_refused else tuple(record.scopes_granted or ())
    asked = tuple(record.scopes_asked or ())
    return Handed(
        jti=record.jti,
        scopes=scopes,
        asked=asked,
        dropped=() if scopes is None else tuple(one for one in asked if one not in scopes),
        expires_at=record.expires_at,
        lifetime=record.lifetime if at is record else _left(record.expires_at, at),
        limit=record.lifetime_limit or "",
        is_assertion=record.issued_token_type == TOKEN_TYPE_ID_JAG,
        is_refused=is_refused,
        event_id=record.event_id,
    )


def _left(expires_at: int | None, at: Record) -> int | None:
    moment = seconds_of(at.time)
    return None if expires_at is None or moment is None else max(expires_at - int(moment), 0)
