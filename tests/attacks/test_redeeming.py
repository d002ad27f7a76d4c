"""Group 1H of the attack catalogue, second half: redeeming an identity assertion (ID-JAG)."""

import json
from dataclasses import replace
from typing import Any

import pytest

from broker.model import KeySource, Purpose
from broker.oauth import GRANT_JWT_BEARER, GRANT_PROFILE_ID_JAG, TOKEN_TYPE_ACCESS_TOKEN
from tests.harness import basic, decode_header
from tests.idp import signer
from tests.stage import ASSERTION, Stage
from tests.stagehands import Staging
from tests.world import (
    AGENTS,
    API,
    CLOSED,
    IDP_A,
    IDP_B,
    ISS,
    MCP_CLAIM,
    NOW,
    RAS,
    RES_1,
    RES_2,
    WEB_SECRET,
    Cast,
    assertion_request,
    by_assertion,
    client_parameters,
    exchange_parameters,
    fresh_jti,
    good_id_jag,
    good_id_jag_claims,
    good_id_token_claims,
    jwt_client,
    redeem_parameters,
)

IC = "invalid_client"
IG = "invalid_grant"
IR = "invalid_request"
IS = "invalid_scope"
IT = "invalid_target"
UC = "unauthorized_client"

IDP_T2 = "https://idp-t2.test"


def with_issuer(**changes: Any) -> Cast:
    """The cast with IDP-A registered otherwise."""
    return Cast().with_issuer(replace(Cast().issuer(IDP_A), **changes))


@pytest.mark.requirement("IDJAG-R-01", "IDJAG-R-08", "IDJAG-R-11", "IDJAG-R-16", "AT-14")
def test_an_assertion_becomes_a_token_for_the_resource_it_names(stage: Stage) -> None:
    answer = stage.grant(redeem_parameters())

    assert decode_header(answer.token)["typ"] == "at+jwt"
    assert answer.fields["token_type"] == "Bearer"
    assert answer.fields["issued_token_type"] == TOKEN_TYPE_ACCESS_TOKEN
    assert answer.fields["scope"] == "a:read b:read"
    assert "refresh_token" not in answer.everything
    claims = answer.claims
    assert claims.pop("jti")
    assert claims.pop("txn")
    assert claims == {
        "iss": ISS,
        "sub": "u1",
        "aud": RES_1,
        "client_id": "agent-x",
        "scope": "a:read b:read",
        "iat": NOW,
        "exp": NOW + 300,
        "auth_time": NOW - 60,
        "acr": "phr",
        MCP_CLAIM: {"client": "agent-x", "resource": RES_1, "subject_issuer": IDP_A},
    }


@pytest.mark.requirement("IDJAG-R-08", "RES-05")
def test_the_answer_names_the_resource_that_nobody_had_to_ask_for(stage: Stage) -> None:
    assert stage.grant(redeem_parameters()).fields["resource"] == RES_1


@pytest.mark.requirement("IDJAG-R-01")
def test_a_client_with_a_secret_may_redeem(staging: Staging) -> None:
    stage = staging(Cast().with_client(replace(Cast().client("web-s"), groups=AGENTS)))
    own = redeem_parameters(
        good_id_jag(client_id="web-s"), client_assertion=None, client_assertion_type=None
    )
    stage.grant(own, basic("web-s", WEB_SECRET))


@pytest.mark.requirement("IDJAG-R-01", "CAU-01", "IDJAG-I-29")
def test_an_assertion_alone_authenticates_no_client(stage: Stage) -> None:
    nobody = redeem_parameters(client_assertion=None, client_assertion_type=None)
    stage.attack(nobody, error=IC, reason="client_auth_missing")
    stage.attack(nobody | {"client_id": "agent-x"}, error=IC, reason="client_auth_missing")


@pytest.mark.requirement("IDJAG-R-01", "CA-04")
def test_a_client_that_is_not_registered_for_it_redeems_nothing(staging: Staging) -> None:
    others = Cast().client("agent-n").grants - {GRANT_JWT_BEARER}
    stage = staging(Cast().with_client(replace(Cast().client("agent-n"), grants=others)))
    parameters = redeem_parameters(good_id_jag(client_id="agent-n")) | by_assertion("agent-n")
    stage.attack(parameters, error=UC, reason="grant_not_allowed")


@pytest.mark.requirement("IDJAG-R-25")
@pytest.mark.parametrize("assertion", [None, "", "   "])
def test_a_missing_assertion_is_an_invalid_request(stage: Stage, assertion: str | None) -> None:
    parameters = redeem_parameters() | {"assertion": assertion or ""}
    stage.attack(parameters, error=IR, reason="param_missing")


