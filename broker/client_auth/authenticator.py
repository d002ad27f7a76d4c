"""The one gate through which every caller passes before anything else of its request is looked at."""

from dataclasses import dataclass
from typing import Final

from broker.client_auth.assertion import AssertionVerifier
from broker.client_auth.basic import read_basic
from broker.client_auth.secrets import SecretVerifier
from broker.errors import InvalidClient, InvalidRequest, Reason, TokenRejected
from broker.interfaces import Registry
from broker.model import AuthenticatedClient, Client, ClientCredential
from broker.oauth import (
    AUTH_PRIVATE_KEY_JWT,
    AUTH_SECRET_BASIC,
    AUTH_SECRET_POST,
    CLIENT_ASSERTION_JWT_BEARER,
)

_LONGEST_CLIENT_ID: Final = 2048


@dataclass(frozen=True, slots=True)
class ClientAuthenticator:
    """
    Authenticates a client by exactly one method (RFC 6749 2.3).

    What it proves includes the one-time id of an assertion; spending that is the endpoint's business,
    once everything else has been checked.
    """

    registry: Registry
    assertions: AssertionVerifier
    secrets: SecretVerifier

    def authenticate(self, credential: ClientCredential) -> AuthenticatedClient:
        """
        The client behind ``credential``.

        Raises ``InvalidClient``, or ``InvalidRequest`` when several methods are used at once.
        """
        method = _sole_method(credential)
        if method == AUTH_PRIVATE_KEY_JWT:
            authenticated = self._by_assertion(credential)
        elif method == AUTH_SECRET_BASIC:
            authenticated = self._by_basic(credential)
        else:
            authenticated = self._by_posted_secret(credential)
        claimed = credential.client_id
        if claimed is not None and claimed != authenticated.client.client_id:
            raise InvalidClient(Reason.CLIENT_ID_MISMATCH, parameter="client_id")
        return authenticated

    def _by_assertion(self, credential: ClientCredential) -> AuthenticatedClient:
        if (
            credential.client_assertion_type != CLIENT_ASSERTION_JWT_BEARER
            or credential.client_assertion is None
        ):
            raise InvalidClient(Reason.ASSERTION_TYPE, parameter="client_assertion_type")
        try:
            verified = self.assertions.verify(credential.client_assertion)
        except TokenRejected as rejected:
            raise InvalidClient(rejected.reason, detail=rejected.detail) from rejected
        return AuthenticatedClient(verified.client, AUTH_PRIVATE_KEY_JWT, verified.one_time_id)

    def _by_basic(self, credential: ClientCredential) -> AuthenticatedClient:
        named: Client | None = None
        secrets: tuple[str, ...] = ("",)
        for candidate in read_basic(credential.unverified_authorization):
            client = self.registry.client(candidate.client_id)
            if client is not None:
                named, secrets = client, candidate.secrets
                break
        return self._by_secret(named, secrets, method=AUTH_SECRET_BASIC)

    def _by_posted_secret(self, credential: ClientCredential) -> AuthenticatedClient:
        client_id, secret = credential.client_id, credential.client_secret
        if client_id is None or secret is None:
            raise InvalidClient(Reason.CLIENT_AUTH_MISSING, parameter="client_id")
        named = self.registry.client(client_id) if len(client_id) <= _LONGEST_CLIENT_ID else None
        return self._by_secret(named, (secret,), method=AUTH_SECRET_POST)

    def _by_secret(
        self, client: Client | None, secrets: tuple[str, ...], *, method: str
    ) -> AuthenticatedClient:
        """Check the secret before anything else is told apart, so that all failures cost the same."""
        stored = () if client is None else client.secrets
        is_right = self.secrets.is_one_of(secrets, stored)
        if client is None:
            raise InvalidClient(Reason.CLIENT_UNKNOWN)
        if method not in client.auth_methods:
            raise InvalidClient(Reason.AUTH_METHOD_REFUSED)
        if not is_right:
            raise InvalidClient(Reason.BAD_SECRET)
        if client.is_disabled:
            raise InvalidClient(Reason.CLIENT_DISABLED)
        return AuthenticatedClient(client, method)


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
    if not used:
        raise InvalidClient(Reason.CLIENT_AUTH_MISSING)
    return used[0]
