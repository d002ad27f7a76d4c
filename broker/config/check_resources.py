"""Resources whose registration is unsafe or impossible."""

from collections.abc import Iterator
from typing import Final

from broker.config.declarations import ResourceEntry
from broker.config.findings import Finding, Scene
from broker.config.problems import Path, nearest
from broker.tokens.resource_uri import normalise_resource

_BRING_SCOPES: Final = frozenset({"access_token", "id_jag", "workload"})


def check_resources(scene: Scene) -> Iterator[Finding]:
    """Everything that is wrong among the resources."""
    yield from _check_names(scene)
    for path, resource in scene.resources:
        if resource.owner is not None and resource.owner not in scene.names.clients:
            hint = nearest(resource.owner, scene.names.clients)
            yield Finding((*path, "owner"), "is not registered in clients", hint)
        yield from _check_algorithm(scene, path, resource=resource)
        yield from _check_derivation(scene, path, resource=resource)
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
