"""Group 1G of the attack catalogue: ``act`` and ``may_act``, and the ACT rows of the protocol."""

import json
from dataclasses import replace
from typing import Any

import pytest

from broker.oauth import (
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_JAG,
    TOKEN_TYPE_ID_TOKEN,
    TOKEN_TYPE_JWT,
    TOKEN_TYPE_REFRESH_TOKEN,
    TYP_ACCESS_TOKEN,
)
from tests.idp import encode, signer
from tests.stage import Stage
from tests.stagehands import Staging, every_exchange
from tests.world import (
    API,
    IDP_A,
    ISS,
    MCP_CLAIM,
    NOW,
    RES_1,
    RES_2,
    Cast,
    Parameters,
    by_assertion,
    exchange_parameters,
    fresh_jti,
    good_access_token,
    good_access_token_claims,
    good_assertion,
    good_assertion_claims,
    good_id_token,
)

face_name = every_exchange

IR = "invalid_request"


def own_claims(**changes: Any) -> dict[str, Any]:
    """The claims of a token that this broker could have issued to agent-x for RES-1."""
    return {
        **good_access_token_claims(),
        "iss": ISS,
        "jti": fresh_jti(),
        "act": {"iss": ISS, "sub": "agent-x", "sub_profile": "ai_agent"},
        MCP_CLAIM: {"client": "agent-x", "resource": RES_1, "subject_issuer": IDP_A},
        **changes,
    }


def sign_as_broker(stage: Stage, claims: dict[str, Any]) -> str:
    """A token signed with the broker's own key, whatever it says."""
    key = stage.broker.key_store.signing_key("ES256")
    header = f'{{"alg":"ES256","typ":"{TYP_ACCESS_TOKEN}","kid":"{key.kid}"}}'.encode()
    signing_input = encode(header) + b"." + encode(json.dumps(claims).encode())
    return (signing_input + b"." + encode(key.sign(signing_input))).decode()


def machine_token(stage: Stage, client: str, **changes: Any) -> str:
    """A token that names the client itself, as a grant of its own would give."""
    claims = {
        **good_access_token_claims(),
        "iss": ISS,
        "sub": f"client:{client}",
        "client_id": client,
        "aud": ISS,
        **changes,
    }
    return sign_as_broker(stage, claims)


def with_actor(stage: Stage, token: str, token_type: str) -> Parameters:
    return stage.good(actor_token=token, actor_token_type=token_type)


@pytest.mark.requirement("sec:ACT-01")
def test_a_caller_cannot_dictate_the_chain(stage: Stage) -> None:
    evil = {"sub": "somebody-better", "iss": ISS}
    actor = good_assertion("mcp1-srv", act=evil)
    parameters = stage.good(actor_token=actor, actor_token_type=TOKEN_TYPE_JWT, act="x")
    parameters |= by_assertion("mcp1-srv", act=evil)
    assert stage.grant(parameters).claims["act"]["sub"] == "mcp1-srv"


@pytest.mark.requirement("sec:ACT-02")
def test_an_unsigned_envelope_is_refused(stage: Stage) -> None:
    header = encode(b'{"alg":"none","typ":"JWT"}').decode()
    payload = encode(b'{"iss":"agent-x","sub":"agent-x"}').decode()
    stage.attack(
        with_actor(stage, f"{header}.{payload}.", TOKEN_TYPE_JWT),
        error=IR,
        reason="alg_not_allowed",
    )


@pytest.mark.requirement("sec:ACT-03", "TX-03")
def test_half_a_pair_is_refused(stage: Stage) -> None:
    for parameters in (
        stage.good(actor_token=good_assertion("mcp1-srv")),
        stage.good(actor_token_type=TOKEN_TYPE_JWT),
    ):
        stage.attack(parameters, error=IR, reason="param_missing")


@pytest.mark.requirement("sec:ACT-04", "std:ACT-18", "TX-22")
def test_an_actor_token_of_somebody_else_is_refused(stage: Stage) -> None:
    for token, token_type in [
        (good_assertion("agent-n"), TOKEN_TYPE_JWT),
        (machine_token(stage, "agent-n"), TOKEN_TYPE_ACCESS_TOKEN),
    ]:
        stage.attack(with_actor(stage, token, token_type), error=IR, reason="actor_not_caller")


