"""Which client an id names, by its registration or by its metadata document, and with which keys."""

from dataclasses import dataclass, replace

from broker.errors import Reason, TokenRejected
from broker.interfaces import ClientDocuments, KeyRing, Registry, VerificationKey
from broker.model import Client
from broker.oauth import AUTH_NONE
from broker.tokens.client_url import client_url_host, is_url_like


@dataclass(frozen=True, slots=True)
class KnownClients:
    """
    The clients that the registry answers for, and what the documents of some of them add to that.

    A document can only take away: a method, grants, algorithms. It is fetched for no id that the registry
    does not answer for, and for no client that is switched off.
    """

    registry: Registry
    key_ring: KeyRing
    documents: ClientDocuments

    def named(self, client_id: str) -> Client:
        """
        The client of this id, as registered; nothing is fetched.

        Raises ``TokenRejected``: ``client_unknown``, or where clients may be known by a document, for an
        id that is meant as its URL, ``cimd_url_invalid`` or ``cimd_domain_refused``.
        """
        client = self.registry.client(client_id)
        if client is None:
            raise TokenRejected(self.reason_unknown(client_id))
        return client

    def reason_unknown(self, client_id: str) -> Reason:
        """Why an id names nobody."""
        if not self.registry.has_client_documents or not is_url_like(client_id):
            return Reason.CLIENT_UNKNOWN
        if client_url_host(client_id) is None:
            return Reason.CIMD_URL_INVALID
        return Reason.CIMD_DOMAIN_REFUSED

    def as_documented(self, client: Client) -> Client:
        """
        The client with what its document leaves of its registration; itself where it has none.

        Raises ``TokenRejected`` and ``RateLimited`` as ``ClientDocuments.document`` does.
        """
        url = _document_of(client)
        if url is None:
            return client
        if client.is_disabled:
            raise TokenRejected(Reason.CLIENT_DISABLED)
        document = self.documents.document(url)
        grants, algorithm = document.grants, document.algorithm
        return replace(
            client,
            auth_methods=client.auth_methods & {document.auth_method},
            grants=client.grants if grants is None else client.grants & grants,
            algorithms=client.algorithms if algorithm is None else client.algorithms & {algorithm},
            is_bound=client.is_bound or document.is_bound,
        )

    def is_public(self, client_id: str) -> bool:
        """
        Whether the id is that of a client whose document says that it does not authenticate.

        Raises ``TokenRejected`` for an id that is meant as a document's URL and has no acceptable one.
        """
        client = self.registry.client(client_id)
        if client is None and self.reason_unknown(client_id) is not Reason.CLIENT_UNKNOWN:
            raise TokenRejected(self.reason_unknown(client_id))
        url = None if client is None or client.is_disabled else _document_of(client)
        return url is not None and self.documents.document(url).auth_method == AUTH_NONE

    def key(self, client: Client, kid: str | None, algorithm: str) -> VerificationKey:
        """The client's key that a token's header names; raises as ``KeyRing.key`` does."""
        url = _document_of(client)
        if url is not None:
            return self.documents.key(url, kid, algorithm)
        if client.keys is None:
            raise TokenRejected(Reason.AUTH_METHOD_REFUSED)
        return self.key_ring.key(client.keys, kid, algorithm)


def _document_of(client: Client) -> str | None:
    return None if client.keys is None else client.keys.document