@pytest.mark.requirement("JAG-09", "IDJAG-R-02", "AT-16")
@pytest.mark.parametrize(
    "typ", ["JWT", "at+jwt", None, "id-jag", "oauth-id-jag", "oauth-id-jag+jwt "]
)
def test_an_assertion_of_another_type_is_refused(stage: Stage, typ: str | None) -> None:
    token = ASSERTION.token(header={"typ": typ})
    stage.attack(redeem_parameters(token), error=IG, reason="wrong_token_type")


@pytest.mark.requirement("JAG-09", "IDJAG-R-02")
def test_an_id_token_is_no_assertion(stage: Stage) -> None:
    for claims in (good_id_token_claims(), good_id_token_claims(aud=ISS)):
        parameters = redeem_parameters(signer("a1").sign(claims))
        stage.attack(parameters, error=IG, reason="wrong_token_type")


@pytest.mark.requirement("JAG-10", "IDJAG-R-04", "IDJAG-R-23")
@pytest.mark.parametrize(
    "audience",
    [
        ISS + "/token",
        ISS + "/",
        ISS.upper(),
        ISS + ":443",
        RAS,
        RES_1,
        "agent-x",
        [ISS, RAS],
        [ISS, ISS],
        [RAS],
        [],
        None,
        [[ISS]],
        {"aud": ISS},
    ],
    ids=str,
)
def test_an_assertion_is_for_this_issuer_alone(stage: Stage, audience: Any) -> None:
    token = good_id_jag(aud=audience)
    stage.attack(redeem_parameters(token), error=IG, reason="aud_mismatch")


@pytest.mark.requirement("JAG-10", "IDJAG-R-04")
def test_an_audience_may_be_an_array_of_this_issuer_alone(stage: Stage) -> None:
    stage.grant(redeem_parameters(good_id_jag(aud=[ISS])))


@pytest.mark.requirement("JAG-11", "IDJAG-R-05")
@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": None},
        {"client_id": "agent-n"},
        {"client_id": "AGENT-X"},
        {"client_id": "agent-\u0445"},
        {"client_id": None, "azp": "agent-x"},
        {"client_id": "agent-n", "azp": "agent-x"},
    ],
    ids=ascii,
)
def test_an_assertion_is_redeemed_by_the_client_it_names(
    stage: Stage, changes: dict[str, Any]
) -> None:
    token = good_id_jag(**changes)
    stage.attack(redeem_parameters(token), error=IG, reason="client_mismatch")


@pytest.mark.requirement("JAG-11", "IDJAG-R-05")
def test_a_stolen_assertion_is_of_no_use(stage: Stage) -> None:
    token = good_id_jag()
    stolen = redeem_parameters(token) | by_assertion("agent-n")
    stage.attack(stolen, error=IG, reason="client_mismatch")
    stage.grant(redeem_parameters(token))


@pytest.mark.requirement("JAG-12", "IDJAG-I-24", "IDJAG-R-23")
def test_an_assertion_of_this_issuer_is_not_redeemed_here(staging: Staging) -> None:
    own = staging(Cast()).grant(assertion_request()).token
    stage = staging(Cast())
    stage.attack(redeem_parameters(own), error=IG, reason="self_issued_jag")
    key = stage.broker.key_store.signing_key("ES256")
    claims = json.dumps(good_id_jag_claims(iss=ISS)).encode()
    header = {"alg": "ES256", "typ": "oauth-id-jag+jwt", "kid": key.kid}
    raw = signer("a1").sign_raw(json.dumps(header).encode(), claims)
    stage.attack(redeem_parameters(raw), error=IG, reason="self_issued_jag")


@pytest.mark.requirement("JAG-13", "IDJAG-R-07", "RPL-01")
def test_an_assertion_is_redeemed_once(stage: Stage) -> None:
    token = good_id_jag()
    stage.grant(redeem_parameters(token))
    stage.attack(redeem_parameters(token), error=IG, reason="replay")


@pytest.mark.requirement("JAG-13", "IDJAG-R-07")
def test_a_second_spelling_of_the_same_id_is_a_replay_too(stage: Stage) -> None:
    jti = fresh_jti()
    stage.grant(redeem_parameters(good_id_jag(jti=jti)))
    again = redeem_parameters(good_id_jag(jti=jti, sub="u2", scope="a:read"))
    stage.attack(again, error=IG, reason="replay")


