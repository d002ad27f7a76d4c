"""What everybody may know: the server metadata (RFC 8414) and the key set, derived from what is."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from broker.errors import Reason, TemporarilyUnavailable
from broker.interfaces import KeyStore, Registry
from broker.oauth import (
    AUTH_PRIVATE_KEY_JWT,
    AUTH_SECRET_BASIC,
    AUTH_SECRET_POST,
    GRANT_PROFILE_ID_JAG,
    PROOF_ALGORITHMS,
    TOKEN_TYPE_ID_JAG,
    VERIFICATION_ALGORITHMS,
)

_AUTH_METHODS: Final = (AUTH_SECRET_BASIC, AUTH_SECRET_POST, AUTH_PRIVATE_KEY_JWT)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The published keys as JWK members, and the seconds for which they may be kept."""

    keys: tuple[Mapping[str, str], ...]
    max_age: int


@dataclass(frozen=True, slots=True)
class DiscoveryEndpoint:
    """
    Publishes what works here, and nothing that does not.

    ``grant_types`` are those of the grants that are wired in. An ``authorization_endpoint`` is named
    although there is no interactive flow, because the MCP SDKs refuse metadata without one; it answers
    with an explanation, and ``response_types_supported`` is empty.
    """

    issuer: str
    registry: Registry
    key_store: KeyStore
    grant_types: tuple[str, ...]
    jwks_max_age: timedelta

    @property
    def token_endpoint(self) -> str:
        """Where tokens are asked for over HTTP, on the issuer's own origin."""
        return token_endpoint_of(self.issuer)

    def metadata(self) -> Mapping[str, Any]:
        """The RFC 8414 document."""
        base = self.issuer.rstrip("/")
        document: dict[str, Any] = {
            "issuer": self.issuer,
            "authorization_endpoint": base + "/authorize",
            "token_endpoint": self.token_endpoint,
            "introspection_endpoint": base + "/introspect",
            "revocation_endpoint": base + "/revoke",
            "jwks_uri": base + "/jwks",
            "response_types_supported": [],
            "grant_types_supported": list(self.grant_types),
            "authorization_grant_profiles_supported": [GRANT_PROFILE_ID_JAG],
            "identity_chaining_requested_token_types_supported": [TOKEN_TYPE_ID_JAG],
            "dpop_signing_alg_values_supported": list(PROOF_ALGORITHMS),
        }
        # Clients authenticate in the same ways wherever they authenticate (RFC 8414 2).
        for endpoint in ("token", "introspection", "revocation"):
            document[f"{endpoint}_endpoint_auth_methods_supported"] = list(_AUTH_METHODS)
            name = f"{endpoint}_endpoint_auth_signing_alg_values_supported"
            document[name] = list(VERIFICATION_ALGORITHMS)
        if self.registry.has_client_documents:
            document["client_id_metadata_document_supported"] = True
        return document

    def key_set(self) -> KeySet:
        """
        The keys that tokens of this issuer verify with (RFC 7517 5).

        Raises ``TemporarilyUnavailable`` before any key is known, since an empty set would be kept.
        """
        keys = sorted(self.key_store.public_keys(), key=lambda jwk: jwk["kid"])
        if not keys:
            raise TemporarilyUnavailable(Reason.SIGNER_UNAVAILABLE)
        # A set that could not be looked at lately may lack a key that begins to sign soon.
        max_age = min(int(self.jwks_max_age.total_seconds()), self.key_store.fresh_for())
        return KeySet(tuple(keys), max_age)


def token_endpoint_of(issuer: str) -> str:
    """Where the tokens of an issuer are asked for over HTTP."""
    return issuer.rstrip("/") + "/token"
