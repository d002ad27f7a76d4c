"""The revocation endpoint (RFC 7009): a client withdraws a token that was issued to it."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from broker.endpoints.inquiry import Callers, note_token, presented_token
from broker.errors import Reason, TokenRejected, UnauthorizedClient, UnsupportedTokenType
from broker.interfaces import AuditEntry, AuditLog, RevocationList
from broker.model import Client, RequestContext, TokenInquiry
from broker.tokens.verifier import ACCESS_TOKEN, ID_JAG, TokenVerifier, VerifiedToken


@dataclass(frozen=True, slots=True)
class RevocationEndpoint:
    """
    Withdraws access tokens of this broker, and with each everything that was derived from it.

    What is no such token, or none any more, is answered like one that was withdrawn, since the
    caller has nothing left to do about it (RFC 7009 2.2).
    """

    callers: Callers
    tokens: TokenVerifier
    revocations: RevocationList
    audit: AuditLog

    def revoke(self, context: RequestContext, read: Callable[[], TokenInquiry]) -> None:
        """
        Return once the token does not count in any process.

        Raises ``OAuthError`` when the caller may not withdraw it, and ``TemporarilyUnavailable`` when
        it may count still.
        """
        # A rejection goes into the record, and no further.
        with suppress(TokenRejected), self.audit.entry("token.revoke", context) as entry:
            self._withdraw(read(), entry)

    def _withdraw(self, inquiry: TokenInquiry, entry: AuditEntry) -> None:
        caller = self.callers.authenticate(inquiry.credential, entry)
        token = presented_token(inquiry)
        try:
            verified = self._owned(token, caller.client, entry)
        except TokenRejected:
            self._check_revocable(token)
            self.callers.spend(caller)
            raise
        self.callers.spend(caller)
        self.revocations.revoke(str(verified.jti), verified.expires_at)

    def _owned(self, token: str, client: Client, entry: AuditEntry) -> VerifiedToken:
        """
        The token, whether or not it counts: who is switched off today may be on again tomorrow.

        Raises ``TokenRejected`` for what is no token of ours in its time.
        """
        verified = self.tokens.read_own(token, ACCESS_TOKEN)
        note_token(entry, verified)
        if verified.client_id != client.client_id:
            raise UnauthorizedClient(Reason.REVOKE_NOT_OWNER)
        return verified

    def _check_revocable(self, token: str) -> None:
        """An identity assertion of ours is redeemed elsewhere, where nobody asks us whether it counts."""
        try:
            self.tokens.read_own(token, ID_JAG)
        except TokenRejected:
            return
        raise UnsupportedTokenType(Reason.NOT_REVOCABLE, parameter="token")
