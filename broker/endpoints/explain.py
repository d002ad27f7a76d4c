"""Explaining: the same request through the same steps, up to where a token would be minted."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from broker.endpoints.decision import Judgement
from broker.endpoints.issuing import Aimed, Issuing, note_request
from broker.errors import InvalidClient, OAuthError, Reason, UnauthorizedClient
from broker.interfaces import AuditEntry, AuditLog, PolicyEngine, ReplayGuard
from broker.model import (
    AuthenticatedClient,
    ExplainRequest,
    Explanation,
    RequestContext,
)


@dataclass(frozen=True, slots=True)
class ExplainEndpoint:
    """
    Tells a permitted caller what a token request would lead to, and why.

    Nothing is minted, and of the one-time ids only the caller's own credential is spent. The answers
    describe the policies, so the caller's registration must allow it.
    """

    issuing: Issuing
    policy: PolicyEngine
    replay: ReplayGuard
    audit: AuditLog

    def explain(self, context: RequestContext, read: Callable[[], ExplainRequest]) -> Explanation:
        """What would happen; raises ``OAuthError`` when the caller may not ask."""
        with self.audit.entry("policy.explain", context) as entry:
            asked = read()
            note_request(entry, asked.exchange)
            caller = self.issuing.authenticate(asked.exchange, entry)
            meant = self._client_meant(asked, caller)
            self._spend(caller)
            explanation = self._explain(asked, meant, entry)
            entry.note(
                detail=f"explained for {meant.client.client_id}: {explanation.reason or 'permit'}"
            )
        return explanation

    def _client_meant(
        self, asked: ExplainRequest, caller: AuthenticatedClient
    ) -> AuthenticatedClient:
        if not caller.client.is_explainer:
            raise UnauthorizedClient(Reason.PERMISSION_MISSING)
        if asked.client_id is None or asked.client_id == caller.client.client_id:
            return msgspec.structs.replace(caller, one_time_id=None)
        client = self.issuing.registry.client(asked.client_id)
        if client is None or client.is_disabled:
            raise UnauthorizedClient(Reason.PERMISSION_MISSING, parameter="client_id")
        return AuthenticatedClient(client, "explained")

    def _spend(self, caller: AuthenticatedClient) -> None:
        if caller.one_time_id is not None and self.replay.spend([caller.one_time_id]) is not None:
            raise InvalidClient(Reason.REPLAY)

    def _explain(
        self, asked: ExplainRequest, meant: AuthenticatedClient, entry: AuditEntry
    ) -> Explanation:
        try:
            proved = self.issuing.prove(asked.exchange, meant, entry)
            aimed = self.issuing.aim(proved, asked.exchange, entry)
        except OAuthError as error:
            return Explanation(
                is_permitted=False,
                policy_digest=self.policy.digest,
                error=error.error,
                reason=error.reason.code,
            )
        judgement = self.issuing.judge(aimed, entry)
        return self._from_judgement(aimed, judgement, entry)

    def _from_judgement(self, aimed: Aimed, judgement: Judgement, entry: AuditEntry) -> Explanation:
        explanation = Explanation(
            is_permitted=False,
            policy_digest=judgement.decision.policy_digest,
            scopes=tuple(self.policy.explain(judgement.query)),
        )
        refusal = judgement.refusal
        try:
            if refusal is not None:
                raise refusal
            drafted = self.issuing.draft(aimed, judgement, entry)
        except OAuthError as error:
            return replace(explanation, error=error.error, reason=error.reason.code)
        return replace(
            explanation,
            is_permitted=True,
            claims=drafted.draft.claims,
            expires_in=drafted.lifetime.seconds,
            lifetime_limit=drafted.lifetime.limit,
        )
