"""The token endpoint: one pipeline for every grant and both faces."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from broker.endpoints.issuing import Issuing, Proved, note_batch, note_request, note_target
from broker.errors import (
    InvalidClient,
    InvalidDpopProof,
    InvalidRequest,
    OAuthError,
    Reason,
    TemporarilyUnavailable,
)
from broker.interfaces import AuditEntry, AuditLog, ReplayGuard
from broker.model import Admission, BatchRequest, IssuedToken, RequestContext, TokenRequest
from broker.tokens.minter import Unsigned

MOST_TARGETS: Final = 16
"""How many tokens may be asked for together."""


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
            unsigned = self._prepare(proved, request, entry)
            _check_deadline(context)
            self._spend(proved)
            issued = self.issuing.minter.mint(unsigned)
            _note_issued(entry, issued)
        return issued

    def issue_all(
        self, context: RequestContext, read: Callable[[], BatchRequest]
    ) -> Sequence[IssuedToken]:
        """
        A token for each target of the request that ``read`` takes from the wire, or none at all.

        The client is authenticated, the delegation proved and every one-time id spent once for all; of the
        client's quota each target takes one. The targets are looked at in their order, and the first that
        is refused ends it with the error that its own request would have ended with, which then names the
        ``target``. Raises as ``issue`` does.
        """
        with self.audit.entry("token.issue", context) as entry:
            batch = read()
            note_batch(entry, batch)
            number = len(batch.targets) if len(batch.targets) <= MOST_TARGETS else 1
            authenticated = self.issuing.authenticate(batch.common, entry, number=max(1, number))
            _check_number(batch, entry.admitted)
            proved = self.issuing.prove(batch.common, authenticated, entry)
            prepared = self._prepare_all(proved, batch, entry)
            _check_deadline(context)
            self._spend(proved)
            issued = self.issuing.minter.mint_all([unsigned for unsigned, _ in prepared])
            for one, (_, part) in zip(issued, prepared, strict=True):
                _note_issued(part, one)
        return issued

    def _prepare_all(
        self, proved: Proved, batch: BatchRequest, entry: AuditEntry
    ) -> Sequence[tuple[Unsigned, AuditEntry]]:
        prepared: dict[str, tuple[Unsigned, AuditEntry]] = {}
        for number, request in enumerate(batch.requests()):
            try:
                with entry.part() as part:
                    part.note(scopes_asked=request.scopes or ())
                    unsigned = self._prepare(proved, request, part)
                    # Only who may have a token for a resource learns which names stand for it.
                    resource = unsigned.draft.claims["aud"]
                    if resource in prepared:
                        raise InvalidRequest(Reason.TARGET_REPEATED)
                    note_target(part, request)
            except TemporarilyUnavailable:
                raise
            except OAuthError as refusal:
                refusal.target = number
                raise
            prepared[resource] = unsigned, part
        return list(prepared.values())

    def _prepare(self, proved: Proved, request: TokenRequest, entry: AuditEntry) -> Unsigned:
        """The token for the request, decided and complete but for its signature."""
        aimed = self.issuing.aim(proved, request, entry)
        judgement = self.issuing.judge(aimed, entry)
        if judgement.refusal is not None:
            raise judgement.refusal
        drafted = self.issuing.draft(aimed, judgement, entry)
        return self.issuing.minter.prepare(drafted.draft, algorithm=drafted.algorithm)

    def _spend(self, proved: Proved) -> None:
        one_time_ids = proved.one_time_ids
        if not one_time_ids:
            return
        spent_before = self.replay.spend(one_time_ids)
        if spent_before is None:
            return
        # Each is refused as what it was presented as; an actor token, say, is the grant's to refuse.
        error: type[OAuthError] = proved.grant.refusal
        if spent_before == proved.credential_id:
            error = InvalidClient
        elif spent_before == proved.proof_id:
            error = InvalidDpopProof
        raise error(Reason.REPLAY)


def _check_number(batch: BatchRequest, admitted: Admission | None) -> None:
    if not batch.targets:
        raise InvalidRequest(Reason.PARAM_MISSING, parameter="targets")
    if len(batch.targets) > MOST_TARGETS:
        raise InvalidRequest(Reason.TOO_MANY_TARGETS, parameter="targets")
    if admitted is not None and admitted.number < len(batch.targets):
        detail = f"{len(batch.targets)} targets, more than the burst of the client's limit"
        raise InvalidRequest(Reason.BATCH_BEYOND_BURST, parameter="targets", detail=detail)


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
        scopes_granted=issued.scopes,
    )
