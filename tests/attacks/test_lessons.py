"""Attacks that once worked, and must not again."""

import base64
import os
from dataclasses import replace
from typing import Any

import pytest

from broker.oauth import TOKEN_TYPE_ID_TOKEN, TOKEN_TYPE_JWT, TYP_ACCESS_TOKEN
from tests.harness import basic
from tests.idp import signer
from tests.stage import Stage
from tests.stagehands import Staging
from tests.world import (
    API,
    CLOSED,
    IDP_A,
    ISS,
    MCP_CLAIM,
    NOW,
    RES_1,
    RES_2,
    WEB_SECRET,
    Cast,
    Parameters,
    by_assertion,
    exchange_parameters,
    good_access_token,
    good_access_token_claims,
    good_assertion,
    good_assertion_claims,
    good_id_token,
)

IR = "invalid_request"


def from_id_token(client: str = "agent-x", **claims: Any) -> Parameters:
    return exchange_parameters(
        good_id_token(**{"aud": client, **claims}),
        subject_token_type=TOKEN_TYPE_ID_TOKEN,
        resource=RES_1,
        scope="a:read b:read",
    ) | by_assertion(client)


@pytest.mark.requirement("CAU-13", "HTP-12", "JAG-20")
def test_a_stranger_learns_nothing_of_clients_keys_and_algorithms(stage: Stage) -> None:
    claims = good_assertion_claims("mcp1-srv")
    stranger = signer("stranger")
    tokens = {
        "client_unknown": stranger.sign({**claims, "iss": "nobody", "sub": "nobody"}),
        "auth_method_refused": stranger.sign({**claims, "iss": "web-s", "sub": "web-s"}),
        "unknown_key": stranger.sign(claims),
        "sig_invalid": stranger.sign(claims, kid="mcp1-srv"),
        "alg_not_allowed": signer("s384", "ES384").sign(claims, kid="mcp1-srv"),
    }
    answers = [
        stage.refuse(
            stage.good() | {"client_assertion": token}, error="invalid_client", reason=reason
        )
        for reason, token in tokens.items()
    ]
    wrong = exchange_parameters(good_access_token(), client_id="web-s", client_secret="x")
    answers.append(stage.refuse(wrong, error="invalid_client", reason="bad_secret"))
    assert len({(one.description, str(one.fields)) for one in answers}) == 1


@pytest.mark.requirement("HTP-12", "JAG-20")
def test_a_caller_learns_nothing_of_the_issuers_trusted(stage: Stage) -> None:
    def signed(by: str, issuer: str, algorithm: str = "ES256") -> str:
        claims = good_access_token_claims(iss=issuer)
        return signer(by, algorithm).sign(claims, typ=TYP_ACCESS_TOKEN)

    answers = [
        stage.refuse(stage.good(subject_token=token), error=IR, reason=reason)
        for token, reason in [
            (signed("stranger", "https://unknown.test"), "iss_unknown"),
            (signed("stranger", "https://idp-off.test"), "issuer_disabled"),
            (signed("stranger", "https://idp-b.test"), "issuer_not_for_purpose"),
            (signed("stranger", IDP_A), "unknown_key"),
            (signed("s384", IDP_A, "ES384"), "alg_not_allowed"),
        ]
    ]
    assert len({(one.description, str(one.fields)) for one in answers}) == 1


@pytest.mark.requirement("TEX-06", "TEX-08")
def test_an_alias_is_no_oracle_for_a_closed_resource(staging: Staging) -> None:
    closed = replace(Cast().resource(CLOSED), audiences=frozenset({"closed-alias"}))
    stage = staging(Cast().with_resource(closed))
    answers = [
        stage.refuse(
            stage.good(resource=CLOSED, audience=audience), error="invalid_target", reason=reason
        )
        for audience, reason in [
            ("closed-alias", "policy_no_permit"),
            ("no-alias", "target_conflict"),
            ("the-api", "target_conflict"),
        ]
    ]
    assert len({(one.description, str(one.fields)) for one in answers}) == 1


@pytest.mark.requirement("sec:ACT-01", "sec:ACT-08")
@pytest.mark.parametrize(
    "act",
    [
        {"iss": ISS, "sub": "mcp1-srv", "sub_profile": "human"},
        {"iss": ISS, "sub": "agent-n"},
        {"iss": IDP_A, "sub": "gateway", "act": {"iss": ISS, "sub": "agent-n"}},
        {"iss": IDP_A, "sub": "gateway", "roles": ["root"]},
    ],
    ids=str,
)
def test_another_issuer_cannot_make_up_our_actors(stage: Stage, act: Any) -> None:
    token = good_access_token(act=act)
    stage.attack(stage.good(subject_token=token), error=IR, reason="chain_malformed")


