"""Where an attack is played: a good request before, one mutation, the universal checks, a good one after."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.errors import InvalidClient, InvalidRequest, Reason
from broker.oauth import TOKEN_TYPE_JWT, TYP_ACCESS_TOKEN, TYP_CLIENT_AUTHENTICATION, TYP_ID_JAG
from tests.harness import Answer, Broker, GrpcFace, HttpFace
from tests.idp import Signer, signer
from tests.world import (
    Parameters,
    by_assertion,
    by_svid,
    client_parameters,
    exchange_parameters,
    good_access_token,
    good_access_token_claims,
    good_assertion_claims,
    good_id_jag_claims,
    good_svid_claims,
    good_workload_claims,
    redeem_parameters,
    workload_parameters,
)

STATUSES: Mapping[str, tuple[str, str]] = {
    "invalid_request": ("400", "INVALID_ARGUMENT"),
    "invalid_client": ("401", "UNAUTHENTICATED"),
    "invalid_grant": ("400", "INVALID_ARGUMENT"),
    "invalid_target": ("400", "PERMISSION_DENIED"),
    "invalid_scope": ("400", "PERMISSION_DENIED"),
    "unauthorized_client": ("400", "PERMISSION_DENIED"),
    "unsupported_grant_type": ("400", "INVALID_ARGUMENT"),
    "unsupported_token_type": ("400", "INVALID_ARGUMENT"),
    "invalid_authorization_details": ("400", "INVALID_ARGUMENT"),
    "invalid_dpop_proof": ("400", "INVALID_ARGUMENT"),
    "insufficient_user_authentication": ("400", "FAILED_PRECONDITION"),
    "temporarily_unavailable": ("503", "UNAVAILABLE"),
}
"""The HTTP and the gRPC status of each code, as the catalogue fixes them."""

RATE_LIMITED: Mapping[str, tuple[str, str]] = {"fetch_limit": ("429", "RESOURCE_EXHAUSTED")}
"""The statuses of the reasons that mean that one party asks for too much at once."""

_TOKEN_SHAPED = re.compile(r"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}")


def _sentence(error: str, reason: Reason) -> str:
    """The sentence that goes with a refusal: a client that proved nothing is told nothing."""
    return (InvalidClient if error == "invalid_client" else InvalidRequest)(reason).description


@dataclass
class Stage:
    """One broker and the face that is under attack."""

    broker: Broker
    face: HttpFace | GrpcFace

    def ask(
        self, parameters: Parameters, *authorization: str, proofs: Sequence[str] = ()
    ) -> Answer:
        """The face's answer to a request."""
        return self.face.exchange(parameters, *authorization, proofs=proofs)

    def good(self, **changes: Any) -> Parameters:
        """GOOD-TX with a foreign GOOD-AT, authenticated by a fresh assertion."""
        return exchange_parameters(good_access_token(), **changes) | by_assertion("mcp1-srv")

    def grant(
        self, parameters: Parameters, *authorization: str, proofs: Sequence[str] = ()
    ) -> Answer:
        """The answer to a request that must be granted, and recorded once as a permit."""
        before = len(self.broker.records())
        answer = self.ask(parameters, *authorization, proofs=proofs)
        assert answer.is_granted, (answer.error, self.broker.records()[-1].get("reason"))
        records = self.broker.records()[before:]
        assert [one["decision"] for one in records] == ["permit"]
        assert records[0]["jti"] == answer.claims["jti"]
        return answer

    def refuse(
        self,
        parameters: Parameters,
        *authorization: str,
        error: str,
        reason: str,
        proofs: Sequence[str] = (),
    ) -> Answer:
        """The answer to a request that must be refused exactly so, with every universal check."""
        before, spent = len(self.broker.records()), self.broker.spent_count()
        answer = self.ask(parameters, *authorization, proofs=proofs)
        records = self.broker.records()[before:]
        seen = [(one["decision"], one.get("reason")) for one in records]
        assert not answer.is_granted
        assert seen == [("deny", reason)], (answer.error, seen)
        assert answer.error == error
        statuses = RATE_LIMITED.get(reason, STATUSES[error])
        assert answer.status == statuses[self.face.name == "grpc"]
        assert answer.description == _sentence(error, Reason[reason.upper()])
        assert not _TOKEN_SHAPED.search(answer.everything)
        assert self.broker.spent_count() == spent
        if self.face.name == "http":
            assert answer.headers["cache-control"] == "no-store"
        return answer

    def attack(
        self,
        parameters: Parameters,
        *authorization: str,
        error: str,
        reason: str,
        proofs: Sequence[str] = (),
    ) -> Answer:
        """``refuse`` between two good requests that pass."""
        self.grant(self.good())
        answer = self.refuse(parameters, *authorization, error=error, reason=reason, proofs=proofs)
        self.grant(self.good())
        return answer