@pytest.mark.requirement("sec:ACT-04")
def test_a_token_about_a_user_names_no_actor(stage: Stage) -> None:
    token = machine_token(stage, "mcp1-srv", sub="u1")
    stage.attack(
        with_actor(stage, token, TOKEN_TYPE_ACCESS_TOKEN), error=IR, reason="actor_not_caller"
    )


@pytest.mark.requirement("sec:ACT-05", "TX-05")
def test_a_dead_or_misdirected_actor_token_is_refused(stage: Stage) -> None:
    dead = machine_token(stage, "mcp1-srv", iat=NOW - 400, exp=NOW - 60)
    elsewhere = machine_token(stage, "mcp1-srv", aud=API)
    for token, reason in [(dead, "actor_expired"), (elsewhere, "actor_aud_mismatch")]:
        parameters = with_actor(stage, token, TOKEN_TYPE_ACCESS_TOKEN)
        stage.attack(parameters, error=IR, reason=reason)
    assertion = good_assertion("mcp1-srv", aud="https://other.test")
    stage.attack(
        with_actor(stage, assertion, TOKEN_TYPE_JWT), error=IR, reason="actor_aud_mismatch"
    )
    wrong = signer("mcp1-srv").sign(good_assertion_claims("mcp1-srv"), typ="dpop+jwt")
    stage.attack(with_actor(stage, wrong, TOKEN_TYPE_JWT), error=IR, reason="actor_wrong_type")


@pytest.mark.requirement("sec:ACT-05")
def test_a_revoked_actor_token_is_refused(stage: Stage) -> None:
    token = machine_token(stage, "mcp1-srv", jti="to-be-revoked")
    stage.grant(with_actor(stage, token, TOKEN_TYPE_ACCESS_TOKEN))
    stage.broker.state.revoke("to-be-revoked", NOW + 300)
    stage.attack(
        with_actor(stage, token, TOKEN_TYPE_ACCESS_TOKEN), error=IR, reason="actor_revoked"
    )


@pytest.mark.requirement("std:ACT-09")
def test_a_delegated_token_names_no_actor(stage: Stage) -> None:
    token = machine_token(stage, "mcp1-srv", act={"iss": ISS, "sub": "agent-x"})
    stage.attack(
        with_actor(stage, token, TOKEN_TYPE_ACCESS_TOKEN), error=IR, reason="actor_delegated"
    )


@pytest.mark.requirement("std:ACT-10")
@pytest.mark.parametrize(
    "token_type", [TOKEN_TYPE_ID_TOKEN, TOKEN_TYPE_ID_JAG, TOKEN_TYPE_REFRESH_TOKEN, "x"]
)
def test_other_kinds_of_token_name_no_actor(stage: Stage, token_type: str) -> None:
    parameters = with_actor(stage, good_id_token(), token_type)
    stage.attack(parameters, error=IR, reason="type_unsupported")


@pytest.mark.requirement("std:ACT-10")
def test_an_actor_may_prove_itself_by_its_own_access_token(stage: Stage) -> None:
    for audience in (ISS, RES_1):
        token = machine_token(stage, "mcp1-srv", aud=audience)
        answer = stage.grant(with_actor(stage, token, TOKEN_TYPE_ACCESS_TOKEN))
        assert answer.claims["act"]["sub"] == "mcp1-srv"


@pytest.mark.requirement("std:ACT-11")
def test_one_assertion_may_be_credential_and_actor_token(stage: Stage) -> None:
    parameters = stage.good()
    both = parameters | {
        "actor_token": parameters["client_assertion"],
        "actor_token_type": TOKEN_TYPE_JWT,
    }
    stage.grant(both)
    stage.attack(both, error="invalid_client", reason="replay")


@pytest.mark.requirement("std:ACT-11", "RPL-01")
def test_an_assertion_spent_as_actor_token_is_spent(stage: Stage) -> None:
    actor = good_assertion("mcp1-srv")
    stage.grant(with_actor(stage, actor, TOKEN_TYPE_JWT))
    stage.attack(with_actor(stage, actor, TOKEN_TYPE_JWT), error=IR, reason="replay")