@pytest.mark.requirement("JAG-13", "IDJAG-R-07")
def test_equal_ids_of_two_issuers_do_not_meet(stage: Stage) -> None:
    jti = fresh_jti()
    stage.grant(redeem_parameters(good_id_jag(jti=jti)))
    other = signer("t2").sign(good_id_jag_claims(iss=IDP_T2, jti=jti), typ="oauth-id-jag+jwt")
    stage.grant(redeem_parameters(other))
    stage.grant(client_parameters(**by_assertion("agent-x", jti=jti)))


@pytest.mark.requirement("JAG-13", "RPL-03")
def test_a_refused_redemption_spends_nothing(stage: Stage) -> None:
    token = good_id_jag()
    parameters = redeem_parameters(token, resource=RES_2)
    stage.attack(parameters, error=IT, reason="target_refused")
    stage.grant(redeem_parameters(token, **by_same_proof(parameters)))


def by_same_proof(parameters: Any) -> Any:
    """The client assertion of a request that was refused."""
    return {name: parameters[name] for name in ("client_assertion", "client_assertion_type")}


@pytest.mark.requirement("IDJAG-R-07", "JAG-13")
def test_an_issuer_may_let_its_assertions_be_used_again_by_the_same_client(
    staging: Staging,
) -> None:
    stage = staging(with_issuer(is_single_use=False))
    token = good_id_jag()
    first = stage.grant(redeem_parameters(token)).claims
    second = stage.grant(redeem_parameters(token)).claims
    assert first["jti"] != second["jti"]
    stolen = redeem_parameters(token) | by_assertion("agent-n")
    stage.attack(stolen, error=IG, reason="client_mismatch")
    stage.broker.clock.at = NOW + 331
    dead = redeem_parameters(token) | by_assertion("agent-x", iat=NOW + 331, exp=NOW + 391)
    stage.refuse(dead, error=IG, reason="token_expired")


@pytest.mark.requirement("JAG-14", "IDJAG-R-11", "TX-21")
def test_scopes_are_those_that_both_the_assertion_and_policy_give(stage: Stage) -> None:
    asserted = good_id_jag(scope="a:read b:admin of:another")
    assert stage.grant(redeem_parameters(asserted)).claims["scope"] == "a:read"
    wider = redeem_parameters(good_id_jag(scope="a:read"), scope="a:read b:read")
    answer = stage.grant(wider)
    assert answer.claims["scope"] == answer.fields["scope"] == "a:read"
    narrower = redeem_parameters(good_id_jag(), scope="b:read")
    assert stage.grant(narrower).claims["scope"] == "b:read"


@pytest.mark.requirement("JAG-14", "IDJAG-R-11")
@pytest.mark.parametrize(
    ("asserted", "asked", "reason"),
    [
        ("a:read", "b:read", "scope_exceeds_subject"),
        ("b:admin", None, "scope_not_permitted"),
        ("b:admin", "b:admin", "scope_not_permitted"),
        ("of:another", None, "scope_exceeds_subject"),
        ("", None, "scope_exceeds_subject"),
        ("", "a:read", "scope_exceeds_subject"),
        ("a:read", "of:another", "scope_unknown"),
        ("a:read", "a:read a:read", "scope_malformed"),
    ],
)
def test_more_than_the_assertion_says_is_refused(
    stage: Stage, asserted: str, asked: str | None, reason: str
) -> None:
    parameters = redeem_parameters(good_id_jag(scope=asserted), scope=asked)
    stage.attack(parameters, error=IS, reason=reason)


@pytest.mark.requirement("JAG-14", "IDJAG-R-08", "IDJAG-R-10")
@pytest.mark.parametrize("resource", [RES_2, API, CLOSED, "https://nope.test"])
def test_another_resource_than_the_asserted_one_is_refused(stage: Stage, resource: str) -> None:
    reason = "target_unknown" if "nope" in resource else "target_refused"
    stage.attack(redeem_parameters(resource=resource), error=IT, reason=reason)


@pytest.mark.requirement("IDJAG-R-10", "RES-02", "RES-04")
def test_the_asserted_resource_may_be_asked_for_too(stage: Stage) -> None:
    stage.grant(redeem_parameters(resource=RES_1))
    stage.grant(redeem_parameters(resource="HTTPS://MCP1.test/mcp"))
    stage.grant(redeem_parameters(audience="mcp-one"))


@pytest.mark.requirement("IDJAG-R-10")
@pytest.mark.parametrize(
    ("resource", "reason"),
    [
        ("https://nope.test", "target_unknown"),
        (["https://nope.test", "https://nope2.test"], "target_unknown"),
        ("mcp-one", "claim_malformed"),
        ("https://off.test/v1", "target_unknown"),
        (RES_1 + "#x", "claim_malformed"),
        ("", "claim_malformed"),
        ([], "claim_malformed"),
        ({}, "claim_malformed"),
        (1, "claim_malformed"),
        ([RES_1, 1], "claim_malformed"),
        ([[RES_1]], "claim_malformed"),
        ([RES_1] * 17, "claim_malformed"),
    ],
    ids=lambda one: str(one)[:24],
)
def test_an_assertion_for_nothing_of_ours_is_refused(
    stage: Stage, resource: Any, reason: str
) -> None:
    token = good_id_jag(resource=resource)
    stage.attack(redeem_parameters(token), error=IG, reason=reason)


