"""What the operator declared: clients, resources and trusted issuers, found by name."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from broker.model import (
    Client,
    ClientDocumentTerms,
    KeySource,
    Resource,
    ResourceAuthorizationServer,
    TrustedIssuer,
)
from broker.oauth import AUTH_PRIVATE_KEY_JWT, VERIFICATION_ALGORITHMS
from broker.tokens.client_url import client_url_host
from broker.tokens.resource_uri import normalise_resource

_Declared = TypeVar("_Declared", Client, Resource, ResourceAuthorizationServer, TrustedIssuer)


class FileRegistry:
    """
    The declarations of one reading of the file: a ``Registry`` that never changes.

    Every question is one look in a dictionary, so that nothing a caller asks for can cost more than
    anything else. Resources are brought to their normal form here, once; whoever asks brings theirs
    likewise. Raises ``ValueError`` when two declarations share a name, and ``InvalidTarget`` for a
    resource that has no normal form.

    ``client_documents`` are the terms on which a client is known by its metadata document. What was
    declared for an id always wins over them, so that any such client can be switched off.
    """

    def __init__(
        self,
        clients: Iterable[Client],
        resources: Iterable[Resource],
        issuers: Iterable[TrustedIssuer],
        *,
        authorization_servers: Iterable[ResourceAuthorizationServer] = (),
        disabled_subjects: frozenset[str] = frozenset(),
        client_documents: ClientDocumentTerms | None = None,
    ) -> None:
        self._clients: dict[str, Client] = {}
        self._clients_elsewhere: dict[tuple[str, str], Client] = {}
        self._resources: dict[str, Resource] = {}
        self._issuers: dict[str, TrustedIssuer] = {}
        self._servers: dict[str, ResourceAuthorizationServer] = {}
        self._disabled_subjects = disabled_subjects
        self._client_documents = client_documents
        for client in clients:
            _add(self._clients, client.client_id, value=client)
            for elsewhere in client.issuer_client_ids.items():
                self._clients_elsewhere[elsewhere] = client
        for declared in resources:
            resource = replace(declared, resource=normalise_resource(declared.resource))
            for name in (resource.resource, *resource.audiences):
                _add(self._resources, name, value=resource)
        for issuer in issuers:
            _add(self._issuers, issuer.issuer, value=issuer)
        for server in authorization_servers:
            for name in (server.issuer, *server.names):
                _add(self._servers, name, value=server)
        self.has_client_documents = client_documents is not None or any(
            client.keys is not None and client.keys.document is not None
            for client in self._clients.values()
        )

    def client(self, client_id: str) -> Client | None:
        declared = self._clients.get(client_id)
        return self._documented(client_id) if declared is None else declared

    def _documented(self, client_id: str) -> Client | None:
        """The client that a URL names whose host is on the list; its document is for others to read."""
        terms = self._client_documents
        if terms is None or client_url_host(client_id) not in terms.hosts:
            return None
        return Client(
            client_id,
            frozenset({AUTH_PRIVATE_KEY_JWT}),
            terms.grants,
            keys=KeySource(document=client_id),
            algorithms=frozenset(VERIFICATION_ALGORITHMS),
            groups=terms.groups,
            profile=terms.profile,
        )

    def client_at(self, issuer: str, client_id: str) -> Client | None:
        return self._clients_elsewhere.get((issuer, client_id))

    def resource(self, name: str) -> Resource | None:
        return self._resources.get(name)

    def issuer(self, issuer: str) -> TrustedIssuer | None:
        return self._issuers.get(issuer)

    def authorization_server(self, name: str) -> ResourceAuthorizationServer | None:
        return self._servers.get(name)

    def is_subject_disabled(self, sub: str) -> bool:
        return sub in self._disabled_subjects


def _add(found: dict[str, _Declared], name: str, *, value: _Declared) -> None:
    if name in found:
        raise ValueError(f"declared twice: {name}")
    found[name] = value
