"""Clients known by a metadata document whose registration is unsafe or impossible."""

from collections.abc import Iterator

from broker.config.check_clients import KEY_SETTINGS, methods_of
from broker.config.declarations import ClientEntry
from broker.config.findings import Finding, Scene
from broker.config.problems import Path
from broker.oauth import AUTH_PRIVATE_KEY_JWT
from broker.tokens.client_url import LONGEST_CLIENT_URL, client_url_host


def check_client_documents(scene: Scene) -> Iterator[Finding]:
    """Hosts that no client id can have, and clients whose document could not be their only proof."""
    section = scene.file.client_documents
    for at, host in enumerate(section.hosts if section is not None else ()):
        if client_url_host(f"https://{host}/id") != host:
            sentence = "is no host of a client id, which is a name and neither address nor number"
            yield Finding(("client_documents", "hosts", at), sentence)
    for path, client in scene.clients:
        if client.auth.document:
            yield from _check_client(client, path)


def _check_client(client: ClientEntry, path: Path) -> Iterator[Finding]:
    auth: Path = (*path, "auth")
    if client_url_host(client.id) is None:
        sentence = (
            "is not where a document can be: it must be an https URL with a path, without query,"
            f" fragment or address, of at most {LONGEST_CLIENT_URL} characters"
        )
        yield Finding((*path, "id"), sentence)
    given = [name for name in KEY_SETTINGS if getattr(client.auth, name) is not None]
    for name in given:
        sentence = f"is one source of keys too many beside {name}"
        yield Finding((*auth, "document"), sentence, is_key=True)
    if methods_of(client.auth) - {AUTH_PRIVATE_KEY_JWT}:
        sentence = "leaves private_key_jwt as the only method: a document cannot hold a secret"
        yield Finding((*auth, "document"), sentence, is_key=True)