@pytest.mark.requirement("IDJAG-R-10")
def test_a_null_resource_is_not_an_absent_one(stage: Stage) -> None:
    claims = {**good_id_jag_claims(), "resource": None}
    token = signer("a1").sign(claims, typ="oauth-id-jag+jwt")
    stage.attack(redeem_parameters(token), error=IG, reason="claim_malformed")


@pytest.mark.requirement("IDJAG-R-10", "TEX-09")
def test_of_several_asserted_resources_one_is_asked_for(stage: Stage) -> None:
    token = good_id_jag(resource=[RES_1, RES_2, "https://elsewhere.test"])
    stage.attack(redeem_parameters(token), error=IT, reason="single_target_only")
    assert stage.grant(redeem_parameters(token, resource=RES_2)).claims["aud"] == RES_2
    beyond = redeem_parameters(good_id_jag(resource=[RES_1, RES_2]), resource=API)
    stage.attack(beyond, error=IT, reason="target_refused")


@pytest.mark.requirement("JAG-15", "IDJAG-R-09", "AT-05")
def test_an_assertion_without_a_resource_gives_what_is_asked_for_or_the_default(
    staging: Staging,
) -> None:
    stage = staging(Cast())
    asked = redeem_parameters(good_id_jag(resource=None), resource=RES_2)
    assert stage.grant(asked).claims["aud"] == RES_2
    stage.refuse(redeem_parameters(good_id_jag(resource=None)), error=IT, reason="target_missing")
    stage = staging(replace(Cast(), default_resource=RES_1))
    assert stage.grant(redeem_parameters(good_id_jag(resource=None))).claims["aud"] == RES_1


@pytest.mark.requirement("JAG-15", "IDJAG-R-09", "POL-01")
@pytest.mark.parametrize("resource", [API, CLOSED])
def test_an_assertion_without_a_resource_opens_none_that_policy_closes(
    stage: Stage, resource: str
) -> None:
    parameters = redeem_parameters(good_id_jag(resource=None), resource=resource)
    stage.attack(parameters, error=IT, reason="policy_no_permit")


@pytest.mark.requirement("JAG-15", "IDJAG-R-12")
def test_an_assertion_without_scopes_is_bounded_by_policy(stage: Stage) -> None:
    token = good_id_jag(scope=None)
    assert stage.grant(redeem_parameters(token)).claims["scope"] == "a:read b:read"
    asked = redeem_parameters(good_id_jag(scope=None), scope="b:admin")
    stage.attack(asked, error=IS, reason="scope_not_permitted")


@pytest.mark.requirement("JAG-16", "IDJAG-R-17", "IDJAG-R-18")
def test_a_user_without_an_account_is_refused(staging: Staging) -> None:
    stage = staging(with_issuer(accounts={"": {"u1": "ursula"}}))
    assert stage.grant(redeem_parameters()).claims["sub"] == "ursula"
    for sub in ("u2", "U1", "ursula", "u1 "):
        unknown = redeem_parameters(good_id_jag(sub=sub))
        stage.refuse(unknown, error=IG, reason="subject_unresolved")
    nobody = staging(with_issuer(accounts={}))
    nobody.refuse(redeem_parameters(), error=IG, reason="subject_unresolved")


@pytest.mark.requirement("IDJAG-R-20", "IDJAG-R-17")
def test_accounts_are_found_by_tenant_and_subject(staging: Staging) -> None:
    accounts = {"acme": {"u1": "ann"}, "globex": {"u1": "gus"}}
    stage = staging(with_issuer(is_multi_tenant=True, accounts=accounts))

    def sub(tenant: str) -> Any:
        return stage.grant(redeem_parameters(good_id_jag(tenant=tenant))).claims["sub"]

    assert (sub("acme"), sub("globex")) == ("ann", "gus")
    for changes in ({"tenant": "initech"}, {"tenant": "ACME"}, {"tenant": "acme", "sub": "u2"}):
        token = good_id_jag(**changes)
        stage.refuse(redeem_parameters(token), error=IG, reason="subject_unresolved")


