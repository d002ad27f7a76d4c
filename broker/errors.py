"""Everything the broker answers instead of a token, and the closed list of reasons it records."""

import random
from enum import Enum
from typing import ClassVar, Final, Self

# What is told of whole groups of reasons, so that nothing can be learnt from the difference.
_NOT_ACCEPTED: Final = (
    "The token is not from an issuer that is accepted here, or its signature does not verify."
)
_BAD_DOCUMENT: Final = "Client authentication failed."
_NO_TARGET: Final = "The target is unknown or not available to this request."


class Reason(Enum):
    """
    Why a request was refused.

    The name in lower case is the audit record's ``reason``. The sentence is what the caller may
    read: what to fix, and nothing that helps to guess. Reasons that must look alike from outside
    have the same sentence.
    """

    sentence: str

    def __new__(cls, sentence: str) -> Self:
        """Give each member a value of its own, since members of equal value would be merged."""
        member = object.__new__(cls)
        member._value_ = len(cls.__members__) + 1
        member.sentence = sentence
        return member

    # The container of a token (RFC 7515, RFC 8725).
    ALG_NOT_ALLOWED = _NOT_ACCEPTED
    KEY_ALG_MISMATCH = _NOT_ACCEPTED
    UNKNOWN_KEY = _NOT_ACCEPTED
    CRIT_UNSUPPORTED = "The token carries a critical header that is not supported."
    MALFORMED_TOKEN = "The token is not a compact JWS."
    JWE_REFUSED = "Encrypted tokens are not accepted."
    SIG_INVALID = _NOT_ACCEPTED
    TOKEN_TOO_LARGE = "The token is too large."
    WRONG_TOKEN_TYPE = "The token is not of the type it was presented as."
    KEY_NOT_FOR_SIG = _NOT_ACCEPTED

    # JSON and claims (RFC 7519).
    DUPLICATE_MEMBER = "The token carries a JSON member twice."
    JSON_TOO_DEEP = "The token's JSON is nested too deeply."
    CLAIM_MALFORMED = "The token lacks a required claim or carries a malformed one."
    CLAIM_INCONSISTENT = "The token's claims contradict each other."
    LIFETIME_TOO_LONG = "The token's lifetime is longer than is accepted."
    NOT_YET_VALID = "The token is not valid yet."
    TOKEN_EXPIRED = "The token has expired."
    AUD_MISMATCH = "The token is not addressed to this recipient."
    ISS_UNKNOWN = _NOT_ACCEPTED
    CNF_UNSUPPORTED = "The token is bound to a key in a way that is not supported here."
    POP_REQUIRED = "The token is bound to a key; proof of that key is required."
    POP_MISMATCH = "The proof is not by the key that the token is bound to."
    POP_MALFORMED = "The DPoP proof is malformed, or there is more than one."
    POP_SIGNATURE = "The DPoP proof is not signed by the key it carries, in a way accepted here."
    POP_HTM = "The DPoP proof is for another method."
    POP_HTU = "The DPoP proof is for another address."
    POP_STALE = "The DPoP proof was not made just now."

    # Issuers and their keys.
    ISSUER_DISABLED = _NOT_ACCEPTED
    ISSUER_NOT_FOR_PURPOSE = _NOT_ACCEPTED
    ISSUER_NOT_FOR_CLIENT = _NOT_ACCEPTED
    KEY_SOURCE_UNAVAILABLE = "The keys of the token's issuer cannot be had at the moment."

    # The client (RFC 6749 2.3, RFC 7523).
    CLIENT_AUTH_MISSING = "Client authentication is required."
    CLIENT_UNKNOWN = "Client authentication failed."
    CLIENT_DISABLED = "Client authentication failed."
    BAD_SECRET = "Client authentication failed."
    BASIC_MALFORMED = "Client authentication failed."
    AUTH_METHOD_REFUSED = "Client authentication failed."
    MULTIPLE_CLIENT_AUTH = "Use exactly one client authentication method."
    CLIENT_ID_MISMATCH = "The client_id parameter does not name the authenticated client."
    AUD_NOT_SOLE_ISSUER = "The client assertion must be addressed to the issuer and nobody else."
    ASSERTION_TYPE = "The client_assertion_type is missing or not supported."
    REPLAY = "This one-time token was used before."
    PUBLIC_CLIENT_FORBIDDEN = "This grant is for clients that authenticate."
    WORKLOAD_UNKNOWN = "No client is registered for this workload."
    CREDENTIAL_IN_QUERY = "Credentials are not accepted in the query."
    GRANT_NOT_ALLOWED = "The client is not registered for this grant."

    # Client ID metadata documents, and what else is fetched for a caller. An attacker who chooses the
    # address must not learn from the answer what is there.
    CIMD_URL_INVALID = _BAD_DOCUMENT
    CIMD_DOMAIN_REFUSED = _BAD_DOCUMENT
    CIMD_ID_MISMATCH = _BAD_DOCUMENT
    CIMD_INVALID = _BAD_DOCUMENT
    CIMD_FORBIDDEN_AUTH = _BAD_DOCUMENT
    FETCH_BLOCKED = _BAD_DOCUMENT
    FETCH_REDIRECT = _BAD_DOCUMENT
    FETCH_STATUS = _BAD_DOCUMENT
    FETCH_TIMEOUT = _BAD_DOCUMENT
    FETCH_TLS = _BAD_DOCUMENT
    FETCH_FAILED = _BAD_DOCUMENT
    FETCH_LIMIT = "The service is temporarily unavailable."

    # The request.
    PARAM_MISSING = "A required parameter is missing."
    PARAM_NOT_ALLOWED = "A parameter does not belong to this grant."
    DUPLICATE_PARAM = "A parameter is repeated."
    PARAM_TOO_LARGE = "A parameter is too large."
    PARAM_MALFORMED = "A parameter is malformed."
    BODY_MALFORMED = "The request body cannot be read."
    BODY_TOO_LARGE = "The request is too large."
    CONTENT_TYPE = "The content type must be application/x-www-form-urlencoded."
    CONTENT_ENCODING = "Compressed request bodies are not accepted."
    GRANT_UNSUPPORTED = "The grant type is not supported."
    TYPE_UNSUPPORTED = "The token type is not supported."
    REQUESTED_TYPE = "The requested token type is not supported."
    DEADLINE_EXCEEDED = "The request's deadline passed before a token was issued."

    # The target (RFC 8707).
    TARGET_UNKNOWN = _NO_TARGET
    TARGET_REFUSED = _NO_TARGET
    POLICY_NO_PERMIT = _NO_TARGET
    POLICY_FORBIDDEN = _NO_TARGET
    POLICY_ERROR = _NO_TARGET
    TARGET_MISSING = "Name the resource that the token is for."
    TARGET_MALFORMED = "The resource must be an absolute URI without a fragment."
    TARGET_CONFLICT = _NO_TARGET
    SINGLE_TARGET_ONLY = "Ask for one target per token."
    TOO_MANY_TARGETS = "Ask for 16 targets at most in one call."
    BATCH_BEYOND_BURST = (
        "Ask for fewer targets in one call: the client may never ask for so many at once."
    )
    TARGET_REPEATED = "Two of the targets are the same resource."

    # Identity assertions (ID-JAG).
    JAG_AUDIENCE = "Name exactly one authorization server, by its issuer, as the audience."
    CLIENT_MAPPING_MISSING = "The client has no registration at the target authorization server."
    CLIENT_MISMATCH = "The assertion was not issued to the authenticated client."
    SELF_ISSUED_JAG = "Assertions of this issuer are not redeemed here."
    SUBJECT_UNRESOLVED = "The assertion's subject has no account here."
    RAR_INVALID = "The authorization_details are not supported."

    # Scopes.
    SCOPE_MALFORMED = "The scope parameter is malformed."
    SCOPE_UNKNOWN = "A requested scope is not defined for the resource."
    SCOPE_EXCEEDS_SUBJECT = "None of the requested scopes can be granted."
    SCOPE_NOT_PERMITTED = "None of the requested scopes can be granted."

    # The subject and the delegation (RFC 8693).
    SUBJECT_NOT_FOR_CALLER = "The subject token was not issued to or for this client."
    SUBJECT_NOT_FOR_BROKER = "The subject token was not issued for exchange here."
    SUBJECT_AUD_MISMATCH = "The identity token was not issued to this client."
    SUBJECT_EXPIRED = "The subject token has expired."
    SUBJECT_RESERVED = "The subject token's sub is not acceptable."
    REVOKED = "The token is no longer valid."
    ANCESTOR_REVOKED = "The token is no longer valid."
    REVOKE_NOT_OWNER = "The token was not issued to this client."
    INTROSPECT_NOT_AUDIENCE = "The token is not addressed to this client."
    NOT_REVOCABLE = "Tokens of this type cannot be revoked."
    PRINCIPAL_DISABLED = "The token is no longer valid."
    TENANT_MISMATCH = "The tokens and the client belong to different tenants."
    CHAIN_TOO_DEEP = "The chain of actors is too long."
    CHAIN_LOOP = "The client already stands in the chain of actors."
    CHAIN_MALFORMED = "The act claim is malformed."
    MAY_ACT_DENIED = "The subject token does not allow this actor."
    ACTOR_NOT_CALLER = "The actor token does not name the authenticated client."
    ACTOR_EXPIRED = "The actor token has expired."
    ACTOR_REVOKED = "The actor token is no longer valid."
    ACTOR_AUD_MISMATCH = "The actor token is not addressed to this issuer."
    ACTOR_WRONG_TYPE = "The actor token is not of a type that can name an actor."
    ACTOR_DELEGATED = "The actor token is itself delegated."
    ISSUED_TOO_LARGE = "The token to issue would be too large."
    BORN_EXPIRED = "Too little remains of the lifetime of the tokens presented."
    STEP_UP_REQUIRED = "A stronger or fresher login of the user is required."

    # Auditors, who read the record.
    LINK_UNKNOWN = "The link was used before, or its time is over."
    LOGIN_UNKNOWN = "The login was not begun in this browser, or its time is over."
    LOGIN_REFUSED = "The login provider did not say who you are."
    LOGIN_UNAVAILABLE = "The login provider cannot be reached at the moment."
    AUDITOR_UNKNOWN = "The account may not read the audit record."
    FORM_FORGED = "The form was not sent from a page of this site, or the page is too old."
    QUERY_MALFORMED = "The query cannot be answered as it is."
    QUERY_TOO_EXPENSIVE = "The answer takes too long; ask for less time or by another filter."
    AUDIT_UNREADABLE = "The audit record cannot be read at the moment."
    EVENT_UNKNOWN = "There is no such event."
    EVENT_CHANGED = "The event does not stand in the record as it was written."
    EVENT_NOT_SEALED = "The event is not sealed yet; ask again in some seconds."

    # The broker's own parts.
    REPLAY_STORE_UNAVAILABLE = "The service is temporarily unavailable."
    REVOCATION_UNAVAILABLE = "The service is temporarily unavailable."
    SIGNER_UNAVAILABLE = "The service is temporarily unavailable."
    AUDIT_UNAVAILABLE = "The service is temporarily unavailable."
    OVERLOADED = "The service is temporarily unavailable."
    STREAM_LIMIT = "The client holds as many streams as it may."
    CLIENT_LIMIT = "The client asks more often than it may."
    SOURCE_LIMIT = "Too many requests from this address came without a client's proof."
    CONFIGURATION_STALE = "The service is temporarily unavailable."
    CLOCK_WENT_BACK = "The service is temporarily unavailable."
    PERMISSION_MISSING = "The client may not use this operation."
    INTERNAL_ERROR = "The request could not be completed."

    @property
    def code(self) -> str:
        """The reason as the audit record spells it, such as ``subject_expired``."""
        return self.name.lower()


