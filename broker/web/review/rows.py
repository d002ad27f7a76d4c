"""A record as a line of a table: who, through whom, for what, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from broker.audit.query import Found
from broker.audit.record import Record
from broker.audit.telling.question import question
from broker.audit.telling.reasons import reason_in_words
from broker.oauth import (
    GRANT_CLIENT_CREDENTIALS,
    GRANT_JWT_BEARER,
    GRANT_TOKEN_EXCHANGE,
    TOKEN_TYPE_ID_JAG,
)
from broker.web.review.asking import address

BASE: Final = "/audit"

DECISIONS: Final = {"permit": "Permitted", "deny": "Denied", "info": "Noted"}
"""How each decision is called."""

EVENTS: Final = {
    "token.issue": "Token asked for",
    "token.introspect": "Token looked up",
    "token.revoke": "Token withdrawn",
    "token.withdraw": "Party withdrawn",
    "revocations.watch": "Withdrawals followed",
    "policy.explain": "Decision explained",
    "config.loaded": "Settings loaded",
    "config.rejected": "Settings rejected",
    "service.started": "Service started",
    "service.stopped": "Service stopped",
    "key.publish": "Key published",
    "key.rotate": "Key rotated",
    "key.revoke": "Key revoked",
    "key.failed": "Key change failed",
    "key.seen": "Key seen",
    "people.forget": "People to be forgotten",
    "people.failed": "Forgetting failed",
    "audit.login": "Login of an auditor",
    "audit.logout": "Logout of an auditor",
    "audit.read": "Record looked at",
    "chain.opened": "Chain opened",
    "chain.closed": "Chain closed",
}
"""How each event is called."""

GRANTS: Final = {
    GRANT_TOKEN_EXCHANGE: "Token exchange",
    GRANT_JWT_BEARER: "ID-JAG redeemed",
    GRANT_CLIENT_CREDENTIALS: "Machine token",
}
"""How each grant is called."""

PARTY_PATHS: Final = {
    "person": "people",
    "client": "clients",
    "mcp_server": "servers",
    "resource": "resources",
}
"""Where the page of each kind of party is."""

PARTY_NAMES: Final = {
    "person": "Person",
    "client": "Client",
    "mcp_server": "MCP server",
    "resource": "Resource",
}
"""How each kind of party is called."""

_LONGEST_LINKED: Final = 512


@dataclass(frozen=True, slots=True)
class Name:
    """Somebody or something by name, with the address of its page, if it has one."""

    kind: str
    text: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table of records; a column that does not apply is empty."""

    event_id: str
    address: str
    time: str
    decision: str
    what: str
    person: Name | None
    auditor: Name | None
    through: Sequence[Name]
    target: Name | None
    scopes: Sequence[str]
    reason: str
    question: str
    cursor: str


def event_address(event_id: str) -> str:
    """Where the page of a record is."""
    return f"{BASE}/events/{quote(event_id, safe='')}"


def lineage_address(jti: str) -> str:
    """Where that is told which came of a token."""
    return address(f"{BASE}/lineage", [("token", jti)])


def link(kind: str, name: str) -> str:
    """Where more is told of what has a name in a record; nothing for kinds that have no page."""
    if len(name) > _LONGEST_LINKED or not name:
        return ""
    if kind in PARTY_PATHS:
        return address(f"{BASE}/{PARTY_PATHS[kind]}", [("name", name)])
    if kind == "token":
        return lineage_address(name)
    return address(BASE, [(kind, name)]) if kind in {"policy", "auditor"} else ""


def named(kind: str, name: str | None) -> Name | None:
    """A name of a record, if it has it."""
    return Name(kind, name, link(kind, name)) if name else None


def row(found: Found) -> Row:
    """What the table tells of a record."""
    record = found.record
    is_user = record.subject_kind != "client"
    return Row(
        event_id=record.event_id,
        address=event_address(record.event_id),
        time=record.time,
        decision=record.decision,
        what=what(record),
        person=named("person", record.subject if is_user else None),
        auditor=named("auditor", record.auditor),
        through=through(record),
        target=_target(record),
        scopes=record.scopes_granted or (),
        reason=reason_in_words(record.reason) if record.reason else "",
        question=question(record),
        cursor=found.cursor,
    )


def what(record: Record) -> str:
    """What happened, in two or three words."""
    if record.event != "token.issue":
        return EVENTS.get(record.event, record.event)
    if record.issued_token_type == TOKEN_TYPE_ID_JAG:
        return "ID-JAG issued"
    return GRANTS.get(record.grant_type or "", EVENTS["token.issue"])


def through(record: Record) -> list[Name]:
    """Whoever stands between the person and the resource, the first to act first."""
    acting = [_acting(actor) for actor in reversed(record.actors or ())]
    names = [record.mcp_client, *acting, record.client_id or record.unverified_client_id]
    distinct = dict.fromkeys(name for name in names if name)
    return [Name("client", name, link("client", name)) for name in distinct]


def _acting(actor: dict[str, Any]) -> str:
    name = actor.get("client_id") or actor.get("sub") or ""
    return name if isinstance(name, str) else ""


def _target(record: Record) -> Name | None:
    if record.resource:
        return named("resource", record.resource)
    asked = record.authorization_server or next(iter(record.targets_asked or ()), "")
    return Name("target", asked) if asked else None