@pytest.mark.requirement("IDJAG-R-20", "TX-23")
def test_equal_subjects_of_two_tenants_stay_two_people(staging: Staging) -> None:
    stage = staging(with_issuer(is_multi_tenant=True, subject_prefix="a|"))

    def claims(tenant: str) -> Any:
        return stage.grant(redeem_parameters(good_id_jag(tenant=tenant))).claims

    acme, globex = claims("acme"), claims("globex")
    assert (acme["sub"], globex["sub"]) == ("a|acme/u1", "a|globex/u1")
    assert (acme[MCP_CLAIM]["tenant"], globex[MCP_CLAIM]["tenant"]) == ("acme", "globex")


@pytest.mark.requirement("IDJAG-R-20", "TX-23")
def test_equal_subjects_of_two_issuers_stay_two_people(stage: Stage) -> None:
    other = signer("t2").sign(good_id_jag_claims(iss=IDP_T2), typ="oauth-id-jag+jwt")
    assert stage.grant(redeem_parameters(other)).claims["sub"] == "t2|u1"
    assert stage.grant(redeem_parameters()).claims["sub"] == "u1"


@pytest.mark.requirement("IDJAG-R-20")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "subject_unresolved"),
        ({"tenant": ""}, "claim_malformed"),
        ({"tenant": 1}, "claim_malformed"),
        ({"tenant": ["acme"]}, "claim_malformed"),
        ({"tenant": "acme/u1", "sub": "x"}, "claim_malformed"),
        ({"tenant": "acme\n"}, "claim_malformed"),
    ],
    ids=ascii,
)
def test_an_issuer_of_several_tenants_must_say_which(
    staging: Staging, changes: dict[str, Any], reason: str
) -> None:
    stage = staging(with_issuer(is_multi_tenant=True))
    stage.refuse(redeem_parameters(good_id_jag(**changes)), error=IG, reason=reason)


@pytest.mark.requirement("IDJAG-R-20")
@pytest.mark.parametrize("tenant", ["acme", "t2", "", None, 1])
def test_a_tenant_that_is_not_expected_is_not_passed_over(stage: Stage, tenant: Any) -> None:
    claims = {**good_id_jag_claims(iss=IDP_T2), "tenant": tenant}
    token = signer("t2").sign(claims, typ="oauth-id-jag+jwt")
    stage.attack(redeem_parameters(token), error=IG, reason="subject_unresolved")


@pytest.mark.requirement("IDJAG-R-20", "sec:ACT-11")
def test_an_assertion_for_another_tenant_of_ours_is_refused(stage: Stage) -> None:
    def token(tenant: Any) -> str:
        claims = {**good_id_jag_claims(iss=IDP_T2), "aud_tenant": tenant}
        return signer("t2").sign(claims, typ="oauth-id-jag+jwt")

    stage.grant(redeem_parameters(token("t2")))
    for tenant in ("t1", "T2"):
        stage.refuse(redeem_parameters(token(tenant)), error=IG, reason="subject_unresolved")
    nowhere = redeem_parameters(good_id_jag(aud_tenant="t2"))
    stage.attack(nowhere, error=IG, reason="subject_unresolved")


@pytest.mark.requirement("IDJAG-R-20", "CLM-14")
@pytest.mark.parametrize("tenant", [None, "", 1, ["t2"], {}])
def test_a_malformed_tenant_of_ours_is_not_an_absent_one(stage: Stage, tenant: Any) -> None:
    claims = {**good_id_jag_claims(), "aud_tenant": tenant}
    token = signer("a1").sign(claims, typ=ASSERTION.typ)
    stage.attack(redeem_parameters(token), error=IG, reason="claim_malformed")


@pytest.mark.requirement("sec:ACT-11")
def test_a_client_of_one_tenant_redeems_nothing_for_another(staging: Staging) -> None:
    cast = Cast().with_client(jwt_client("agent-t1", groups=AGENTS, tenant="t1"))
    stage = staging(cast)
    claims = good_id_jag_claims(iss=IDP_T2, client_id="agent-t1")
    for token in (
        signer("t2").sign(claims, typ="oauth-id-jag+jwt"),
        good_id_jag(client_id="agent-t1"),
    ):
        parameters = redeem_parameters(token) | by_assertion("agent-t1")
        stage.refuse(parameters, error=IG, reason="tenant_mismatch")


@pytest.mark.requirement("JAG-17", "TEX-16")
def test_a_disabled_user_is_refused(staging: Staging) -> None:
    listed = with_issuer(accounts={"": {"u1": "ursula", "u2": "uwe"}})
    stage = staging(replace(listed, disabled_subjects=frozenset({"uwe"})))
    stage.grant(redeem_parameters())
    other = redeem_parameters(good_id_jag(sub="u2"))
    stage.refuse(other, error=IG, reason="principal_disabled")


