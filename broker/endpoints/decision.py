"""The gate that every grant passes: what policy permits of what was proved and asked."""

from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec.structs import replace

from broker.endpoints.target import Candidates, Target, candidate_scopes
from broker.errors import (
    InsufficientUserAuthentication,
    InvalidScope,
    InvalidTarget,
    OAuthError,
    Reason,
)
from broker.interfaces import Now, PolicyEngine
from broker.model import Client, Decision, Delegation, PolicyQuery, Scope, Verdict

# Asked about where there is no scope to ask about. It is in no record and no answer.
_STAND_IN: Final = Scope("probe", frozenset())


class Judgement(msgspec.Struct, frozen=True):
    """
    The question put to policy, its answer, and the refusal it amounts to, if it does.

    Where the resource has no scopes, or does not exist, neither the question nor the answer names any.
    """

    query: PolicyQuery
    decision: Decision
    refusal: OAuthError | None


@dataclass(frozen=True, slots=True)
class Gate:
    """
    Asks policy about one request and turns a no into the right refusal.

    A resource that policy keeps from this request altogether is refused like one that does not
    exist: the same code, the same sentence, the same work.
    """

    policy: PolicyEngine
    now: Now

    def judge(
        self,
        client: Client,
        delegation: Delegation,
        *,
        target: Target,
        asked: tuple[str, ...] | None,
    ) -> Judgement:
        """
        What policy makes of the request.

        When nothing of it can be granted anyway, policy is asked about all scopes of the resource: the
        answer then tells only whether this request may know that the resource exists.
        """
        candidates = candidate_scopes(asked, target.resource, delegation)
        scopes = candidates.scopes or tuple(target.resource.scopes.values()) or (_STAND_IN,)
        query = PolicyQuery(client, delegation, target.resource, scopes, self.now())
        decision = self.policy.decide(query)
        refusal = self._refusal(query, decision, target, candidates)
        if not target.resource.scopes:
            query, decision = replace(query, scopes=()), Decision((), decision.policy_digest)
        return Judgement(query, decision, refusal)

    def _refusal(
        self, query: PolicyQuery, decision: Decision, target: Target, candidates: Candidates
    ) -> OAuthError | None:
        if target.refused is not None:
            # The question is asked of any refused target, so that the work is the same for all.
            self._is_resource_open(query, decision)
            return InvalidTarget(target.refused, parameter="resource")
        is_open = bool(decision.granted) or decision.step_up is not None
        if is_open and candidates.refusal is not None:
            # What was not asked for is no reason to send the user to log in again.
            return InvalidScope(candidates.refusal, parameter="scope")
        if decision.granted:
            return None
        if decision.step_up is not None:
            return InsufficientUserAuthentication(
                Reason.STEP_UP_REQUIRED,
                acr_values=decision.step_up.acr_values,
                max_age=decision.step_up.max_age,
            )
        if self._is_resource_open(query, decision):
            return InvalidScope(Reason.SCOPE_NOT_PERMITTED, parameter="scope")
        return InvalidTarget(_denial(decision), parameter="resource")

    def _is_resource_open(self, query: PolicyQuery, decision: Decision) -> bool:
        """Whether some other scope of the resource would have been permitted."""
        if any(one.verdict is Verdict.ERROR for one in decision.scopes):
            return False
        asked = {scope.name for scope in query.scopes}
        scopes = query.resource.scopes.values()
        others = tuple(scope for scope in scopes if scope.name not in asked)
        return self.policy.permits_any(replace(query, scopes=others or (_STAND_IN,)))


def _denial(decision: Decision) -> Reason:
    verdicts = {one.verdict for one in decision.scopes}
    if Verdict.ERROR in verdicts:
        return Reason.POLICY_ERROR
    return Reason.POLICY_FORBIDDEN if Verdict.FORBIDDEN in verdicts else Reason.POLICY_NO_PERMIT
