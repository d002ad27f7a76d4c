"""The one gate through which every caller passes before anything else of its request is looked at."""

from dataclasses import dataclass

from broker.client_auth.assertion import AssertionVerifier
from broker.client_auth.basic import read_basic
from broker.client_auth.known_clients import KnownClients
from broker.client_auth.secrets import SecretVerifier
from broker.client_auth.workload import WorkloadVerifier
from broker.errors import (
    InvalidClient,
    InvalidGrant,
    InvalidRequest,
    OAuthError,
    Reason,
    TokenRejected,
    UnauthorizedClient,
)
from broker.model import AuthenticatedClient, Client, ClientCredential, TokenRequest
from broker.oauth import (
    AUTH_NONE,
    AUTH_PRIVATE_KEY_JWT,
    AUTH_SECRET_BASIC,
    AUTH_SECRET_POST,
    AUTH_WORKLOAD,
    CLIENT_ASSERTION_JWT_BEARER,
    CLIENT_ASSERTION_JWT_SPIFFE,
)


@dataclass(frozen=True, slots=True)
class ClientAuthenticator:
    """
    Authenticates a client by exactly one method (RFC 6749 2.3).

    What it proves includes the one-time id of an assertion; spending that is the endpoint's business,
    once everything else has been checked.
    """

    clients: KnownClients
    assertions: AssertionVerifier
    secrets: SecretVerifier
    workloads: WorkloadVerifier

    def authenticate(self, credential: ClientCredential) -> AuthenticatedClient:
        """
        The client behind ``credential``.

        Raises ``InvalidClient``, ``UnauthorizedClient`` for a public client, ``InvalidRequest`` when several
        methods are used at once, and ``RateLimited`` where a client's document is not to be had now.
        """
        method = _sole_method(credential)
        if method == AUTH_NONE:
            raise self._refusal_without_proof(credential.client_id)
        if method == AUTH_PRIVATE_KEY_JWT:
            authenticated = self._by_assertion(credential)
        elif method == AUTH_SECRET_BASIC:
            authenticated = self._by_basic(credential)
        else:
            authenticated = self._by_posted_secret(credential)
        _check_claimed_id(credential, authenticated)
        return authenticated

    def authenticate_workload(self, request: TokenRequest) -> AuthenticatedClient:
        """
        The client behind a request whose assertion is a workload's token and its only credential.

        Raises ``InvalidGrant`` for a bad assertion, and ``InvalidClient`` for another client's id.
        """
        try:
            verified = self.workloads.verify((request.assertion or "").strip())
        except TokenRejected as rejected:
            raise InvalidGrant(rejected.reason, detail=rejected.detail) from rejected
        authenticated = AuthenticatedClient(
            verified.client,
            AUTH_WORKLOAD,
            verified.one_time_id,
            workload=verified.as_input,
            is_by_assertion=True,
        )
        _check_claimed_id(request.credential, authenticated)
        return authenticated

    def _refusal_without_proof(self, client_id: str | None) -> OAuthError:
        """
        What a caller is told that sends no credential.

        No grant here is for public clients (ID-JAG 9.1), and a client that is one should know.
        """
        try:
            if client_id is not None and self.clients.is_public(client_id):
                return UnauthorizedClient(Reason.PUBLIC_CLIENT_FORBIDDEN)
        except TokenRejected as rejected:
            return InvalidClient(rejected.reason, detail=rejected.detail)
        return InvalidClient(Reason.CLIENT_AUTH_MISSING)

    def _by_assertion(self, credential: ClientCredential) -> AuthenticatedClient:
        assertion, assertion_type = credential.client_assertion, credential.client_assertion_type
        is_known = assertion_type in (CLIENT_ASSERTION_JWT_BEARER, CLIENT_ASSERTION_JWT_SPIFFE)
        if not is_known or assertion is None:
            raise InvalidClient(Reason.ASSERTION_TYPE, parameter="client_assertion_type")
        try:
            if assertion_type == CLIENT_ASSERTION_JWT_SPIFFE:
                return self._by_svid(assertion)
            verified = self.assertions.verify(assertion, client_id=credential.client_id)
        except TokenRejected as rejected:
            raise InvalidClient(rejected.reason, detail=rejected.detail) from rejected
        return AuthenticatedClient(verified.client, AUTH_PRIVATE_KEY_JWT, verified.one_time_id)

    def _by_svid(self, svid: str) -> AuthenticatedClient:
        verified = self.workloads.verify_svid(svid)
        return AuthenticatedClient(
            verified.client, AUTH_WORKLOAD, verified.one_time_id, workload=verified.as_input
        )

    def _by_basic(self, credential: ClientCredential) -> AuthenticatedClient:
        named: Client | None = None
        secrets: tuple[str, ...] = ("",)
        for candidate in read_basic(credential.unverified_authorization):
            client = self.clients.registry.client(candidate.client_id)
            if client is not None:
                named, secrets = client, candidate.secrets
                break
        return self._by_secret(named, secrets, method=AUTH_SECRET_BASIC)

    def _by_posted_secret(self, credential: ClientCredential) -> AuthenticatedClient:
        client_id, secret = credential.client_id, credential.client_secret
        if client_id is None or secret is None:
            raise InvalidClient(Reason.CLIENT_AUTH_MISSING, parameter="client_id")
        named = self.clients.registry.client(client_id)
        unknown = self.clients.reason_unknown(client_id)
        return self._by_secret(named, (secret,), method=AUTH_SECRET_POST, unknown=unknown)

    def _by_secret(
        self,
        client: Client | None,
        secrets: tuple[str, ...],
        *,
        method: str,
        unknown: Reason = Reason.CLIENT_UNKNOWN,
    ) -> AuthenticatedClient:
        """
        Check the secret before anything else is told apart, so that all failures cost the same.

        ``unknown`` is the reason where there is no such client.
        """
        stored = () if client is None else client.secrets
        is_right = self.secrets.is_one_of(secrets, stored)
        if client is None:
            raise InvalidClient(unknown)
        if method not in client.auth_methods:
            raise InvalidClient(Reason.AUTH_METHOD_REFUSED)
        if not is_right:
            raise InvalidClient(Reason.BAD_SECRET)
        if client.is_disabled:
            raise InvalidClient(Reason.CLIENT_DISABLED)
        return AuthenticatedClient(client, method)


def _check_claimed_id(credential: ClientCredential, authenticated: AuthenticatedClient) -> None:
    claimed = credential.client_id
    if claimed is not None and claimed != authenticated.client.client_id:
        raise InvalidClient(Reason.CLIENT_ID_MISMATCH, parameter="client_id")


def _sole_method(credential: ClientCredential) -> str:
    used = []
    if credential.unverified_authorization:
        used.append(AUTH_SECRET_BASIC)
    if credential.client_assertion is not None or credential.client_assertion_type is not None:
        used.append(AUTH_PRIVATE_KEY_JWT)
    if credential.client_secret is not None:
        used.append(AUTH_SECRET_POST)
    if len(used) > 1:
        raise InvalidRequest(Reason.MULTIPLE_CLIENT_AUTH)
    return used[0] if used else AUTH_NONE