@pytest.mark.requirement("JAG-17", "KEY-14")
def test_a_disabled_issuer_is_refused(stage: Stage) -> None:
    claims = good_id_jag_claims(iss="https://idp-off.test")
    token = signer("o1").sign(claims, typ="oauth-id-jag+jwt")
    stage.attack(redeem_parameters(token), error=IG, reason="issuer_disabled")


@pytest.mark.requirement("JAG-17", "CAU-15")
def test_a_disabled_client_redeems_nothing(staging: Staging) -> None:
    off = replace(Cast().client("agent-x"), is_disabled=True)
    stage = staging(Cast().with_client(off))
    stage.refuse(redeem_parameters(), error=IC, reason="client_disabled")


@pytest.mark.requirement("JAG-17", "CAU-15")
def test_a_redeemed_token_dies_with_its_client_its_issuer_and_its_user(staging: Staging) -> None:
    stage = staging(Cast())
    token = stage.grant(redeem_parameters()).token

    def onward() -> Any:
        return exchange_parameters(token) | by_assertion("mcp1-srv")

    stage.grant(onward())
    no_client = replace(Cast().client("agent-x"), is_disabled=True)
    for cast, reason in [
        (Cast().with_client(no_client), "principal_disabled"),
        (with_issuer(is_disabled=True), "issuer_disabled"),
        (replace(Cast(), disabled_subjects=frozenset({"u1"})), "principal_disabled"),
    ]:
        stage.broker.replace_cast(cast)
        stage.refuse(onward(), error=IR, reason=reason)


@pytest.mark.requirement("JAG-18", "IDJAG-R-06", "CLM-12")
@pytest.mark.parametrize("name", ["iss", "sub", "aud", "exp", "iat", "jti", "client_id"])
def test_an_assertion_without_a_required_claim_is_refused(stage: Stage, name: str) -> None:
    reasons = {"iss": "iss_unknown", "aud": "aud_mismatch", "client_id": "client_mismatch"}
    token = good_id_jag(**{name: None})
    reason = reasons.get(name, "claim_malformed")
    stage.attack(redeem_parameters(token), error=IG, reason=reason)


@pytest.mark.requirement("JAG-18", "IDJAG-R-06", "CLM-04", "CLM-05")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": NOW + 301}, "lifetime_too_long"),
        ({"iat": NOW - 60, "exp": NOW + 241}, "lifetime_too_long"),
        ({"exp": NOW}, "claim_inconsistent"),
        ({"iat": NOW + 31}, "not_yet_valid"),
        ({"nbf": NOW + 31}, "not_yet_valid"),
        ({"nbf": NOW + 301}, "claim_inconsistent"),
        ({"iat": NOW - 100, "exp": NOW - 30}, "token_expired"),
        ({"iat": NOW - 100, "exp": NOW - 29}, "born_expired"),
        ({"iat": NOW - 100, "exp": NOW}, "born_expired"),
    ],
    ids=str,
)
def test_an_assertion_lives_for_five_minutes_and_no_longer(
    stage: Stage, changes: dict[str, int], reason: str
) -> None:
    stage.attack(redeem_parameters(good_id_jag(**changes)), error=IG, reason=reason)


@pytest.mark.requirement("JAG-18", "TEX-12", "AT-15")
def test_a_token_never_outlives_its_assertion(stage: Stage) -> None:
    answer = stage.grant(redeem_parameters(good_id_jag(exp=NOW + 42)))
    assert answer.claims["exp"] == NOW + answer.fields["expires_in"] == NOW + 42


@pytest.mark.requirement("JAG-19", "IDJAG-R-13", "RAR-06")
@pytest.mark.parametrize(
    "details", [[], {}, "x", None, [{"type": "unknown"}], [{"type": "a", "actions": ["read"]}]]
)
def test_asserted_authorization_details_are_refused_never_dropped(
    stage: Stage, details: Any
) -> None:
    claims = {**good_id_jag_claims(), "authorization_details": details}
    token = signer("a1").sign(claims, typ="oauth-id-jag+jwt")
    stage.attack(redeem_parameters(token), error=IG, reason="rar_invalid")


@pytest.mark.requirement("JAG-19", "IDJAG-R-13", "RAR-06")
@pytest.mark.parametrize("details", ["x", "{}", '[{"type":"unknown"}]', "[" * 2000 + "]" * 2000])
def test_requested_authorization_details_are_refused_never_dropped(
    stage: Stage, details: str
) -> None:
    """The gRPC message has no place for them, which is the same answer."""
    if stage.face.name == "http":
        stage.attack(
            redeem_parameters(authorization_details=details),
            error="invalid_authorization_details",
            reason="rar_invalid",
        )


