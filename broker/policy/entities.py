"""Writes facts as Cedar reads them: one question for each scope, the entities, and the context."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from broker.model import Action
from broker.policy.facts import Facts, ScopeFacts

Question = dict[str, Any]
"""One request to Cedar: principal, action and resource as data, and the context as JSON."""

Entity = dict[str, Any]


def scope_id(resource: str, scope: str) -> str:
    """
    The entity id of a scope: its resource, ``#``, its name.

    A resource has no fragment (RFC 8707 2), so no two scopes share an id; raises ``ValueError``
    for one that has.
    """
    if "#" in resource:
        raise ValueError("a resource has no fragment")
    return f"{resource}#{scope}"


def questions(facts: Facts, *, action: Action | None = None) -> list[Question]:
    """
    One request to Cedar for each scope, in order; about what the facts are of, if not another action.

    Ids travel as data, never as Cedar text, so no character in them means anything.
    """
    context = json_text(context_of(facts))
    asked = facts.action if action is None else action
    return [question(facts, scope, action=asked, context=context) for scope in facts.scopes]


def question(facts: Facts, scope: ScopeFacts, *, action: Action, context: str) -> Question:
    """The request to Cedar for one scope."""
    return {
        "principal": _uid("Client", facts.client_id),
        "action": _uid("Action", action.value),
        "resource": _uid("Scope", scope_id(facts.resource, scope.name)),
        "context": context,
    }


def context_of(facts: Facts) -> dict[str, Any]:
    """The context record, the same for all scopes."""
    sight = facts.sight
    context = _record(sight.context.names, facts.context)
    if "subject_scopes" in sight.context.names:
        # A token without scopes of its own reads like one with none: either way it carries none.
        context.setdefault("subject_scopes", [])
    if facts.subject is not None:
        context["subject"] = {"__entity": _uid("Subject", facts.subject[0])}
    if sight.has_auth:
        context["auth"] = _record(sight.auth.names, facts.auth)
    return context


def entities_of(facts: Facts) -> list[Entity]:
    """The client, then the scopes in order and each once, then the subject if it is seen."""
    sight = facts.sight
    client = _record(sight.client.names, facts.client)
    shared = _record(sight.resource.names, facts.shared)
    entities = [_entity("Client", facts.client_id, client, _all("ClientGroup", facts.groups))]
    for scope in dict.fromkeys(facts.scopes):
        attributes = shared | _record(sight.scope.names, scope.values)
        parents = [_uid("Resource", facts.resource), *_all("ScopeGroup", scope.groups)]
        identity = scope_id(facts.resource, scope.name)
        entities.append(_entity("Scope", identity, attributes, parents))
    if facts.subject is not None:
        identity, values = facts.subject
        attributes = _record(sight.subject.names, values)
        entities.append(_entity("Subject", identity, attributes, []))
    return entities


def json_text(value: Any) -> str:
    """The value as JSON text; a set becomes a list."""
    return msgspec.json.encode(value).decode()


def _record(names: tuple[str, ...], values: tuple[Any, ...]) -> dict[str, Any]:
    return {name: one for name, one in zip(names, values, strict=True) if one is not None}


def _entity(
    kind: str, identity: str, attributes: Mapping[str, Any], parents: list[dict[str, str]]
) -> Entity:
    return {"uid": _uid(kind, identity), "attrs": attributes, "parents": parents}


def _all(kind: str, identities: Iterable[str]) -> list[dict[str, str]]:
    return [_uid(kind, identity) for identity in identities]


def _uid(kind: str, identity: str) -> dict[str, str]:
    return {"type": kind, "id": identity}