MAY_ACT_OTHERS: list[Any] = [
    {"sub": "agent-x", "iss": ISS},
    {"sub": "mcp1-srv", "iss": "https://evil.test"},
    {"sub": "mcp1-srv", "iss": ISS, "client_id": "agent-x"},
    {"client_id": "agent-x"},
    {"sub": "mcp1-srv", "email": "x"},
    {"sub": ["mcp1-srv"]},
    {"sub": "mcp1-srv", "iss": [ISS]},
    "agent-x",
    "mcp1-srv",
    [],
    {},
    None,
    {"role": "admin"},
    {"iss": ISS},
]


@pytest.mark.requirement("sec:ACT-06", "sec:ACT-07", "TX-16")
@pytest.mark.parametrize("may_act", MAY_ACT_OTHERS, ids=str)
def test_may_act_names_the_caller_or_nobody(stage: Stage, may_act: Any) -> None:
    """A malformed ``may_act`` is not an absent one."""
    token = sign_as_broker(stage, {**own_claims(), "may_act": may_act})
    stage.attack(stage.good(subject_token=token), error=IR, reason="may_act_denied")


@pytest.mark.requirement("TX-16")
@pytest.mark.parametrize(
    "may_act",
    [
        {"sub": "mcp1-srv"},
        {"sub": "mcp1-srv", "iss": ISS},
        {"client_id": "mcp1-srv", "sub": "mcp1-srv", "iss": ISS},
    ],
    ids=str,
)
def test_may_act_is_honoured_and_not_passed_on(stage: Stage, may_act: Any) -> None:
    token = sign_as_broker(stage, own_claims(may_act=may_act))
    answer = stage.grant(stage.good(subject_token=token))
    assert "may_act" not in answer.claims


@pytest.mark.requirement("TX-16")
def test_may_act_of_another_issuer_speaks_of_its_own_names(staging: Staging) -> None:
    server = replace(Cast().client("mcp1-srv"), issuer_client_ids={IDP_A: "0oa-server"})
    stage = staging(Cast().with_client(server))
    stage.grant(stage.good(subject_token=good_access_token(may_act={"sub": "0oa-server"})))
    token = good_access_token(may_act={"sub": "mcp1-srv"})
    stage.attack(stage.good(subject_token=token), error=IR, reason="may_act_denied")


@pytest.mark.requirement("sec:ACT-08")
def test_actors_that_another_issuer_asserts_are_kept_and_marked(stage: Stage) -> None:
    foreign = {"sub": "their-gateway", "iss": IDP_A}
    answer = stage.grant(stage.good(subject_token=good_access_token(act=foreign)))
    assert answer.claims["act"]["act"] == foreign
    assert answer.claims[MCP_CLAIM]["foreign_actors_from"] == IDP_A
    record = stage.broker.records()[-1]
    assert record["foreign_actors_from"] == IDP_A


@pytest.mark.requirement("sec:ACT-08")
def test_foreign_actors_are_dropped_or_refused_where_so_registered(staging: Staging) -> None:
    token = good_access_token(act={"sub": "their-gateway", "iss": IDP_A})
    drop = replace(Cast().issuer(IDP_A), foreign_actors="drop")
    stage = staging(Cast().with_issuer(drop))
    answer = stage.grant(stage.good(subject_token=token))
    assert "act" not in answer.claims["act"]
    refuse = staging(Cast().with_issuer(replace(drop, foreign_actors="refuse")))
    refuse.attack(refuse.good(subject_token=token), error=IR, reason="chain_malformed")


MALFORMED_CHAINS: list[Any] = [
    None,
    "agent-x",
    [],
    {},
    {"iss": IDP_A},
    {"sub": ""},
    {"sub": 1},
    {"sub": "a", "act": None},
    {"sub": "a", "act": "b"},
    {"sub": "a", "exp": 1},
    {"sub": "a", "act": {"sub": "b", "aud": "x"}},
    {"sub": "a", "cnf": {"jkt": "x"}},
    {"sub": "a\nb"},
    {"sub": "a", "iss": 1},
]


@pytest.mark.requirement("std:ACT-02")
@pytest.mark.parametrize("act", MALFORMED_CHAINS, ids=ascii)
def test_a_malformed_chain_is_refused(stage: Stage, act: Any) -> None:
    token = signer("a1").sign({**good_access_token_claims(), "act": act}, typ=TYP_ACCESS_TOKEN)
    stage.attack(stage.good(subject_token=token), error=IR, reason="chain_malformed")