@pytest.mark.requirement("JAG-19", "DOS-01")
def test_enormous_authorization_details_are_refused_unread(stage: Stage) -> None:
    if stage.face.name == "http":
        details = '[{"type":"' + "x" * 1_000_000 + '"}]'
        answer = stage.ask(redeem_parameters(authorization_details=details))
        assert (answer.status, answer.error) == ("413", "invalid_request")


@pytest.mark.requirement("IDJAG-R-24", "sec:ACT-01", "sec:ACT-08")
@pytest.mark.parametrize(
    "act",
    [{"sub": "agent-x"}, {"iss": ISS, "sub": "agent-x"}, {}, None, "agent-x", [], {"sub": 1}],
    ids=str,
)
def test_an_assertion_may_not_assert_actors(stage: Stage, act: Any) -> None:
    token = signer("a1").sign({**good_id_jag_claims(), "act": act}, typ="oauth-id-jag+jwt")
    stage.attack(redeem_parameters(token), error=IG, reason="chain_malformed")


@pytest.mark.requirement("IDJAG-R-24", "sec:ACT-06", "sec:ACT-07")
@pytest.mark.parametrize("may_act", [{"sub": "agent-n"}, {}, None, "agent-x", [], {"role": "x"}])
def test_an_assertion_that_another_may_act_for_is_refused(stage: Stage, may_act: Any) -> None:
    claims = {**good_id_jag_claims(), "may_act": may_act}
    token = signer("a1").sign(claims, typ="oauth-id-jag+jwt")
    stage.attack(redeem_parameters(token), error=IG, reason="may_act_denied")
    stage.grant(redeem_parameters(good_id_jag(may_act={"sub": "agent-x"})))


@pytest.mark.requirement("IDJAG-R-19", "IDJAG-R-20", "CLM-13", "IDJAG-R-29")
def test_no_other_claim_says_who_the_user_is_or_what_he_may(stage: Stage) -> None:
    """Of names beside ``sub`` nothing is used: neither a SAML name nor an address nor a hint."""
    token = good_id_jag(
        sub_id={"format": "saml-nameid", "issuer": "https://evil.test", "nameid": "evil"},
        aud_sub="evil",
        email="evil@evil.test",
        email_verified=True,
        roles=["evil"],
        groups=["evil"],
        mcp_server="evil",
        **{MCP_CLAIM: {"client": "evil", "tenant": "evil"}},
    )
    claims = stage.grant(redeem_parameters(token)).claims
    assert claims["sub"] == "u1"
    assert "evil" not in json.dumps(claims)


@pytest.mark.requirement("IDJAG-R-03", "KEY-15")
def test_an_issuer_that_is_not_registered_is_refused(stage: Stage) -> None:
    token = signer("evil").sign(good_id_jag_claims(iss="https://evil.test"), typ=ASSERTION.typ)
    stage.attack(redeem_parameters(token), error=IG, reason="iss_unknown")


@pytest.mark.requirement("IDJAG-R-03", "KEY-12", "KEY-13", "JWS-03")
def test_an_assertion_is_signed_by_its_own_issuer(stage: Stage) -> None:
    for key, kid, reason in [
        (signer("o1"), "a1", "sig_invalid"),
        (signer("o1"), "o1", "unknown_key"),
        (signer("b1", "RS256"), "a1", "alg_not_allowed"),
        (signer("agent-x"), "agent-x", "unknown_key"),
    ]:
        token = key.sign(good_id_jag_claims(), typ=ASSERTION.typ, kid=kid)
        stage.refuse(redeem_parameters(token), error=IG, reason=reason)
    ours = stage.broker.key_store.signing_key("ES256").kid
    token = signer("a1").sign(good_id_jag_claims(), typ=ASSERTION.typ, kid=ours)
    stage.attack(redeem_parameters(token), error=IG, reason="unknown_key")


@pytest.mark.requirement("IDJAG-R-27")
def test_a_retired_key_of_an_issuer_verifies_nothing(staging: Staging) -> None:
    stage = staging(Cast())
    stage.grant(redeem_parameters())
    stage.broker.replace_cast(with_issuer(keys=KeySource(jwks=signer("a2").jwks)))
    stage.refuse(redeem_parameters(), error=IG, reason="unknown_key")
    token = signer("a2").sign(good_id_jag_claims(), typ=ASSERTION.typ)
    assert stage.ask(redeem_parameters(token)).is_granted


