"""Resources whose registration is unsafe or impossible."""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import Final

from broker.config.declarations import ResourceEntry
from broker.config.findings import Finding, Scene
from broker.config.problems import Path, nearest
from broker.tokens.resource_uri import normalise_resource

_BRING_SCOPES: Final = frozenset({"access_token", "id_jag", "workload"})
_MOST_HOPS_TOLD: Final = 4

Derived = Mapping[str, list[tuple[str, str]]]
"""For each scope the scopes that it derives from by another name, and the resource where."""


def check_resources(scene: Scene) -> Iterator[Finding]:
    """Everything that is wrong among the resources."""
    yield from _check_names(scene)
    derived = _derived(scene)
    for path, resource in scene.resources:
        if resource.owner is not None and resource.owner not in scene.names.clients:
            hint = nearest(resource.owner, scene.names.clients)
            yield Finding((*path, "owner"), "is not registered in clients", hint)
        yield from _check_algorithm(scene, path, resource=resource)
        yield from _check_derivation(scene, path, resource=resource)
        yield from _check_growth(derived, path, resource=resource)
    default = scene.file.default_resource
    if default is not None and normalise_resource(default) not in scene.names.resources:
        hint = nearest(default, scene.names.resources)
        yield Finding(("default_resource",), "is not registered in resources", hint)


def _check_names(scene: Scene) -> Iterator[Finding]:
    """One name, one resource: otherwise a token would be for whichever was looked up."""
    # The broker's own issuer is an audience too: that of the assertions addressed to it.
    taken = {scene.file.issuer: "the broker's own issuer"}
    for path, entry in scene.resources:
        name = normalise_resource(entry.resource)
        if name in taken:
            yield Finding((*path, "resource"), f"is {taken[name]} as well")
        taken.setdefault(name, f"the resource of {path[0]}.{path[1]}")
    for path, entry in scene.resources:
        for at, audience in enumerate(entry.audiences):
            if audience in taken:
                yield Finding((*path, "audiences", at), f"is {taken[audience]} as well")
            taken.setdefault(audience, f"an audience of {path[0]}.{path[1]}")


def _check_algorithm(scene: Scene, path: Path, *, resource: ResourceEntry) -> Iterator[Finding]:
    keys = scene.file.keys
    wanted = resource.signing_algorithm
    if "keys" not in scene.broken and wanted not in (None, keys.algorithm, *keys.also):
        sentence = "is not signed with here: neither keys.algorithm nor keys.also names it"
        yield Finding((*path, "signing_algorithm"), sentence)


def _check_derivation(scene: Scene, path: Path, *, resource: ResourceEntry) -> Iterator[Finding]:
    """A scope derives from scopes that some token can carry."""
    if "issuers" in scene.broken or any(
        not _BRING_SCOPES.isdisjoint(issuer.purposes) for _, issuer in scene.issuers
    ):
        # Scopes of other issuers' tokens are not known here.
        return
    for name, scope in resource.scopes.items():
        for at, source in enumerate(scope.from_ or ()):
            if source not in scene.names.scopes:
                hint = nearest(source, scene.names.scopes)
                at_scope = (*path, "scopes", name, "from", at)
                yield Finding(at_scope, "is a scope of no resource, so no token carries it", hint)


def _derived(scene: Scene) -> Derived:
    derived: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for _, resource in scene.resources:
        for name, scope in resource.scopes.items():
            derived[name] += [(source, resource.resource) for source in scope.from_ or ()]
    return derived


def _check_growth(derived: Derived, path: Path, *, resource: ResourceEntry) -> Iterator[Finding]:
    """
    No token comes back to its resource with a scope that it did not set out with.

    ``from`` names a scope without its resource, so a scope derives from every token that carries one
    of that name, whichever resource the token was for; what single resources declare adds up.
    """
    for name in resource.scopes:
        grown = _growth(derived, resource, name)
        if grown is not None:
            weaker, hops = grown
            way = f"through {_told(hops)}" if hops else "at once"
            sentence = (
                f"could grow from {weaker!r} to {name!r} {way}: "
                "a token must not come back with more than it had"
            )
            yield Finding((*path, "scopes", name), sentence, is_key=True)


def _growth(derived: Derived, resource: ResourceEntry, name: str) -> tuple[str, list[str]] | None:
    """
    Another scope of the resource that this one derives from in the end, and the way there.

    The way is the resources between; of all ways the shortest is found, going backwards.
    """
    # By scope, what derives from it next and where; the last step is back to the resource itself.
    onward: dict[str, tuple[str, str] | None] = dict.fromkeys(resource.scopes[name].from_ or [name])
    waiting = deque(onward)
    while waiting:
        scope = waiting.popleft()
        if scope != name and scope in resource.scopes:
            return scope, _way(onward, scope)
        for source, where in derived.get(scope, ()):
            if source not in onward:
                onward[source] = scope, where
                waiting.append(source)
    return None


def _way(onward: Mapping[str, tuple[str, str] | None], scope: str) -> list[str]:
    way = []
    step = onward[scope]
    while step is not None:
        scope, where = step
        way.append(where)
        step = onward[scope]
    return way


def _told(hops: list[str]) -> str:
    shown = ", then ".join(hops[:_MOST_HOPS_TOLD])
    rest = len(hops) - _MOST_HOPS_TOLD
    return f"{shown} and {rest} more" if rest > 0 else shown
