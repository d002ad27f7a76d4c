"""The token endpoint: one pipeline for every grant and both faces."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from broker.endpoints.issuing import Issuing, Proved, note_request
from broker.errors import (
    InvalidClient,
    InvalidDpopProof,
    OAuthError,
    Reason,
    TemporarilyUnavailable,
)
from broker.interfaces import AuditEntry, AuditLog, ReplayGuard
from broker.model import IssuedToken, RequestContext, TokenRequest


@dataclass(frozen=True, slots=True)
class TokenEndpoint:
    """
    Issues tokens.

    One-time ids are spent after everything else was checked and before anything is signed; the audit
    record is on disk before the token is returned (RFC 6749 3.2, RFC 8693 2).
    """

    issuing: Issuing
    replay: ReplayGuard
    audit: AuditLog

    def issue(self, context: RequestContext, read: Callable[[], TokenRequest]) -> IssuedToken:
        """
        The token for the request that ``read`` takes from the wire.

        ``read`` runs inside the audit entry, so that a request that cannot be read is recorded as a
        refusal like any other. Raises ``OAuthError`` and nothing else on purpose.
        """
        with self.audit.entry("token.issue", context) as entry:
            request = read()
            note_request(entry, request)
            authenticated = self.issuing.authenticate(request, entry)
            proved = self.issuing.prove(request, authenticated, entry)
            judgement = self.issuing.judge(proved, entry)
            if judgement.refusal is not None:
                raise judgement.refusal
            drafted = self.issuing.draft(proved, judgement, entry)
            minter = self.issuing.minter
            unsigned = minter.prepare(drafted.draft, algorithm=drafted.algorithm)
            _check_deadline(context)
            self._spend(proved)
            issued = minter.mint(unsigned)
            _note_issued(entry, issued)
        return issued

    def _spend(self, proved: Proved) -> None:
        if not proved.one_time_ids:
            return
        spent_before = self.replay.spend(proved.one_time_ids)
        if spent_before is None:
            return
        # Each is refused as what it was presented as; an actor token, say, is the grant's to refuse.
        error: type[OAuthError] = proved.grant.refusal
        if spent_before == proved.credential_id:
            error = InvalidClient
        elif spent_before == proved.proof_id:
            error = InvalidDpopProof
        raise error(Reason.REPLAY)


def _check_deadline(context: RequestContext) -> None:
    """Nothing is spent or signed for a caller that has stopped waiting."""
    if context.deadline is not None and time.monotonic() > context.deadline:
        raise TemporarilyUnavailable(Reason.DEADLINE_EXCEEDED)


def _note_issued(entry: AuditEntry, issued: IssuedToken) -> None:
    entry.note(
        jti=issued.claims["jti"],
        kid=issued.kid,
        issued_token_type=issued.issued_token_type,
        issued_at=issued.claims["iat"],
        expires_at=issued.claims["exp"],
        scopes_granted=list(issued.scopes),
    )