@pytest.mark.requirement("KEY-16", "IDJAG-R-17")
@pytest.mark.parametrize(
    "purposes",
    [{Purpose.USER}, {Purpose.ACCESS_TOKEN}, {Purpose.WORKLOAD}, {Purpose.USER, Purpose.WORKLOAD}],
    ids=lambda purposes: "+".join(sorted(purposes)),
)
def test_an_issuer_makes_assertions_only_if_it_is_registered_to(
    staging: Staging, purposes: set[Purpose]
) -> None:
    stage = staging(with_issuer(purposes=frozenset(purposes)))
    stage.refuse(redeem_parameters(), error=IG, reason="issuer_not_for_purpose")


@pytest.mark.requirement("KEY-16")
def test_a_workload_issuer_asserts_no_user(stage: Stage) -> None:
    claims = good_id_jag_claims(iss=IDP_B)
    token = signer("b1", "RS256").sign(claims, typ=ASSERTION.typ)
    stage.attack(redeem_parameters(token), error=IG, reason="issuer_not_for_purpose")


@pytest.mark.requirement("IDJAG-R-17", "TEX-17")
def test_an_issuer_not_accepted_from_this_client_is_refused(staging: Staging) -> None:
    picky = replace(Cast().client("agent-x"), issuers=frozenset({IDP_A}))
    stage = staging(Cast().with_client(picky))
    token = signer("t2").sign(good_id_jag_claims(iss=IDP_T2), typ=ASSERTION.typ)
    stage.attack(redeem_parameters(token), error=IG, reason="issuer_not_for_client")


@pytest.mark.requirement("TEX-23", "CC-07")
def test_an_asserted_user_cannot_pose_as_a_client(staging: Staging) -> None:
    stage = staging(Cast())
    token = good_id_jag(sub="client:agent-x")
    stage.attack(redeem_parameters(token), error=IG, reason="subject_reserved")
    listed = staging(with_issuer(accounts={"": {"u1": "client:agent-x"}}))
    listed.refuse(redeem_parameters(), error=IG, reason="subject_reserved")


@pytest.mark.requirement("JAG-20", "IDJAG-R-21", "HTP-12", "IDJAG-R-25")
def test_a_caller_learns_nothing_of_the_issuers_trusted(stage: Stage) -> None:
    document = stage.face.metadata()
    assert GRANT_JWT_BEARER in document["grant_types_supported"]
    assert GRANT_PROFILE_ID_JAG in document["authorization_grant_profiles_supported"]
    assert IDP_A not in str(document)

    def signed(by: str, issuer: str, algorithm: str = "ES256") -> str:
        claims = good_id_jag_claims(iss=issuer)
        return signer(by, algorithm).sign(claims, typ=ASSERTION.typ)

    answers = [
        stage.refuse(redeem_parameters(token), error=IG, reason=reason)
        for token, reason in [
            (signed("stranger", "https://unknown.test"), "iss_unknown"),
            (signed("stranger", "https://idp-off.test"), "issuer_disabled"),
            (signed("stranger", IDP_B), "issuer_not_for_purpose"),
            (signed("stranger", IDP_A), "unknown_key"),
            (signed("s384", IDP_A, "ES384"), "alg_not_allowed"),
        ]
    ]
    assert len({(one.description, str(one.fields)) for one in answers}) == 1


@pytest.mark.requirement("IDJAG-R-28", "LOG-04")
def test_an_assertion_stands_in_no_record(stage: Stage) -> None:
    token = good_id_jag()
    stage.grant(redeem_parameters(token))
    stage.refuse(redeem_parameters(token), error=IG, reason="replay")
    records = json.dumps(stage.broker.records())
    assert token not in records
    assert token.rpartition(".")[2] not in records


@pytest.mark.requirement("IDJAG-R-08", "std:ACT-05", "TX-19")
def test_a_redeemed_token_is_called_with_and_exchanged_like_any_other(stage: Stage) -> None:
    token = stage.grant(redeem_parameters()).token
    claims = stage.grant(exchange_parameters(token) | by_assertion("mcp1-srv")).claims
    assert claims["sub"] == "u1"
    assert claims["act"]["sub"] == "mcp1-srv"
    assert claims[MCP_CLAIM]["client"] == "agent-x"
    stolen = exchange_parameters(token) | by_assertion("mcp2-srv")
    stage.attack(stolen, error=IR, reason="subject_not_for_caller")


@pytest.mark.requirement("POL-01")
def test_who_has_no_permit_redeems_nothing(stage: Stage) -> None:
    parameters = redeem_parameters(good_id_jag(client_id="mcp1-srv")) | by_assertion("mcp1-srv")
    stage.attack(parameters, error=IT, reason="policy_no_permit")