@pytest.mark.requirement("sec:ACT-10")
def test_a_loop_is_refused(stage: Stage) -> None:
    """Server one, then server two, then server one again."""
    chain = {"iss": ISS, "sub": "mcp2-srv", "act": {"iss": ISS, "sub": "mcp1-srv"}}
    token = sign_as_broker(stage, own_claims(act=chain))
    stage.attack(stage.good(subject_token=token), error=IR, reason="chain_loop")


@pytest.mark.requirement("sec:ACT-10")
def test_the_same_name_of_another_issuer_is_no_loop(stage: Stage) -> None:
    chain = {"iss": IDP_A, "sub": "mcp1-srv"}
    answer = stage.grant(stage.good(subject_token=good_access_token(act=chain)))
    assert answer.claims["act"]["act"] == chain


@pytest.mark.requirement("std:ACT-01", "std:ACT-06")
def test_a_chain_of_three_hops_keeps_every_earlier_actor_unchanged(stage: Stage) -> None:
    first = stage.grant(
        exchange_parameters(
            good_id_token(), subject_token_type=TOKEN_TYPE_ID_TOKEN, resource=RES_1, scope=None
        )
        | by_assertion("agent-x")
    )
    second = stage.grant(exchange_parameters(first.token) | by_assertion("mcp1-srv"))
    third_claims = {**second.claims, "aud": RES_2, "jti": fresh_jti()}
    third = stage.grant(
        exchange_parameters(sign_as_broker(stage, third_claims)) | by_assertion("mcp2-srv")
    )
    assert second.claims["act"]["act"] == first.claims["act"]
    assert third.claims["act"]["act"] == second.claims["act"]
    assert third.claims["act"]["sub"] == "mcp2-srv"
    assert third.claims[MCP_CLAIM]["client"] == "agent-x"
    assert third.claims[MCP_CLAIM]["server"] == RES_2


@pytest.mark.requirement("std:ACT-08", "std:ACT-16")
def test_a_client_acting_for_itself_is_no_delegation(stage: Stage) -> None:
    token = machine_token(stage, "agent-x", aud=RES_1)
    parameters = exchange_parameters(token, resource=RES_1, scope="a:read")
    answer = stage.grant(parameters | by_assertion("agent-x"))
    assert "act" not in answer.claims
    assert answer.claims["sub"] == "client:agent-x"


@pytest.mark.requirement("sec:ACT-09", "std:ACT-03")
def test_earlier_actors_decide_nothing(stage: Stage) -> None:
    """Whoever acted before, the answer is that for the top actor."""
    for inner in ("impersonator", "auditor", "mcp2-srv", "agent-s"):
        chain = {"iss": ISS, "sub": "agent-x", "act": {"iss": ISS, "sub": inner}}
        token = sign_as_broker(stage, own_claims(act=chain))
        stage.grant(stage.good(subject_token=token))
        stage.refuse(
            stage.good(subject_token=token, scope="b:admin"),
            error="invalid_scope",
            reason="scope_exceeds_subject",
        )


@pytest.mark.requirement("sec:ACT-11")
def test_tenants_do_not_mix(stage: Stage) -> None:
    """A client of tenant t1, with a subject of t2, and with one of no tenant at all."""
    t1 = "https://t1.test/mcp"
    claims = good_access_token_claims(iss="https://idp-t2.test", aud=t1)
    foreign = signer("t2").sign(claims, typ=TYP_ACCESS_TOKEN)
    for token in (foreign, good_access_token(aud=t1)):
        parameters = exchange_parameters(token) | by_assertion("mcp-t1")
        stage.attack(parameters, error=IR, reason="tenant_mismatch")


@pytest.mark.requirement("std:ACT-17")
def test_the_metadata_claims_no_actor_profile(stage: Stage) -> None:
    assert "actor_profile_token_exchange" not in stage.broker.endpoints.discovery.metadata()


@pytest.mark.requirement("std:ACT-12", "std:ACT-14")
def test_a_new_actor_needs_a_policy(stage: Stage) -> None:
    """An inherited actor without ``iss`` is carried on as it came; it decides nothing."""
    token = good_access_token(act={"sub": "legacy"})
    assert stage.grant(stage.good(subject_token=token)).claims["act"]["act"] == {"sub": "legacy"}
    closed = stage.good(resource="https://closed.test/v1")
    stage.attack(closed, error="invalid_target", reason="policy_no_permit")
