"""The policy service: a request to explain, and the explanation as a message."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from broker import model
from broker.endpoints.explain import ExplainEndpoint
from broker.model import ExplainRequest, Verdict
from broker.rpc.boundary import Rpc
from broker.rpc.call import Call, CallMetadata
from broker.rpc.token_service import read_exchange
from broker.v1 import policy_service_pb2
from broker.v1.policy_service_pb2 import (
    ExplainDecisionRequest,
    ExplainDecisionResponse,
    NearestMiss,
    PolicyReference,
    PolicyVerdict,
    ScopeExplanation,
)

SERVICE: Final[str] = policy_service_pb2.DESCRIPTOR.services_by_name["PolicyService"].full_name

_VERDICTS: Final[Mapping[Verdict, PolicyVerdict.ValueType]] = {
    Verdict.PERMIT: policy_service_pb2.POLICY_VERDICT_PERMIT,
    Verdict.NO_PERMIT: policy_service_pb2.POLICY_VERDICT_NO_PERMIT,
    Verdict.FORBIDDEN: policy_service_pb2.POLICY_VERDICT_FORBIDDEN,
    Verdict.ERROR: policy_service_pb2.POLICY_VERDICT_ERROR,
}


class PolicyService:
    """Answers for ``broker.v1.PolicyService``."""

    def __init__(self, endpoint: ExplainEndpoint) -> None:
        self._endpoint = endpoint

    def rpcs(self) -> Mapping[str, Rpc[Any]]:
        """The methods by their names."""
        return {"ExplainDecision": Rpc(ExplainDecisionRequest.FromString, self.explain_decision)}

    def explain_decision(self, call: Call[ExplainDecisionRequest]) -> ExplainDecisionResponse:
        """Explain what would be decided, without issuing anything."""
        explanation = self._endpoint.explain(
            call.context, lambda: _read(call.message(), call.metadata)
        )
        claims = explanation.claims
        return ExplainDecisionResponse(
            is_permitted=explanation.is_permitted,
            error=explanation.error,
            reason=explanation.reason,
            scopes=[_scope(one) for one in explanation.scopes],
            policy_digest=explanation.policy_digest,
            claims_json="" if claims is None else msgspec.json.encode(claims).decode(),
            expires_in=explanation.expires_in,
            lifetime_limit=explanation.lifetime_limit,
        )


def _read(message: ExplainDecisionRequest, metadata: CallMetadata) -> ExplainRequest:
    return ExplainRequest(
        exchange=read_exchange(message.exchange, metadata), client_id=message.client_id or None
    )


def _scope(one: model.ScopeExplanation) -> ScopeExplanation:
    return ScopeExplanation(
        scope=one.scope,
        verdict=_VERDICTS[one.verdict],
        policies=_references(one.policies),
        nearest_misses=[
            NearestMiss(
                policy=_reference(miss.policy),
                failed_conditions=miss.failed_conditions,
                change=miss.change,
            )
            for miss in one.nearest_misses
        ],
        errors=one.errors,
    )


def _references(policies: Iterable[model.PolicyReference]) -> list[PolicyReference]:
    return [_reference(policy) for policy in policies]


def _reference(policy: model.PolicyReference) -> PolicyReference:
    return PolicyReference(id=policy.policy_id, file=policy.file, line=policy.line)
