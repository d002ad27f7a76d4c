"""The registered names of OAuth and JOSE that the broker speaks: grant types, token types, parameters."""

from typing import Final

GRANT_TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
GRANT_CLIENT_CREDENTIALS: Final = "client_credentials"
GRANT_JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"

GRANT_PROFILE_ID_JAG: Final = "urn:ietf:params:oauth:grant-profile:id-jag"

CLIENT_ASSERTION_JWT_BEARER: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
CLIENT_ASSERTION_JWT_SPIFFE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"

_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:"
TOKEN_TYPE_ACCESS_TOKEN: Final = _TOKEN_TYPE + "access_token"
TOKEN_TYPE_REFRESH_TOKEN: Final = _TOKEN_TYPE + "refresh_token"
TOKEN_TYPE_ID_TOKEN: Final = _TOKEN_TYPE + "id_token"
TOKEN_TYPE_SAML1: Final = _TOKEN_TYPE + "saml1"
TOKEN_TYPE_SAML2: Final = _TOKEN_TYPE + "saml2"
TOKEN_TYPE_JWT: Final = _TOKEN_TYPE + "jwt"
TOKEN_TYPE_ID_JAG: Final = _TOKEN_TYPE + "id-jag"

CLIENT_SUBJECT_PREFIX: Final = "client:"
"""What the subject of a client's own token begins with; no user's subject may."""

AUTH_SECRET_BASIC: Final = "client_secret_basic"
AUTH_SECRET_POST: Final = "client_secret_post"
AUTH_PRIVATE_KEY_JWT: Final = "private_key_jwt"
AUTH_NONE: Final = "none"
AUTH_WORKLOAD: Final = "workload_identity"
"""What the audit record calls a client that a workload's token vouched for; it is not registered."""

TYP_ACCESS_TOKEN: Final = "at+jwt"
TYP_ID_JAG: Final = "oauth-id-jag+jwt"
TYP_CLIENT_AUTHENTICATION: Final = "client-authentication+jwt"
TYP_DPOP: Final = "dpop+jwt"
TYP_JWT: Final = "JWT"

SIGNING_ALGORITHMS: Final = ("ES256", "RS256")
"""The algorithms that the broker signs with; RFC 9068 2.1 asks for RS256 to be there."""

VERIFICATION_ALGORITHMS: Final = (
    "ES256",
    "ES384",
    "RS256",
    "PS256",
    "EdDSA",
    "Ed25519",
)
"""The algorithms that an operator may pin for an issuer or a client; all are asymmetric."""

PROOF_ALGORITHMS: Final = ("ES256", "RS256", "PS256", "EdDSA", "Ed25519")
"""The algorithms of DPoP proofs that are accepted; all are asymmetric (RFC 9449 5.1)."""

KNOWN_PARAMETERS: Final = frozenset(
    {
        "actor_token",
        "actor_token_type",
        "assertion",
        "audience",
        "authorization_details",
        "client_assertion",
        "client_assertion_type",
        "client_id",
        "client_secret",
        "code",
        "code_verifier",
        "device_code",
        "grant_type",
        "password",
        "redirect_uri",
        "refresh_token",
        "requested_token_type",
        "resource",
        "scope",
        "subject_token",
        "subject_token_type",
        "token",
        "token_type_hint",
        "username",
    }
)
"""
Parameters with a registered meaning at one of the endpoints.

A grant refuses those it has no use for; any other name is ignored (RFC 6749 3.2).
"""

CLIENT_PARAMETERS: Final = frozenset(
    {"grant_type", "client_id", "client_secret", "client_assertion", "client_assertion_type"}
)
"""Parameters that belong to every grant: they name the grant and authenticate the client."""

REPEATABLE_PARAMETERS: Final = frozenset({"audience", "resource"})
"""The parameters that RFC 8693 2.1 allows to be sent more than once."""

TOKEN_TYPE_BEARER: Final = "Bearer"
TOKEN_TYPE_DPOP: Final = "DPoP"
TOKEN_TYPE_NOT_APPLICABLE: Final = "N_A"
"""The ``token_type`` of what is issued and is no access token (RFC 8693 2.2.1)."""
