"""The question to policy that a record is about, put together again from what is recorded."""

from collections.abc import Mapping, Sequence

from broker.audit.record import Record
from broker.audit.telling.words import seconds_of
from broker.interfaces import Registry
from broker.model import Action, Delegation, JsonObject, PolicyQuery, Relation, Resource, Subject

PSEUDONYM = "~"
"""What a pseudonym begins with, where people are not recorded by their names."""


def recalled(
    record: Record, registry: Registry, ancestors: Mapping[str, Record]
) -> PolicyQuery | None:
    """
    The question, as far as the records and today's registry tell it; ``None`` where they do not.

    ``ancestors`` are the records of the issue of what was presented, by ``jti``: they tell the scopes of
    a subject token. The login of the user is not recorded; ``unrecorded`` names all that is unknown.
    """
    client = registry.client(record.client_id) if record.client_id else None
    resource = _resource(record, registry)
    relation = next((one for one in Relation if one == record.relation), None)
    if client is None or resource is None or relation is None or record.subject is None:
        return None
    asked = [one.scope for one in record.scope_decisions or []]
    scopes = tuple(resource.scopes[name] for name in asked if name in resource.scopes)
    if not scopes or len(scopes) != len(asked):
        return None
    return PolicyQuery(
        client,
        _delegation(record, relation, subject_scopes(record, ancestors)),
        resource,
        scopes,
        int(seconds_of(record.time) or 0),
    )


def subject_scopes(record: Record, ancestors: Mapping[str, Record]) -> frozenset[str] | None:
    """The scopes of the token that was presented for the subject, or ``None`` where nothing tells."""
    for one in record.inputs or []:
        issue = ancestors.get(one.jti or "") if one.slot == "subject" else None
        if issue is not None:
            return frozenset(issue.scopes_granted or ())
    return None


def unrecorded(record: Record, ancestors: Mapping[str, Record]) -> frozenset[str]:
    """The names of the facts that policies may ask for and nothing at hand tells."""
    unknown = {"auth"}
    has_scopes = record.relation not in {Relation.IDENTITY, Relation.SELF}
    if has_scopes and subject_scopes(record, ancestors) is None:
        unknown.add("subject_scopes")
    if record.relation == Relation.ISSUED_TO:
        unknown.add("subject_audience")
    if (record.subject or "").startswith(PSEUDONYM):
        unknown.add("subject")
    return frozenset(unknown)


def _resource(record: Record, registry: Registry) -> Resource | None:
    if not record.resource:
        return None
    if record.authorization_server:
        server = registry.authorization_server(record.authorization_server)
        known = () if server is None else server.resources
        return next((one for one in known if one.resource == record.resource), None)
    return registry.resource(record.resource)


def _delegation(record: Record, relation: Relation, scopes: frozenset[str] | None) -> Delegation:
    inputs = record.inputs or []
    actors: list[JsonObject] = [*(record.actors or [])]
    audiences = {Relation.AUDIENCE: record.mcp_server, Relation.IDENTITY: record.client_id}
    return Delegation(
        subject=Subject(
            record.subject or "",
            record.subject_issuer or "",
            record.subject_kind or "user",
            record.tenant,
        ),
        relation=relation,
        scopes=scopes,
        not_after=min((one.expires_at for one in inputs), default=None),
        actor=actors[0] if actors else None,
        inherited_act=_nested(actors[1:]),
        subject_audience=audiences.get(relation),
        mcp_client=record.mcp_client,
        mcp_server=record.mcp_server,
        has_actor_token=any(one.slot == "actor" for one in inputs),
        action=_action(record, relation),
    )


def _nested(actors: Sequence[JsonObject]) -> JsonObject | None:
    act: JsonObject | None = None
    for actor in reversed(actors):
        act = {**actor, **({} if act is None else {"act": act})}
    return act


def _action(record: Record, relation: Relation) -> Action:
    if record.authorization_server:
        return Action.ISSUE_ID_JAG
    by_relation = {Relation.SELF: Action.ISSUE, Relation.ASSERTED: Action.REDEEM}
    return by_relation.get(relation, Action.EXCHANGE)
