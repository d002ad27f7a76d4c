"""The names that policies use, beside those that are registered: a slip in one of them permits nothing."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Final

from cedarpy import pst

from broker.model import Client, Resource, ResourceAuthorizationServer
from broker.policy.policy_set import PolicySet
from broker.policy.problems import Problem
from broker.policy.syntax import descend

_LIKENESS: Final = 0.8

Known = Mapping[str, frozenset[str]]
"""The ids that are known, by the type of their entities."""


def known_names(
    clients: Iterable[Client],
    resources: Iterable[Resource],
    servers: Iterable[ResourceAuthorizationServer],
) -> Known:
    """The ids of everything that is registered and that a policy can name."""
    own = tuple(clients)
    everywhere = (*resources, *(one for server in servers for one in server.resources))
    scopes = [(one.resource, scope) for one in everywhere for scope in one.scopes.values()]
    return {
        "Client": frozenset(client.client_id for client in own),
        "ClientGroup": frozenset(group for client in own for group in client.groups),
        "Resource": frozenset(one.resource for one in everywhere),
        "Scope": frozenset(f"{resource}#{scope.name}" for resource, scope in scopes),
        "ScopeGroup": frozenset(group for _, scope in scopes for group in scope.groups),
    }


def slips(policies: PolicySet, known: Known) -> Iterator[Problem]:
    """
    Where a policy names something that is not registered, and that looks like something that is.

    A name that looks like nothing here is left alone: policies are written before their clients are.
    """
    for policy in policies.whole.policies.values():
        place = policy.reference
        for node in descend(policy.tree):
            if not isinstance(node, pst.EntityUid):
                continue
            kind = str(node.type)
            ids = known.get(kind)
            if ids is None or node.id in ids:
                continue
            for near in get_close_matches(node.id, ids, n=1, cutoff=_LIKENESS):
                yield Problem(
                    place.file,
                    place.line,
                    f'{kind}::"{node.id}" is not registered; did you mean "{near}"?',
                )
