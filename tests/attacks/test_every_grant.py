"""What holds for every way of getting a token: the same door, the same gate, the same limits."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from broker.grants import GRANTS
from broker.interfaces import PolicyEngine
from broker.model import (
    Action,
    Decision,
    PolicyQuery,
    ScopeDecision,
    ScopeExplanation,
    Verdict,
)
from broker.oauth import (
    CLIENT_PARAMETERS,
    GRANT_CLIENT_CREDENTIALS,
    GRANT_JWT_BEARER,
    GRANT_TOKEN_EXCHANGE,
    KNOWN_PARAMETERS,
)
from tests.harness import basic
from tests.stage import Stage
from tests.stagehands import Staging
from tests.world import (
    WEB_SECRET,
    Cast,
    Parameters,
    assertion_request,
    by_assertion,
    client_parameters,
    exchange_parameters,
    good_access_token,
    redeem_parameters,
)

Asking = Callable[..., Parameters]

IC = "invalid_client"
IR = "invalid_request"
IT = "invalid_target"


def good_exchange(**changes: Any) -> Parameters:
    """GOOD-TX."""
    return exchange_parameters(good_access_token(), **changes) | by_assertion("mcp1-srv")


def good_redemption(**changes: Any) -> Parameters:
    """GOOD-JAG, redeemed."""
    return redeem_parameters("", **changes)


WAYS: Mapping[Action, tuple[str, Asking]] = {
    Action.EXCHANGE: (GRANT_TOKEN_EXCHANGE, good_exchange),
    Action.ISSUE: (GRANT_CLIENT_CREDENTIALS, client_parameters),
    Action.ISSUE_ID_JAG: (GRANT_TOKEN_EXCHANGE, assertion_request),
    Action.REDEEM: (GRANT_JWT_BEARER, good_redemption),
}
"""A good request for everything that policy can be asked to permit."""

NOBODY: Mapping[str, None] = {"client_assertion": None, "client_assertion_type": None}


def without_client(asking: Asking) -> Parameters:
    """The good request of nobody in particular."""
    request = asking()
    return {name: value for name, value in request.items() if name not in NOBODY}


@pytest.fixture(params=WAYS, ids=lambda action: action.value)
def action(request: pytest.FixtureRequest) -> Action:
    return Action(request.param)


@pytest.fixture
def asking(action: Action) -> Asking:
    return WAYS[action][1]


class Watched:
    """
    The policies of the world under watch; ``asked`` are the actions that were asked about.

    With a ``verdict``, that is the answer to every scope.
    """

    def __init__(self, engine: PolicyEngine, verdict: Verdict | None = None) -> None:
        self._engine = engine
        self._verdict = verdict
        self.asked: list[Action] = []

    @property
    def digest(self) -> str:
        return self._engine.digest

    def decide(self, query: PolicyQuery) -> Decision:
        self.asked.append(query.delegation.action)
        if self._verdict is None:
            return self._engine.decide(query)
        answers = (ScopeDecision(scope.name, self._verdict) for scope in query.scopes)
        return Decision(tuple(answers), self.digest)

    def permits_any(self, query: PolicyQuery) -> bool:
        return self._verdict is None and self._engine.permits_any(query)

    def explain(self, query: PolicyQuery) -> Sequence[ScopeExplanation]:
        return self._engine.explain(query)


@pytest.mark.requirement("sec:POL-08")
def test_no_way_to_a_token_is_missing_here() -> None:
    """Whoever adds a grant or an action adds its good request above, and all that follows."""
    assert set(WAYS) == set(Action) - {Action.IMPERSONATE}
    assert {grant_type for grant_type, _ in WAYS.values()} == set(GRANTS)


@pytest.mark.requirement("sec:POL-08")
def test_every_token_passes_the_gate_once(
    staging: Staging, policy: PolicyEngine, action: Action, asking: Asking
) -> None:
    watched = Watched(policy)
    stage = staging(Cast(), engine=watched)
    stage.grant(asking())
    assert watched.asked == [action]
    record = stage.broker.records()[-1]
    assert record["policy_ids"]
    assert record["policy_digest"] == policy.digest


@pytest.mark.requirement("sec:POL-08", "POL-01", "POL-02")
@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (Verdict.NO_PERMIT, "policy_no_permit"),
        (Verdict.FORBIDDEN, "policy_forbidden"),
        (Verdict.ERROR, "policy_error"),
    ],
)
def test_what_the_gate_keeps_back_is_not_issued(
    staging: Staging, policy: PolicyEngine, asking: Asking, verdict: Verdict, reason: str
) -> None:
    stage = staging(Cast(), engine=Watched(policy, verdict))
    stage.refuse(asking(), error=IT, reason=reason)


@pytest.mark.requirement("CAU-01", "IDJAG-I-29", "IDJAG-R-01", "CC-01")
def test_nobody_gets_a_token_without_saying_who_he_is(stage: Stage, asking: Asking) -> None:
    nobody = without_client(asking)
    stage.attack(nobody, error=IC, reason="client_auth_missing")
    by_name = nobody | {"client_id": "agent-x"}
    stage.attack(by_name, error=IC, reason="client_auth_missing")


@pytest.mark.requirement("CAU-01", "CAU-02")
def test_the_wrong_proof_is_as_good_as_none(stage: Stage, asking: Asking) -> None:
    nobody = without_client(asking)
    stage.attack(nobody, basic("web-s", "wrong"), error=IC, reason="bad_secret")
    stage.attack(nobody | by_assertion("nobody"), error=IC, reason="client_unknown")
    stage.attack(nobody | by_assertion("off-srv"), error=IC, reason="client_disabled")
    elsewhere = by_assertion("agent-x", aud="https://elsewhere.test")
    stage.attack(nobody | elsewhere, error=IC, reason="aud_not_sole_issuer")


@pytest.mark.requirement("CAU-02", "CA-01")
def test_who_proves_himself_twice_is_refused(stage: Stage, asking: Asking) -> None:
    twice = asking(), basic("web-s", WEB_SECRET)
    stage.attack(*twice, error=IR, reason="multiple_client_auth")


@pytest.mark.requirement("CA-03")
def test_a_client_registered_for_no_grant_gets_nothing(stage: Stage, asking: Asking) -> None:
    parameters = without_client(asking) | by_assertion("no-grants")
    stage.attack(parameters, error="unauthorized_client", reason="grant_not_allowed")


@pytest.mark.requirement("RPL-01")
def test_a_proof_is_good_for_one_token(stage: Stage, asking: Asking) -> None:
    first = asking()
    stage.grant(first)
    used = {name: first[name] for name in NOBODY}
    stage.attack(asking() | used, error=IC, reason="replay")


@pytest.mark.requirement("TEX-03", "TX-01")
def test_grants_do_not_mix(stage: Stage, action: Action, asking: Asking) -> None:
    """The gRPC messages have no place for what is not theirs, which is the same answer."""
    own = GRANTS[WAYS[action][0]].parameters
    strange = KNOWN_PARAMETERS - CLIENT_PARAMETERS - own - {"authorization_details"}
    assert {"code", "refresh_token", "username", "password", "token"} <= strange
    if stage.face.name == "http":
        for name in sorted(strange):
            stage.refuse(asking(**{name: "x"}), error=IR, reason="param_not_allowed")
        stage.grant(asking())


@pytest.mark.requirement("RAR-06", "JAG-19", "TEX-03")
@pytest.mark.parametrize("details", ["[]", '[{"type":"x"}]', "x"])
def test_authorization_details_are_refused_never_dropped(
    stage: Stage, asking: Asking, details: str
) -> None:
    if stage.face.name == "http":
        stage.attack(
            asking(authorization_details=details),
            error="invalid_authorization_details",
            reason="rar_invalid",
        )


@pytest.mark.requirement("CC-06", "IDJAG-R-16", "IDJAG-I-18", "RES-04", "RES-05", "AT-15")
def test_every_answer_names_resource_and_life_and_refreshes_nothing(
    stage: Stage, asking: Asking
) -> None:
    request = asking()
    answer = stage.grant(request)
    named = request.get("resource", answer.claims["aud"])
    assert answer.fields["resource"] == named
    assert 0 < answer.fields["expires_in"] <= 300
    assert answer.claims["exp"] - answer.claims["iat"] == answer.fields["expires_in"]
    assert answer.fields["scope"] == answer.claims["scope"]
    assert "refresh_token" not in answer.everything
    assert "id_token" not in answer.fields


@pytest.mark.requirement("RES-04", "RES-01", "TEX-07")
def test_a_resource_may_be_named_to_every_grant_and_must_be_one(
    stage: Stage, asking: Asking
) -> None:
    stage.refuse(asking(resource="no uri"), error=IT, reason="target_malformed")
    several = asking(resource=["https://one.test", "https://two.test"])
    stage.refuse(several, error=IT, reason="single_target_only")


@pytest.mark.requirement("LOG-04")
def test_no_token_stands_in_a_record(stage: Stage, asking: Asking) -> None:
    request = asking()
    answer = stage.grant(request)
    record = str(stage.broker.records()[-1])
    secrets = [answer.token, *(value for value in request.values() if str(value).startswith("eyJ"))]
    assert len(secrets) > 1
    for secret in secrets:
        assert str(secret).rpartition(".")[2] not in record