class TokenRejected(Exception):
    """
    A presented token is not acceptable.

    It is not an answer yet: the slot the token was presented in chooses the OAuth code
    (``invalid_request`` for a subject token, ``invalid_grant`` for an assertion, and so on).
    ``detail`` is for the audit record alone and never holds any part of a token.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason.code)
        self.reason = reason
        self.detail = detail
        self.known_as: tuple[str, str | None, int, str] | None = None
        """Issuer, ``jti``, expiry and subject of a token of ours that was good until it was withdrawn."""


class OAuthError(Exception):
    """
    An answer in the error format of RFC 6749 5.2, on either face.

    A subclass fixes the registered code, the HTTP status and the gRPC status together, so that
    no call site can pair them wrongly. ``parameter`` names the request parameter at fault, and
    ``target`` the one at fault of several targets, counted from 0. One
    that is not ``is_recorded`` has no audit record, so the answer may not name one.
    """

    error: ClassVar[str] = "server_error"
    http_status: ClassVar[int] = 500
    grpc_status: ClassVar[str] = "INTERNAL"

    is_recorded: bool = True

    def __init__(self, reason: Reason, *, parameter: str = "", detail: str = "") -> None:
        super().__init__(f"{self.error}: {reason.code}")
        self.reason = reason
        self.parameter = parameter
        self.detail = detail
        self.target: int | None = None

    @property
    def description(self) -> str:
        """The sentence for ``error_description``: fixed text in the characters RFC 6749 allows."""
        return self.reason.sentence


class InvalidRequest(OAuthError):
    """The request is malformed, or a subject or actor token is bad (RFC 8693 2.2.2)."""

    error = "invalid_request"
    http_status = 400
    grpc_status = "INVALID_ARGUMENT"


class RequestTooLarge(InvalidRequest):
    """The request exceeds a size limit; nothing in it was parsed."""

    http_status = 413
    grpc_status = "RESOURCE_EXHAUSTED"


class NotFound(InvalidRequest):
    """What was asked for is not there."""

    http_status = 404
    grpc_status = "NOT_FOUND"


class NotYet(InvalidRequest):
    """What was asked for is not there yet."""

    http_status = 409
    grpc_status = "FAILED_PRECONDITION"


class InvalidClient(OAuthError):
    """
    Client authentication failed (RFC 6749 5.2).

    Until a caller has proved which client it is, it learns nothing about any: not whether there is
    such a client, nor which keys or algorithms it has.
    """

    error = "invalid_client"
    http_status = 401
    grpc_status = "UNAUTHENTICATED"

    @property
    def description(self) -> str:
        """One sentence for all faults of a caller that has proved nothing."""
        return (Reason.CLIENT_UNKNOWN if self.reason in _BEFORE_PROOF else self.reason).sentence


_BEFORE_PROOF: Final = frozenset(
    {
        Reason.ISS_UNKNOWN,
        Reason.ISSUER_DISABLED,
        Reason.ISSUER_NOT_FOR_PURPOSE,
        Reason.ALG_NOT_ALLOWED,
        Reason.KEY_ALG_MISMATCH,
        Reason.KEY_NOT_FOR_SIG,
        Reason.UNKNOWN_KEY,
        Reason.SIG_INVALID,
        Reason.AUTH_METHOD_REFUSED,
        Reason.CLIENT_DISABLED,
        Reason.BAD_SECRET,
    }
)


class InvalidGrant(OAuthError):
    """An assertion presented as a grant is bad (RFC 7523 3.1)."""

    error = "invalid_grant"
    http_status = 400
    grpc_status = "INVALID_ARGUMENT"


class UnauthorizedClient(OAuthError):
    """The client may not use this grant or operation (RFC 6749 5.2)."""

    error = "unauthorized_client"
    http_status = 400
    grpc_status = "PERMISSION_DENIED"


class UnsupportedGrantType(OAuthError):
    """No such grant here (RFC 6749 5.2)."""

    error = "unsupported_grant_type"
    http_status = 400
    grpc_status = "INVALID_ARGUMENT"


class InvalidScope(OAuthError):
    """The scope is malformed, unknown, or nothing of it can be granted (RFC 6749 5.2)."""

    error = "invalid_scope"
    http_status = 400
    grpc_status = "PERMISSION_DENIED"


class InvalidTarget(OAuthError):
    """The resource or audience is unknown, forbidden or malformed (RFC 8707 2)."""

    error = "invalid_target"
    http_status = 400
    grpc_status = "PERMISSION_DENIED"


class InvalidAuthorizationDetails(OAuthError):
    """The ``authorization_details`` are not supported here (RFC 9396 5)."""

    error = "invalid_authorization_details"
    http_status = 400
    grpc_status = "INVALID_ARGUMENT"


class InvalidDpopProof(OAuthError):
    """The proof of a key is missing where it is required, or is bad (RFC 9449 5)."""

    error = "invalid_dpop_proof"
    http_status = 400
    grpc_status = "INVALID_ARGUMENT"


class UnsupportedTokenType(OAuthError):
    """The token cannot be revoked because of what it is (RFC 7009 2.2.1)."""

    error = "unsupported_token_type"
    http_status = 400
    grpc_status = "INVALID_ARGUMENT"


class InsufficientUserAuthentication(OAuthError):
    """
    The user must log in again, more strongly or more recently (RFC 9470).

    ``acr_values`` lists the acceptable context classes, separated by spaces; ``max_age`` is the
    greatest acceptable age of the login in seconds. Either may be absent.
    """

    error = "insufficient_user_authentication"
    http_status = 400
    grpc_status = "FAILED_PRECONDITION"

    def __init__(
        self, reason: Reason, *, acr_values: str = "", max_age: int | None = None, detail: str = ""
    ) -> None:
        super().__init__(reason, detail=detail)
        self.acr_values = acr_values
        self.max_age = max_age


class TemporarilyUnavailable(OAuthError):
    """
    Something that a token needs is away; the request may be repeated.

    ``retry_after`` is in seconds, and by chance between two and four when not given: callers that were
    refused together should not come back together. ``well_in`` is in how many seconds it will be there
    again, where that is known; it is told to operators.
    """

    error = "temporarily_unavailable"
    http_status = 503
    grpc_status = "UNAVAILABLE"

    def __init__(
        self,
        reason: Reason,
        *,
        retry_after: int | None = None,
        detail: str = "",
        well_in: int | None = None,
    ) -> None:
        super().__init__(reason, detail=detail)
        self.retry_after = scattered(2) if retry_after is None else retry_after
        self.well_in = well_in


class RateLimited(TemporarilyUnavailable):
    """More was asked for at once than is done for any one party; the request may be repeated later."""

    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"


def scattered(seconds: int) -> int:
    """A number of seconds by chance, not less than this one and at most twice as many."""
    return seconds + random.randint(0, seconds)  # noqa: S311 - it need not be secret.


class RecordDamaged(OAuthError):
    """What was asked for is not as the broker has written it: somebody or something changed it."""

    grpc_status = "DATA_LOSS"


class ServerError(OAuthError):
    """The broker failed; what happened stands in its log and audit record only."""
