"""The policies that could concern a client, so that the others cost nothing."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import cedarpy
from cedarpy import pst

from broker.bounded import BoundedMemory, MemoryStatus
from broker.model import Action, Client
from broker.policy.entities import entities_of, json_text
from broker.policy.facts import Facts, Sight
from broker.policy.policies import Policy, handle
from broker.policy.sight import sight_of

_MAX_SLICES = 2_048

# Entities grow with the scopes asked for, to some kilobytes each, and callers choose how many those
# are; all slices of a set share one memory, so that it does not grow with the clients as well.
_MAX_ENTITIES = 512
_MAX_SCOPES_REMEMBERED = 32
_CLIENT = pst.EntityType("Client")
_CLIENT_GROUP = pst.EntityType("ClientGroup")
_IMPERSONATE = pst.EntityUid(pst.EntityType("Action"), Action.IMPERSONATE.value)

_Key = tuple[str | None, frozenset[str]]
_Entities = BoundedMemory[tuple[Any, ...], cedarpy.Entities]


@dataclass(frozen=True, slots=True)
class Slice:
    """
    Some policies, ready to be asked, and what they see.

    ``permits`` are its permits alone, to tell what the forbids withhold; they are there where some
    forbid has a cure and no permit looks at the login. ``has_impersonation``: some permit it.
    """

    policies: Mapping[str, Policy]
    handle: cedarpy.PolicySet
    permits: cedarpy.PolicySet | None
    sight: Sight
    has_impersonation: bool
    known_entities: _Entities

    def entities(self, facts: Facts) -> cedarpy.Entities:
        """The entities of these facts, parsed. Raises ``ValueError`` for what Cedar cannot read."""
        things = facts.things
        entities = self.known_entities.get(things)
        if entities is None:
            entities = cedarpy.Entities.from_json_str(json_text(entities_of(facts)))
            if len(facts.scopes) <= _MAX_SCOPES_REMEMBERED:
                self.known_entities.put(things, entities)
        return entities

    @classmethod
    def of(cls, policies: Iterable[Policy], known_entities: _Entities | None = None) -> Self:
        """Put policies together, with a memory of entities of their own unless one is shared."""
        by_id = {policy.policy_id: policy for policy in policies}
        trees = {policy_id: policy.tree for policy_id, policy in by_id.items()}
        return cls(
            policies=by_id,
            handle=handle(trees),
            permits=_permits_alone(by_id.values()),
            sight=sight_of(trees.values()),
            has_impersonation=any(map(_permits_impersonation, by_id.values())),
            known_entities=BoundedMemory(_MAX_ENTITIES)
            if known_entities is None
            else known_entities,
        )


class Slices:
    """
    A policy set, sorted by the client or the client group that each policy's head demands.

    A policy is left out of a client's slice only if its head cannot match, so the slice decides
    what the whole set would.
    """

    def __init__(self, policies: Iterable[Policy]) -> None:
        self._by_client: defaultdict[str, list[Policy]] = defaultdict(list)
        self._by_group: defaultdict[str, list[Policy]] = defaultdict(list)
        self._for_all: list[Policy] = []
        for policy in policies:
            self._bucket(policy.tree.principal).append(policy)
        self._groups = frozenset(self._by_group)
        self._made: BoundedMemory[_Key, Slice] = BoundedMemory(_MAX_SLICES)
        self._known_entities: _Entities = BoundedMemory(_MAX_ENTITIES)

    def slice_for(self, client: Client) -> Slice:
        """The policies whose head could match this client."""
        client_id = client.client_id if client.client_id in self._by_client else None
        key = (client_id, client.groups & self._groups)
        made = self._made.get(key)
        if made is None:
            made = self._make(key)
            self._made.put(key, made)
        return made

    def memories(self) -> Mapping[str, MemoryStatus]:
        """How the memories of slices and of parsed entities are doing."""
        return {"slices": self._made.status(), "entities": self._known_entities.status()}

    def _make(self, key: _Key) -> Slice:
        client_id, groups = key
        chosen = list(self._for_all)
        for group in sorted(groups):
            chosen += self._by_group[group]
        if client_id is not None:
            chosen += self._by_client[client_id]
        return Slice.of(chosen, self._known_entities)

    def _bucket(self, head: pst.PrincipalOrResourceConstraint) -> list[Policy]:
        match head:
            case pst.ScopeEq(entity=pst.EntityUid(type=kind, id=name)) if kind == _CLIENT:
                return self._by_client[name]
            case (
                pst.ScopeIn(entity=pst.EntityUid(type=kind, id=name))
                | pst.ScopeIsIn(entity=pst.EntityUid(type=kind, id=name))
            ) if kind == _CLIENT_GROUP:
                return self._by_group[name]
            case _:
                return self._for_all


def _permits_alone(policies: Iterable[Policy]) -> cedarpy.PolicySet | None:
    given = list(policies)
    permits = {policy.policy_id: policy.tree for policy in given if policy.is_permit}
    has_cure = any(policy.annotations.cure is not None for policy in given)
    if not has_cure or sight_of(permits.values()).has_auth:
        return None
    return handle(permits)


def _permits_impersonation(policy: Policy) -> bool:
    match policy.tree.action:
        case pst.ActionEq(entity=action):
            return policy.is_permit and action == _IMPERSONATE
        case pst.ActionIn(entities=actions):
            return policy.is_permit and _IMPERSONATE in actions
        case _:
            return policy.is_permit