@dataclass(frozen=True)
class Slot:
    """A place where a token is presented, and a good token for it to mutate."""

    name: str
    error: str
    signer: Signer
    typ: str
    claims: Callable[..., dict[str, Any]]
    place: Callable[[Stage, str], Parameters]
    reasons: Mapping[str, str] = field(default_factory=dict)
    other_typs: frozenset[str | None] = frozenset()
    """What else than ``typ`` a token may state of itself here; ``None`` is nothing at all."""

    def token(self, *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """The good token with these header members and claims changed."""
        return self.signer.sign(self.claims(**claims), **{"typ": self.typ, **(header or {})})

    def reason(self, reason: str) -> str:
        """The reason as this slot records it."""
        return self.reasons.get(reason, reason)


_ASSERTION_TYPS: frozenset[str | None] = frozenset({None, TYP_CLIENT_AUTHENTICATION})

SUBJECT = Slot(
    "subject",
    "invalid_request",
    signer("a1"),
    TYP_ACCESS_TOKEN,
    good_access_token_claims,
    lambda stage, token: stage.good(subject_token=token),
    {"token_expired": "subject_expired", "aud_not_sole_issuer": "aud_mismatch"},
)
ACTOR = Slot(
    "actor",
    "invalid_request",
    signer("mcp1-srv"),
    "JWT",
    lambda **changes: good_assertion_claims("mcp1-srv", **changes),
    lambda stage, token: stage.good(actor_token=token, actor_token_type=TOKEN_TYPE_JWT),
    {
        "token_expired": "actor_expired",
        "wrong_token_type": "actor_wrong_type",
        "aud_not_sole_issuer": "actor_aud_mismatch",
    },
    other_typs=_ASSERTION_TYPS,
)
CLIENT = Slot(
    "client",
    "invalid_client",
    signer("mcp1-srv"),
    "JWT",
    lambda **changes: good_assertion_claims("mcp1-srv", **changes),
    lambda stage, token: stage.good() | {"client_assertion": token},
    other_typs=_ASSERTION_TYPS,
)
ASSERTION = Slot(
    "assertion",
    "invalid_grant",
    signer("a1"),
    TYP_ID_JAG,
    good_id_jag_claims,
    lambda _stage, token: redeem_parameters(token),
    {"aud_not_sole_issuer": "aud_mismatch"},
)
WORKLOAD = Slot(
    "workload",
    "invalid_grant",
    signer("b1", "RS256"),
    "JWT",
    good_workload_claims,
    lambda _stage, token: workload_parameters(token),
    {"aud_not_sole_issuer": "aud_mismatch"},
    # What says that it is an ID-JAG never comes here: it is asked for its client's credential first.
    other_typs=frozenset({None, TYP_ID_JAG}),
)
SVID = Slot(
    "svid",
    "invalid_client",
    signer("svid"),
    "JWT",
    good_svid_claims,
    lambda _stage, token: client_parameters(**by_svid()) | {"client_assertion": token},
    other_typs=frozenset({None, "JOSE"}),
)
SLOTS = (SUBJECT, ACTOR, CLIENT, ASSERTION, WORKLOAD, SVID)
