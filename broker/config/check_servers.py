"""Authorization servers whose registration is unsafe or impossible."""

from collections.abc import Iterator, Mapping
from typing import Final

from broker.config import files
from broker.config.declarations import AuthorizationServerEntry
from broker.config.findings import Finding, Scene
from broker.config.problems import Path, nearest
from broker.tokens.client_url import client_url_host
from broker.tokens.resource_uri import normalise_resource

_LEAST_PAIRWISE_KEY: Final = 32


def check_servers(scene: Scene) -> Iterator[Finding]:
    """Everything that is wrong among the servers that redeem our identity assertions."""
    servers: dict[Path, AuthorizationServerEntry] = {
        ("authorization_servers", at): server
        for at, server in enumerate(scene.file.authorization_servers)
    }
    yield from _check_names(scene, servers)
    for path, server in servers.items():
        yield from _check_clients(scene, path, server=server)
        yield from _check_subjects(scene, path, server=server)
        yield from _check_resources(server, path)
    if "tokens" not in scene.broken:
        yield from _check_pairwise_key(scene)


def _check_names(
    scene: Scene, servers: Mapping[Path, AuthorizationServerEntry]
) -> Iterator[Finding]:
    """One name, one server: an assertion for another would tell it who uses what."""
    taken = {scene.file.issuer: "the broker's own issuer"}
    for path, server in servers.items():
        if server.issuer in taken:
            yield Finding((*path, "issuer"), f"is {taken[server.issuer]} as well")
        taken.setdefault(server.issuer, f"the issuer of {path[0]}.{path[1]}")
    for path, server in servers.items():
        for at, name in enumerate(server.names):
            if name in taken:
                yield Finding((*path, "names", at), f"is {taken[name]} as well")
            taken.setdefault(name, f"a name of {path[0]}.{path[1]}")


def _check_clients(
    scene: Scene, path: Path, *, server: AuthorizationServerEntry
) -> Iterator[Finding]:
    documents = scene.file.client_documents
    hosts = documents.hosts if documents is not None else ()
    for client_id in server.client_ids:
        if client_id not in scene.names.clients and client_url_host(client_id) not in hosts:
            hint = nearest(client_id, scene.names.clients)
            at: Path = (*path, "client_ids", client_id)
            yield Finding(at, "is not registered in clients", hint, is_key=True)


def _check_subjects(
    scene: Scene, path: Path, *, server: AuthorizationServerEntry
) -> Iterator[Finding]:
    if server.subject == "mapped" and not server.subjects:
        sentence = "needs 'subjects': nobody would have an account there"
        yield Finding((*path, "subject"), sentence)
    if server.subject != "mapped" and server.subjects:
        yield Finding((*path, "subjects"), "has no effect without subject: mapped", is_key=True)
    has_key = "tokens" in scene.broken or scene.file.tokens.pairwise_key_file is not None
    if server.subject == "pairwise" and not has_key:
        sentence = "needs a secret that pseudonyms are made of, in tokens.pairwise_key_file"
        yield Finding((*path, "subject"), sentence)


def _check_resources(server: AuthorizationServerEntry, path: Path) -> Iterator[Finding]:
    seen: set[str] = set()
    for at, entry in enumerate(server.resources):
        place: Path = (*path, "resources", at)
        name = normalise_resource(entry.resource)
        if name in seen:
            yield Finding((*place, "resource"), "is registered twice at this server")
        seen.add(name)
        if not entry.scopes:
            yield Finding(place, "has no scopes, so nothing could ever be asserted for it")


def _check_pairwise_key(scene: Scene) -> Iterator[Finding]:
    path: Path = ("tokens", "pairwise_key_file")
    value = scene.file.tokens.pairwise_key_file
    if value is None:
        return
    try:
        files.check_long_secret(scene.places.resolve(path, value), least=_LEAST_PAIRWISE_KEY)
    except files.UnusableFile as unusable:
        yield Finding(path, str(unusable))
