"""Queries to put to policies: good ones for the shipped set, to be changed by each test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from broker.model import (
    Authentication,
    Client,
    Delegation,
    JsonObject,
    PolicyQuery,
    Relation,
    Resource,
    Scope,
    Subject,
)
from broker.policy.cedar import CedarPolicyEngine

SHIPPED = Path(__file__).parents[2] / "policies"
TICKETS = "https://tickets.mcp.example/mcp"
CRM = "https://api.crm.example/v2"
READ = Scope("crm.contacts.read", frozenset({"tickets:read"}))
WRITE = Scope("crm.contacts.write", frozenset({"tickets:comment"}))
NOW = 1_795_262_400

PERMIT_ALL = '@id("all") permit (principal, action == Action::"exchange", resource);\n'

LoadSet = Callable[..., CedarPolicyEngine]
WriteSet = Callable[..., Path]


def chain(*subs: str) -> JsonObject | None:
    """An act claim with these actors, newest first."""
    act: JsonObject | None = None
    for sub in reversed(subs):
        act = {"sub": sub} if act is None else {"sub": sub, "act": act}
    return act


def client(client_id: str = "mcp-tickets", **members: Any) -> Client:
    return Client(client_id, frozenset(), frozenset(), **members)


def login(acr: str | None = "phr", *, age: int | None = 60) -> Authentication:
    return Authentication(None if age is None else NOW - age, acr, ("hwk",))


def delegation(**members: Any) -> Delegation:
    """What the tickets server proves with the token of a user that agent-desk called it with."""
    usual = Delegation(
        subject=Subject("alice", "https://idp.example"),
        relation=Relation.AUDIENCE,
        scopes=frozenset({"tickets:read", "tickets:comment"}),
        not_after=None,
        actor={"sub": "mcp-tickets"},
        inherited_act={"sub": "agent-desk"},
        subject_audience=TICKETS,
        mcp_client="agent-desk",
        mcp_server="mcp-tickets",
        authentication=login(),
    )
    return replace(usual, **members)


def query(
    *scopes: Scope, who: Client | None = None, to: Resource | None = None, **members: Any
) -> PolicyQuery:
    """The tickets server asks for scopes of the CRM; ``members`` are those of the delegation."""
    return PolicyQuery(
        client=who or client(),
        delegation=delegation(**members),
        resource=to or Resource(CRM, {}),
        scopes=scopes or (READ,),
        now=NOW,
    )
