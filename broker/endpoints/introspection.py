"""The introspection endpoint (RFC 7662): whether a token counts, and what those it concerns may know."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from broker.endpoints.inquiry import Callers, note_token, presented_token
from broker.errors import Reason, TokenRejected
from broker.interfaces import AuditEntry, AuditLog, Registry
from broker.model import Client, JsonObject, RequestContext, TokenInquiry
from broker.tokens.lineage import statements_of
from broker.tokens.minter import scheme_of
from broker.tokens.verifier import ACCESS_TOKEN, TokenVerifier, VerifiedToken

INACTIVE: Final[JsonObject] = {"active": False}
"""All that is told of a token that does not count, or does not concern the caller."""

_TOLD: Final = (
    "iss",
    "sub",
    "client_id",
    "scope",
    "exp",
    "iat",
    "jti",
    "act",
    "acr",
    "auth_time",
    "amr",
    "cnf",
)
# Where a token comes from is for the broker to know, which keeps it there.
_UNTOLD_STATEMENTS: Final = frozenset({"lineage", "heritage"})


@dataclass(frozen=True, slots=True)
class IntrospectionEndpoint:
    """
    Tells about access tokens of this broker, and about no others.

    It tells the owner of the resource that the token is for, clients that are registered to ask for
    that resource, and the client that it was issued to. Everybody else learns what is told of any
    string: nothing.
    """

    callers: Callers
    registry: Registry
    tokens: TokenVerifier
    audit: AuditLog

    def introspect(self, context: RequestContext, read: Callable[[], TokenInquiry]) -> JsonObject:
        """The answer to give (RFC 7662 2.2); raises ``OAuthError`` when the caller may not ask."""
        try:
            with self.audit.entry("token.introspect", context) as entry:
                return self._tell(read(), entry)
        except TokenRejected:
            # Why, is on record by now, and there alone.
            return INACTIVE

    def _tell(self, inquiry: TokenInquiry, entry: AuditEntry) -> JsonObject:
        caller = self.callers.authenticate(inquiry.credential, entry)
        token = presented_token(inquiry)
        try:
            verified = self._active(token, caller.client, entry)
        except TokenRejected:
            self.callers.spend(caller)
            raise
        self.callers.spend(caller)
        return self._document(verified)

    def _active(self, token: str, client: Client, entry: AuditEntry) -> VerifiedToken:
        verified = self.tokens.read_own(token, ACCESS_TOKEN)
        note_token(entry, verified)
        self.tokens.standing.check_own(verified.claims)
        resource = self.registry.resource(verified.audience)
        if resource is None or resource.is_disabled:
            raise TokenRejected(Reason.PRINCIPAL_DISABLED, "the resource that it is for")
        is_concerned = (
            client.client_id in (resource.owner, verified.client_id)
            or verified.audience in client.introspects
        )
        if not is_concerned:
            raise TokenRejected(Reason.INTROSPECT_NOT_AUDIENCE)
        return verified

    def _document(self, verified: VerifiedToken) -> JsonObject:
        claims, mcp_claim = verified.claims, self.tokens.standing.mcp_claim
        statements = statements_of(claims, mcp_claim)
        return {
            "active": True,
            "token_type": scheme_of(claims),
            "aud": verified.audience,
            **{name: claims[name] for name in _TOLD if name in claims},
            mcp_claim: {
                name: value for name, value in statements.items() if name not in _UNTOLD_STATEMENTS
            },
        }