@pytest.mark.requirement("TEX-04", "JWS-18")
@pytest.mark.parametrize(
    "claim",
    [{"scope": "a:read"}, {"scp": ["a:read"]}, {"client_id": "agent-x"}, {"events": {}}],
    ids=str,
)
def test_a_token_of_another_kind_does_not_pass_for_an_identity(stage: Stage, claim: Any) -> None:
    """An access token relabelled as an ID token would lose the bound of its scopes."""
    stage.grant(from_id_token())
    stage.attack(from_id_token(**claim), error=IR, reason="wrong_token_type")


@pytest.mark.requirement("TEX-17")
def test_an_issuer_refused_to_a_client_stays_so_over_two_hops(staging: Staging) -> None:
    picky = replace(Cast().client("mcp1-srv"), issuers=frozenset({"https://idp-t2.test"}))
    stage = staging(Cast())
    token = stage.grant(from_id_token()).token
    parameters = exchange_parameters(token) | by_assertion("mcp1-srv")
    stage.broker.replace_cast(Cast().with_client(picky))
    stage.refuse(parameters, error=IR, reason="issuer_not_for_client")


@pytest.mark.requirement("CLM-05", "TEX-18")
@pytest.mark.parametrize("auth_time", [NOW + 31, NOW + 10**9, 253_402_300_799])
def test_a_login_in_the_future_is_refused(stage: Stage, auth_time: int) -> None:
    stage.attack(from_id_token(auth_time=auth_time), error=IR, reason="claim_inconsistent")


@pytest.mark.requirement("CLM-13", "POL-06")
def test_another_issuers_client_id_is_never_taken_for_one_of_ours(staging: Staging) -> None:
    stage = staging(Cast())
    token = good_access_token(client_id="impersonator")
    answer = stage.grant(stage.good(subject_token=token))
    assert answer.claims[MCP_CLAIM]["client"] == "impersonator"
    assert answer.claims[MCP_CLAIM]["client_issuer"] == IDP_A
    assert stage.broker.records()[-1]["mcp_client"] == f"{IDP_A}#impersonator"
    known = replace(Cast().client("agent-x"), issuer_client_ids={IDP_A: "0oa-7"})
    stage.broker.replace_cast(Cast().with_client(known))
    answer = stage.grant(stage.good(subject_token=good_access_token(client_id="0oa-7")))
    assert answer.claims[MCP_CLAIM]["client"] == "agent-x"
    assert "client_issuer" not in answer.claims[MCP_CLAIM]


@pytest.mark.requirement("TEX-16", "RPL-08", "CAU-15")
def test_a_chain_ends_with_any_client_or_server_it_passed_through(staging: Staging) -> None:
    stage = staging(Cast())
    first = stage.grant(from_id_token()).token
    second = stage.grant(exchange_parameters(first) | by_assertion("mcp1-srv"))
    assert second.claims["act"]["act"]["sub"] == "agent-x"
    again = exchange_parameters(second.token, scope=None) | by_assertion("mcp1-srv")
    stage.grant(again)

    def refused(cast: Cast) -> None:
        stage.broker.replace_cast(cast)
        fresh = exchange_parameters(second.token, scope=None) | by_assertion("mcp1-srv")
        stage.refuse(fresh, error=IR, reason="principal_disabled")

    refused(Cast().with_client(replace(Cast().client("agent-x"), is_disabled=True)))
    refused(Cast().with_resource(replace(Cast().resource(RES_1), is_disabled=True)))


@pytest.mark.requirement("CAU-07", "std:ACT-11")
def test_a_replayed_actor_assertion_is_not_the_clients_fault(stage: Stage) -> None:
    """The client authenticates by secret; only its actor token was used before."""
    assertion = good_assertion("mcp1-srv")
    used = stage.good(actor_token=assertion, actor_token_type=TOKEN_TYPE_JWT)
    stage.grant(used)
    again = stage.good(actor_token=assertion, actor_token_type=TOKEN_TYPE_JWT)
    stage.attack(again, error=IR, reason="replay")


