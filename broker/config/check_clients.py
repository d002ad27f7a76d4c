"""Clients whose registration is unsafe or impossible."""

from collections.abc import Iterator, Sequence
from typing import Final

from broker.config import files
from broker.config.declarations import ClientAuthSection
from broker.config.findings import Finding, Scene
from broker.config.problems import Path, nearest
from broker.oauth import AUTH_PRIVATE_KEY_JWT
from broker.tokens.resource_uri import normalise_resource

_LOOK_ALIKES: Final = (("1", "l"), ("|", "l"), ("0", "o"), ("rn", "m"), ("vv", "w"))
KEY_SETTINGS: Final = ("jwks", "jwks_file", "jwks_uri")
"""The settings that give somebody's keys, of which one is enough."""


def check_clients(scene: Scene) -> Iterator[Finding]:
    """Everything that is wrong among the clients."""
    first: dict[str, str] = {}
    workloads = {rule.client for _, issuer in scene.issuers for rule in issuer.workloads}
    for path, client in scene.clients:
        look = skeleton(client.id)
        if look not in first:
            first[look] = client.id
        elif first[look] == client.id:
            yield Finding((*path, "id"), "is registered twice")
        else:
            other = first[look]
            yield Finding((*path, "id"), f"is easily taken for '{other}', which is registered too")
        if "auth" in client.model_fields_set:
            yield from _check_authentication(client.auth, (*path, "auth"))
            yield from check_key_set(scene, (*path, "auth"), entry=client.auth)
        elif "issuers" not in scene.broken and client.id not in workloads:
            yield Finding(path, "needs 'auth', since no issuer's workloads are this client")
        yield from _check_issuers(scene, (*path, "issuers"), listed=client.issuers or ())
        listed = tuple(client.issuer_client_ids)
        yield from _check_issuers(scene, (*path, "issuer_client_ids"), listed=listed)
        yield from _check_introspection(scene, (*path, "introspect"), listed=client.introspect)
    yield from _check_names_elsewhere(scene)


def _check_names_elsewhere(scene: Scene) -> Iterator[Finding]:
    """No two clients may have one id at one issuer: each could present the other's tokens."""
    issuers = {name for _, client in scene.clients for name in client.issuer_client_ids}
    for issuer in sorted(issuers):
        holders: dict[str, str] = {}
        for path, client in scene.clients:
            name = client.issuer_client_ids.get(issuer, client.id)
            if name in holders:
                at = (
                    path if issuer not in client.issuer_client_ids else (*path, "issuer_client_ids")
                )
                yield Finding(at, f"'{name}' is the id of '{holders[name]}' too at {issuer}")
            holders.setdefault(name, client.id)


def skeleton(name: str) -> str:
    """What a name looks like at a glance; two of one skeleton are taken for each other (UTS 39)."""
    look = name.replace("I", "l").casefold()
    for shape, seen_as in _LOOK_ALIKES:
        look = look.replace(shape, seen_as)
    return look


def methods_of(auth: ClientAuthSection) -> frozenset[str]:
    """The authentication methods registered, whichever way they are written."""
    return frozenset([*(auth.methods or ()), *([auth.method] if auth.method else ())])


def _check_authentication(auth: ClientAuthSection, path: Path) -> Iterator[Finding]:
    methods = methods_of(auth)
    if not methods or (auth.method and auth.methods):
        yield Finding(path, "must have either 'method' or 'methods'", is_key=True)
        return
    uses_secret = bool(methods - {AUTH_PRIVATE_KEY_JWT})
    has_keys = auth.document or any(getattr(auth, name) is not None for name in KEY_SETTINGS)
    if uses_secret and not auth.secrets:
        yield Finding(path, "authenticates by a secret, but 'secrets' holds none", is_key=True)
    if auth.secrets and not uses_secret:
        yield Finding((*path, "secrets"), "has no effect: no method uses a secret", is_key=True)
    if AUTH_PRIVATE_KEY_JWT in methods and not has_keys:
        sentence = "needs the client's public keys for private_key_jwt: jwks, jwks_file or jwks_uri"
        yield Finding(path, sentence, is_key=True)
    if has_keys and AUTH_PRIVATE_KEY_JWT not in methods:
        yield Finding(path, "has keys, but private_key_jwt is not among its methods", is_key=True)


def check_key_set(
    scene: Scene, path: Path, *, entry: object, is_bundle: bool = False
) -> Iterator[Finding]:
    """At most one source of keys, and a sound set of public ones where they are given here."""
    given = [name for name in KEY_SETTINGS if getattr(entry, name) is not None]
    for name in given[1:]:
        sentence = f"is one source of keys too many beside {given[0]}"
        yield Finding((*path, name), sentence, is_key=True)
    for name in given:
        value = getattr(entry, name)
        try:
            if name == "jwks":
                files.check_key_set(value, is_bundle=is_bundle)
                scene.key_sets[path] = value
            elif name == "jwks_file":
                place = scene.places.resolve((*path, name), value)
                scene.key_sets[path] = files.read_key_set(place, is_bundle=is_bundle)
        except files.UnusableFile as unusable:
            yield Finding((*path, name), str(unusable), is_key=True)


def _check_introspection(scene: Scene, path: Path, *, listed: Sequence[str]) -> Iterator[Finding]:
    for at, resource in enumerate(listed):
        if normalise_resource(resource) not in scene.names.resources:
            hint = nearest(resource, scene.names.resources)
            yield Finding((*path, at), "is not registered in resources", hint)


def _check_issuers(scene: Scene, path: Path, *, listed: Sequence[str]) -> Iterator[Finding]:
    for at, issuer in enumerate(listed):
        if issuer not in scene.names.issuers:
            step = issuer if path[-1] == "issuer_client_ids" else at
            hint = nearest(issuer, scene.names.issuers)
            yield Finding((*path, step), "is not registered in issuers", hint, is_key=True)
