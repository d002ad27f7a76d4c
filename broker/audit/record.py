"""The closed schema of an audit record."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

VERSION: Final = 1
TEXT_LIMIT: Final = 1024
ID_LIMIT: Final = 512
LIST_LIMIT: Final = 64


Event = Literal[
    "token.issue",
    "token.introspect",
    "token.revoke",
    "token.withdraw",
    "revocations.watch",
    "policy.explain",
    "audit.login",
    "audit.logout",
    "audit.read",
    "config.loaded",
    "config.rejected",
    "service.started",
    "service.stopped",
    "key.publish",
    "key.rotate",
    "key.revoke",
    "key.failed",
    "key.seen",
    "people.forget",
    "people.failed",
    "chain.opened",
    "chain.closed",
]
REQUEST_EVENTS: Final = frozenset(
    {
        "token.issue",
        "token.introspect",
        "token.revoke",
        "token.withdraw",
        "revocations.watch",
        "policy.explain",
        "audit.login",
        "audit.logout",
        "audit.read",
    }
)
"""Events in which somebody asked for something, so that the record says permit or deny."""
READING_EVENTS: Final = frozenset({"audit.login", "audit.logout", "audit.read"})
"""Events of those among them that are about reading the record, each by an auditor or a client."""
SERVICE_EVENTS: Final = frozenset(
    {"config.loaded", "config.rejected", "service.started", "service.stopped"}
)
"""Events of the service itself, which inform."""
KEY_EVENTS: Final = frozenset({"key.publish", "key.rotate", "key.revoke", "key.failed", "key.seen"})
"""What is done to signing keys, and what becomes of them; they inform."""

PEOPLE_EVENTS: Final = frozenset({"people.forget", "people.failed"})
"""That the people of a period are forgotten, and that this could not be done; they inform."""

Text = Annotated[str, Meta(max_length=TEXT_LIMIT)]
Id = Annotated[str, Meta(max_length=ID_LIMIT)]
Ids = Annotated[list[Id], Meta(max_length=LIST_LIMIT)]
Objects = Annotated[list[dict[str, Any]], Meta(max_length=LIST_LIMIT)]


class InputFact(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A verified token that a request presented, by its slot, issuer, id and expiry."""

    expires_at: int
    issuer: Id
    jti: Id | None = None
    slot: Id


class ScopeFact(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What policy said to one scope, by which policies, and what went wrong in evaluation."""

    errors: Ids = []
    policy_ids: Ids = []
    scope: Id
    verdict: Id


class KeyChangeFact(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """
    A signing key that comes from one state into another at a moment, in unix seconds.

    ``from_state`` is left out for a key that there was not before.
    """

    algorithm: Id
    at: int
    from_state: Id | None = None
    kid: Id
    replica: Id | None = None
    to_state: Id


class ExposureFact(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What the revocation of a key cannot undo, in moments of unix seconds."""

    accepted_until: int
    cut_off_until: int | None = None
    expired_at: int
    known_from: int
    stopped_at: int


KeyChanges = Annotated[list[KeyChangeFact], Meta(max_length=LIST_LIMIT)]
Inputs = Annotated[list[InputFact], Meta(max_length=LIST_LIMIT)]
ScopeFacts = Annotated[list[ScopeFact], Meta(max_length=LIST_LIMIT)]


class Record(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """
    One line of the audit log. What is not known is left out.

    ``writer``, ``seq`` and ``prev`` place it in its chain; only the chain sets them. Times named
    ``..._at`` are unix seconds, ``lifetime`` is in seconds, ``time`` is RFC 3339 in UTC.
    ``boot_id``, ``cause``, ``log_id`` and ``torn_bytes`` belong to the records that the chain writes
    about itself. ``group`` is what the records of tokens have in common that were issued together.

    Members stand in the order of their names, here and in what is in a list, as they do in a line.
    """

    about: Id | None = None
    actors: Objects | None = None
    asked: Text | None = None
    auditor: Id | None = None
    auth_method: Id | None = None
    authorization_server: Id | None = None
    boot_id: Id | None = None
    cause: Id | None = None
    chain_depth: int | None = None
    client_id: Id | None = None
    confirmation: Id | None = None
    decision: Literal["permit", "deny", "info"]
    detail: Text | None = None
    error: Id | None = None
    event: Event
    event_id: Id
    expires_at: int | None = None
    exposure: ExposureFact | None = None
    face: Id | None = None
    foreign_actors_from: Id | None = None
    found: int | None = None
    grant_type: Id | None = None
    group: Id | None = None
    group_number: int | None = None
    group_size: int | None = None
    initiator: Id | None = None
    inputs: Inputs | None = None
    issued_at: int | None = None
    issued_since: int | None = None
    issued_token_type: Id | None = None
    issued_until: int | None = None
    jti: Id | None = None
    key_changes: KeyChanges | None = None
    kid: Id | None = None
    lifetime: int | None = None
    lifetime_limit: Id | None = None
    log_id: Id | None = None
    mcp_client: Id | None = None
    mcp_server: Id | None = None
    operator: Id | None = None
    parameter: Id | None = None
    party: Text | None = None
    party_kind: Id | None = None
    peer: Id | None = None
    people_asked: Ids | None = None
    policy_digest: Id | None = None
    policy_ids: Ids | None = None
    prev: str = ""
    reason: Id | None = None
    relation: Id | None = None
    resource: Text | None = None
    scope_decisions: ScopeFacts | None = None
    scopes_asked: Ids | None = None
    scopes_granted: Ids | None = None
    seq: int = -1
    subject: Text | None = None
    subject_issuer: Text | None = None
    subject_kind: Id | None = None
    targets_asked: Ids | None = None
    tenant: Id | None = None
    time: str
    torn_bytes: int | None = None
    unverified_client_id: Id | None = None
    v: int
    writer: Id = ""


RECORD_DECODER: Final = msgspec.json.Decoder(Record)
"""Reads a line back, refusing whatever the closed schema does not allow."""


def rfc3339(seconds: float) -> str:
    """A moment in unix seconds as RFC 3339 in UTC, to the microsecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")[:-6] + "Z"