@pytest.mark.requirement("CLM-09")
@pytest.mark.parametrize("sub", ["u\u00a01", "u\U000e00411", "u\u31641", "u\u034f1", "u\ufe0f1"])
def test_a_subject_that_cannot_be_seen_or_named_is_refused(stage: Stage, sub: str) -> None:
    parameters = stage.good(subject_token=good_access_token(sub=sub))
    stage.attack(parameters, error=IR, reason="claim_malformed")


@pytest.mark.requirement("CLM-09")
def test_a_subject_too_long_with_its_prefix_is_refused_at_once(stage: Stage) -> None:
    claims = good_access_token_claims(iss="https://idp-t2.test", sub="s" * 254)
    token = signer("t2").sign(claims, typ=TYP_ACCESS_TOKEN)
    stage.attack(stage.good(subject_token=token), error=IR, reason="claim_malformed")


@pytest.mark.requirement("sec:ACT-11")
def test_a_resource_of_a_tenant_exists_for_its_subjects_alone(staging: Staging) -> None:
    """Whatever the policies say: subjects of another tenant, and of none, are refused."""
    stage = staging(Cast().with_resource(replace(Cast().resource(API), tenant="t1")))
    t2 = signer("t2").sign(good_access_token_claims(iss="https://idp-t2.test"), typ="at+jwt")
    for token in (good_access_token(), t2):
        parameters = exchange_parameters(token) | by_assertion("mcp1-srv")
        stage.refuse(parameters, error="invalid_target", reason="target_refused")


@pytest.mark.requirement("LOG-01")
def test_a_secret_in_the_wrong_place_is_not_recorded(stage: Stage) -> None:
    misplaced = exchange_parameters(good_access_token(), client_id=WEB_SECRET, client_secret="x")
    stage.refuse(misplaced, error="invalid_client", reason="client_unknown")
    header = basic("web-s", WEB_SECRET)
    stage.refuse(
        stage.good(scope="b:read " + header.replace(" ", "-")),
        error="invalid_scope",
        reason="scope_unknown",
    )
    recorded = b"".join(path.read_bytes() for path in stage.broker.audit_directory.iterdir())
    assert WEB_SECRET.encode() not in recorded


@pytest.mark.requirement("TEX-12")
def test_an_expiry_never_passes_its_input_when_the_second_ticks(staging: Staging) -> None:
    """The clock moves on with every look at it."""
    stage = staging(Cast())
    still = stage.broker.clock.at
    clock = stage.broker.clock

    class Ticking:
        def __call__(self) -> int:
            clock.at += 1
            return clock.at

    minter = stage.broker.endpoints.token.issuing.minter
    ticking = replace(stage.broker.endpoints.token.issuing, minter=replace(minter, now=Ticking()))
    object.__setattr__(stage.broker.endpoints.token, "issuing", ticking)
    token = good_access_token(exp=still + 100)
    answer = stage.ask(stage.good(subject_token=token))
    assert answer.is_granted
    assert answer.claims["exp"] <= still + 100


@pytest.mark.requirement("TEX-10", "TEX-18")
def test_a_login_that_would_not_help_is_not_asked_for(staging: Staging) -> None:
    """A stronger login would open another scope than the one that was asked for."""
    cast = Cast()
    stage = staging(cast.with_resource(replace(cast.resource(RES_2), owner="agent-s")))
    token = good_access_token(aud=RES_2, scope="a:read")
    wanted = {"resource": RES_1, "scope": "b:read"}
    stage.refuse(
        exchange_parameters(token, **wanted) | by_assertion("agent-s"),
        error="invalid_scope",
        reason="scope_exceeds_subject",
    )
    stage.refuse(
        exchange_parameters(token, **wanted | {"scope": "a:read"}) | by_assertion("agent-s"),
        error="insufficient_user_authentication",
        reason="step_up_required",
    )


@pytest.mark.requirement("LOG-01")
def test_no_id_of_ours_is_taken_for_a_secret_and_removed_from_its_record(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One random id in 160,000 has the four characters with which client secrets begin."""
    drawn = base64.urlsafe_b64decode("AAbks_" + "A" * 18)
    real = os.urandom
    monkeypatch.setattr(
        "broker.tokens.minter.os.urandom",
        lambda size: drawn if size == len(drawn) else real(size),
    )

    answer = stage.ask(stage.good())

    assert answer.is_granted
    assert stage.broker.records()[-1]["jti"] == answer.claims["jti"] == "AAbks-" + "A" * 18
