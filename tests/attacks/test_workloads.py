"""Workloads that present the tokens of their platform (WIF), and all that must not pass for one."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.model import Client, Purpose, TrustedIssuer, WorkloadRule
from broker.oauth import (
    GRANT_CLIENT_CREDENTIALS,
    TOKEN_TYPE_ID_TOKEN,
    TOKEN_TYPE_JWT,
    TYP_ACCESS_TOKEN,
    TYP_CLIENT_AUTHENTICATION,
    TYP_ID_JAG,
)
from tests.harness import basic
from tests.idp import Signer, signer
from tests.stage import Stage
from tests.stagehands import Staging
from tests.world import (
    AGENTS,
    IDP_A,
    IDP_B,
    ISS,
    NOW,
    RES_1,
    Cast,
    assertion_request,
    by_assertion,
    client_parameters,
    exchange_parameters,
    good_assertion,
    good_id_jag,
    good_id_jag_claims,
    good_id_token,
    good_workload_claims,
    good_workload_token,
    redeem_parameters,
    workload_parameters,
)

IC = "invalid_client"
IG = "invalid_grant"
CLUSTER = signer("b1", "RS256")


def attack(stage: Stage, token: str, reason: str) -> None:
    """The token as the assertion of a caller that has nothing else, between two that pass."""
    stage.grant(workload_parameters())
    stage.refuse(workload_parameters(token), error=IG, reason=reason)
    stage.grant(workload_parameters())


def with_cluster(**changes: Any) -> Cast:
    """The cast with the cluster's registration changed."""
    return Cast().with_issuer(replace(Cast().issuer(IDP_B), **changes))


def with_rules(*rules: tuple[str, Mapping[str, str]]) -> Cast:
    """The cast with other rules about who is who in the cluster."""
    return with_cluster(workloads=tuple(WorkloadRule(client, claims) for client, claims in rules))


# ---- what a workload gets


@pytest.mark.requirement("WIF-01", "WIF-02", "WIF-04")
def test_a_workload_gets_a_token_for_itself(stage: Stage) -> None:
    answer = stage.grant(workload_parameters())

    assert answer.claims["sub"] == "client:worker"
    assert answer.claims["client_id"] == "worker"
    assert answer.claims["aud"] == RES_1
    assert answer.claims["scope"] == "a:read"
    assert "act" not in answer.claims
    assert "refresh_token" not in answer.fields


@pytest.mark.requirement("WIF-01")
def test_the_record_names_the_platform_and_its_token(stage: Stage) -> None:
    token = good_workload_token(jti="pod-7")
    stage.grant(workload_parameters(token))
    record = stage.broker.records()[-1]

    assert record["auth_method"] == "workload_identity"
    assert record["client_id"] == "worker"
    assert [(one["slot"], one["issuer"], one["jti"]) for one in record["inputs"]] == [
        ("assertion", IDP_B, "pod-7")
    ]
    assert token not in str(record)


@pytest.mark.requirement("WIF-03")
@pytest.mark.parametrize(
    "audience", [ISS, [ISS], ISS + "/", [ISS + "/"], ISS + "/token", [ISS + "/token"]], ids=str
)
def test_the_issuer_and_the_token_endpoint_are_audiences(stage: Stage, audience: Any) -> None:
    """The draft says the one, its conformance tests say the other; both are this broker alone."""
    stage.grant(workload_parameters(good_workload_token(aud=audience)))


@pytest.mark.requirement("WIF-04")
@pytest.mark.parametrize("remaining", [1, 60, 299])
def test_a_token_dies_with_the_one_that_it_was_given_for(stage: Stage, remaining: int) -> None:
    claims = stage.grant(workload_parameters(good_workload_token(exp=NOW + remaining))).claims

    assert claims["exp"] == NOW + remaining


@pytest.mark.requirement("WIF-07")
def test_a_platform_hands_out_one_token_many_times(stage: Stage) -> None:
    for token in (good_workload_token(), good_workload_token(jti=None)):
        for _ in range(3):
            stage.grant(workload_parameters(token))
    assert stage.broker.spent_count() == 0


def test_an_equal_client_id_beside_the_token_says_nothing_new(stage: Stage) -> None:
    stage.grant(workload_parameters(client_id="worker"))


# ---- times and audiences


@pytest.mark.requirement("WIF-03", "CLM-07")
@pytest.mark.parametrize(
    "audience",
    [
        "https://kubernetes.default.svc.cluster.local",
        [ISS, "https://kubernetes.default.svc.cluster.local"],
        [ISS, ISS],
        ISS + "//",
        ISS + "/token/",
        ISS + "/introspect",
        ISS.upper(),
        ISS + ":443",
        "worker",
        None,
        [],
    ],
    ids=str,
)
def test_a_token_for_somebody_else_is_refused(stage: Stage, audience: Any) -> None:
    attack(stage, good_workload_token(aud=audience), "aud_mismatch")


@pytest.mark.requirement("WIF-02")
@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        ("iss", "iss_unknown"),
        ("sub", "claim_malformed"),
        ("aud", "aud_mismatch"),
        ("iat", "claim_malformed"),
        ("exp", "claim_malformed"),
    ],
)
def test_a_token_that_lacks_a_claim_is_refused(stage: Stage, claim: str, reason: str) -> None:
    attack(stage, good_workload_token(**{claim: None, "nbf": None}), reason)


@pytest.mark.requirement("WIF-02", "CLM-04")
def test_a_platform_is_held_to_the_lifetime_that_is_registered_for_it(staging: Staging) -> None:
    stage = staging(with_cluster(max_token_lifetime=timedelta(minutes=10)))
    attack(stage, good_workload_token(exp=NOW + 601), "lifetime_too_long")
    attack(stage, good_workload_token(iat=NOW - 1, exp=NOW + 600), "lifetime_too_long")


@pytest.mark.requirement("WIF-02", "CLM-06")
@pytest.mark.parametrize("past", [0, 29])
def test_leeway_gives_a_workload_nothing(stage: Stage, past: int) -> None:
    attack(stage, good_workload_token(iat=NOW - 600, exp=NOW - past), "born_expired")


# ---- which workload is which client


@pytest.mark.requirement("WIF-02", "WIF-05")
@pytest.mark.parametrize(
    "changes",
    [
        {"sub": "system:serviceaccount:prod:other"},
        {"sub": "system:serviceaccount:prod:worker2"},
        {"kubernetes.io": {"namespace": "dev"}},
        {"kubernetes.io": {"namespace": ["dev"]}},
        {"kubernetes.io": "prod"},
        {"kubernetes.io": None},
        {"kubernetes.io": None, "/kubernetes.io/namespace": "prod"},
        {"kubernetes.io": None, "kubernetes.io/namespace": "prod"},
    ],
    ids=str,
)
def test_a_workload_that_no_rule_names_is_nobody(stage: Stage, changes: dict[str, Any]) -> None:
    attack(stage, good_workload_token(**changes), "workload_unknown")


@pytest.mark.requirement("WIF-02", "WIF-05")
def test_a_workload_that_two_clients_could_be_is_neither(staging: Staging) -> None:
    namespace = {"/kubernetes.io/namespace": "prod"}
    stage = staging(
        with_rules(("worker", {"/kubernetes.io/pod/name": "a"}), ("agent-x", namespace))
    )
    both = good_workload_claims()
    both["kubernetes.io"] = {"namespace": "prod", "pod": {"name": "a"}}
    stage.grant(workload_parameters())
    stage.refuse(workload_parameters(CLUSTER.sign(both)), error=IG, reason="workload_unknown")


@pytest.mark.requirement("WIF-04")
@pytest.mark.parametrize(
    ("rule", "error", "reason"),
    [
        ("nobody", IG, "workload_unknown"),
        ("off-srv", IG, "client_disabled"),
        ("no-grants", "unauthorized_client", "grant_not_allowed"),
    ],
)
def test_a_rule_gives_no_more_than_its_client_has(
    staging: Staging, rule: str, error: str, reason: str
) -> None:
    stage = staging(with_rules((rule, {"sub": "system:serviceaccount:prod:worker"})))
    stage.attack(workload_parameters(), error=error, reason=reason)


@pytest.mark.requirement("WIF-05")
@pytest.mark.parametrize(("tenant", "is_granted"), [("t1", True), ("t2", False), (None, False)])
def test_a_tenants_platform_speaks_for_the_tenants_clients_alone(
    staging: Staging, tenant: str | None, *, is_granted: bool
) -> None:
    worker = replace(Cast().client("worker"), tenant=tenant)
    stage = staging(with_cluster(tenant="t1").with_client(worker))
    if is_granted:
        stage.grant(workload_parameters())
    else:
        stage.attack(workload_parameters(), error=IG, reason="tenant_mismatch")


@pytest.mark.requirement("WIF-06")
@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"scope": "nobody:knows"}, "invalid_scope", "scope_unknown"),
        ({"scope": "b:admin"}, "invalid_scope", "scope_not_permitted"),
        ({"resource": "https://closed.test/v1"}, "invalid_target", "policy_no_permit"),
        ({"resource": "https://nowhere.test"}, "invalid_target", "target_unknown"),
        ({"client_id": "agent-x"}, IC, "client_id_mismatch"),
    ],
    ids=str,
)
def test_a_workload_gets_no_more_than_policy_permits(
    stage: Stage, changes: dict[str, str], error: str, reason: str
) -> None:
    stage.attack(workload_parameters(**changes), error=error, reason=reason)


# ---- issuers: each for its own kind


@pytest.mark.requirement("IDJAG-R-31", "KEY-16")
def test_an_issuer_of_users_vouches_for_no_workload(staging: Staging) -> None:
    """Even where a rule stands by, since somebody forgot to take it away with the purpose."""
    rules = (WorkloadRule("worker", {"sub": "u1"}),)
    stage = staging(Cast().with_issuer(replace(Cast().issuer(IDP_A), workloads=rules)))
    claims = good_workload_claims(iss=IDP_A, sub="u1")
    attack(stage, signer("a1").sign(claims), "issuer_not_for_purpose")
    attack(stage, good_id_token(), "issuer_not_for_purpose")


@pytest.mark.requirement("IDJAG-R-31", "KEY-16")
@pytest.mark.parametrize("purpose", [Purpose.USER, Purpose.ACCESS_TOKEN, Purpose.ID_JAG])
def test_no_other_purpose_makes_an_issuer_one_of_workloads(
    staging: Staging, purpose: Purpose
) -> None:
    stage = staging(with_cluster(purposes=frozenset({purpose})))
    stage.attack(workload_parameters(), error=IG, reason="issuer_not_for_purpose")


@pytest.mark.requirement("IDJAG-R-31", "KEY-16")
def test_an_issuer_of_workloads_vouches_for_no_user(stage: Stage) -> None:
    user = good_workload_claims(sub="u1", aud="agent-x")
    stage.attack(
        assertion_request(subject_token=CLUSTER.sign(user)),
        error="invalid_request",
        reason="issuer_not_for_purpose",
    )
    stage.attack(
        redeem_parameters(CLUSTER.sign(good_id_jag_claims(iss=IDP_B), typ=TYP_ID_JAG)),
        error=IG,
        reason="issuer_not_for_purpose",
    )
    for token_type in (TOKEN_TYPE_JWT, TOKEN_TYPE_ID_TOKEN):
        parameters = exchange_parameters(
            CLUSTER.sign(user), subject_token_type=token_type, resource=RES_1, scope="a:read"
        )
        stage.refuse(
            parameters | by_assertion("agent-x"),
            error="invalid_request",
            reason="issuer_not_for_purpose",
        )


@pytest.mark.requirement("IDJAG-R-31", "JWS-18")
def test_one_issuer_may_do_both_and_keeps_them_apart(staging: Staging) -> None:
    both = frozenset({Purpose.WORKLOAD, Purpose.ID_JAG})
    stage = staging(with_cluster(purposes=both))
    assertion = good_id_jag_claims(iss=IDP_B)
    stage.grant(workload_parameters())
    stage.grant(redeem_parameters(CLUSTER.sign(assertion, typ=TYP_ID_JAG)))
    stage.refuse(redeem_parameters(good_workload_token()), error=IG, reason="wrong_token_type")
    stage.refuse(
        workload_parameters(CLUSTER.sign(assertion, typ=TYP_ID_JAG)),
        error=IC,
        reason="client_auth_missing",
    )
    stage.refuse(workload_parameters(CLUSTER.sign(assertion)), error=IG, reason="wrong_token_type")


@pytest.mark.requirement("KEY-14")
def test_a_platform_that_is_switched_off_is_refused(staging: Staging) -> None:
    stage = staging(with_cluster(is_disabled=True))
    stage.attack(workload_parameters(), error=IG, reason="issuer_disabled")


@pytest.mark.requirement("KEY-14", "CAU-15")
def test_switching_off_ends_what_worked_a_moment_ago(stage: Stage) -> None:
    token = good_workload_token()
    worker = replace(Cast().client("worker"), is_disabled=True)
    for cast, reason in [
        (with_cluster(is_disabled=True), "issuer_disabled"),
        (with_cluster(purposes=frozenset({Purpose.USER})), "issuer_not_for_purpose"),
        (with_cluster(workloads=()), "workload_unknown"),
        (Cast().with_client(worker), "client_disabled"),
    ]:
        stage.broker.replace_cast(Cast())
        stage.grant(workload_parameters(token))
        stage.broker.replace_cast(cast)
        stage.refuse(workload_parameters(token), error=IG, reason=reason)


@pytest.mark.requirement("WIF-02", "KEY-15")
@pytest.mark.parametrize(
    "issuer",
    ["https://evil.test", IDP_B + "/", IDP_B.upper(), "", ISS, 1, [IDP_B], {}],
    ids=str,
)
def test_a_platform_that_is_not_registered_is_refused(stage: Stage, issuer: Any) -> None:
    attack(stage, good_workload_token(iss=issuer), "iss_unknown")


@pytest.mark.requirement("KEY-12", "KEY-13")
@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (signer("a1"), "alg_not_allowed"),
        (Signer("b1", "RS256", signer("other", "RS256").private_key), "sig_invalid"),
        (signer("other", "RS256"), "unknown_key"),
    ],
    ids=["of another issuer", "under its id", "of nobody"],
)
def test_a_token_signed_by_somebody_else_is_refused(stage: Stage, key: Signer, reason: str) -> None:
    attack(stage, key.sign(good_workload_claims()), reason)


# ---- other tokens in this place, and this token in other places


@pytest.mark.requirement("CC-12")
@pytest.mark.parametrize("audience", [ISS, ISS + "/token"])
def test_a_client_vouches_for_itself_by_no_grant(stage: Stage, audience: str) -> None:
    """Some documentation shows this in place of a client assertion; it is no grant here."""
    attack(stage, good_assertion("agent-x", aud=audience), "iss_unknown")
    typed = signer("agent-x").sign(
        {"iss": "agent-x", "sub": "agent-x", "aud": audience}, typ=TYP_CLIENT_AUTHENTICATION
    )
    attack(stage, typed, "wrong_token_type")


@pytest.mark.requirement("JWS-18", "IDJAG-R-31")
@pytest.mark.parametrize(
    "claims",
    [
        {"scope": "a:read"},
        {"scope": ""},
        {"scp": "a:read"},
        {"client_id": "worker"},
        {"act": {"sub": "x"}},
        {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
    ],
    ids=str,
)
def test_a_token_that_is_of_another_kind_by_its_claims_is_refused(
    stage: Stage, claims: dict[str, Any]
) -> None:
    attack(stage, good_workload_token(**claims), "wrong_token_type")


@pytest.mark.requirement("JWS-18")
def test_a_token_of_ours_is_no_workloads(stage: Stage) -> None:
    own = stage.grant(workload_parameters()).token
    attack(stage, own, "wrong_token_type")
    relabelled = CLUSTER.sign(good_workload_claims(iss=ISS), typ=TYP_ACCESS_TOKEN)
    attack(stage, relabelled, "wrong_token_type")


@pytest.mark.requirement("CAU-01", "IDJAG-R-01", "IDJAG-R-31")
def test_an_identity_assertion_authenticates_no_client(stage: Stage) -> None:
    nobody = {"client_assertion": None, "client_assertion_type": None}
    stage.attack(redeem_parameters(**nobody), error=IC, reason="client_auth_missing")
    stage.attack(
        redeem_parameters(good_id_jag(), **nobody, client_id="agent-x"),
        error=IC,
        reason="client_auth_missing",
    )


@pytest.mark.requirement("JAG-09", "CAU-02", "IDJAG-R-31")
def test_a_workloads_token_beside_a_clients_credential_is_refused(stage: Stage) -> None:
    for client_id in ("agent-x", "mcp1-srv"):
        parameters = redeem_parameters(good_workload_token(), **by_assertion(client_id))
        stage.attack(parameters, error=IG, reason="wrong_token_type")


@pytest.mark.requirement("CAU-01")
def test_a_workloads_token_is_a_credential_at_its_grant_alone(stage: Stage) -> None:
    nobody = {"client_assertion": None, "client_assertion_type": None}
    token = good_workload_token()
    stage.attack(client_parameters(**nobody), error=IC, reason="client_auth_missing")
    if stage.face.name == "http":
        parameters = workload_parameters(token, grant_type=GRANT_CLIENT_CREDENTIALS)
        stage.attack(parameters, error=IC, reason="client_auth_missing")
    as_client = {**by_assertion("agent-x"), "client_assertion": token}
    stage.attack(client_parameters(**as_client), error=IC, reason="claim_inconsistent")


@pytest.mark.requirement("CAU-09", "CAU-12")
def test_a_client_that_rules_speak_for_has_no_other_way_in(stage: Stage) -> None:
    posted = {"client_id": "worker", "client_secret": "x"}
    for parameters, authorization in [
        (redeem_parameters(**by_assertion("worker")), ()),
        (workload_parameters(**posted), ()),
        (workload_parameters(), (basic("worker", "x"),)),
        (workload_parameters(), (basic("worker", ""),)),
    ]:
        stage.refuse(parameters, *authorization, error=IC, reason="auth_method_refused")


@pytest.mark.requirement("CAU-01")
def test_a_workload_without_a_token_is_nobody(stage: Stage) -> None:
    for assertion in (None, " "):
        parameters = workload_parameters() | {"assertion": assertion or ""}
        stage.attack(parameters, error=IC, reason="client_auth_missing")


@pytest.mark.requirement("WIF-02")
@pytest.mark.parametrize(
    "confirmation", [{"jkt": "A" * 43}, {"x5t#S256": "x"}, {"jwk": {}}, {}, None, "x"], ids=str
)
def test_a_token_that_is_bound_to_a_key_is_refused(stage: Stage, confirmation: Any) -> None:
    claims = {**good_workload_claims(), "cnf": confirmation}
    attack(stage, CLUSTER.sign(claims), "cnf_unsupported")


@pytest.mark.requirement("WIF-06", "IDJAG-R-25")
@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("x", "malformed_token"),
        ("a.b.c", "malformed_token"),
        ("e30.e30.", "alg_not_allowed"),
        ("a.b.c.d.e", "jwe_refused"),
        ("A" * 20_000, "token_too_large"),
    ],
    ids=range(5),
)
def test_what_is_no_token_is_a_bad_grant(stage: Stage, token: str, reason: str) -> None:
    attack(stage, token, reason)


# ---- tokens that may be used once


def once() -> Cast:
    return with_cluster(is_single_use=True)


@pytest.mark.requirement("WIF-07", "RPL-01")
def test_a_token_is_used_once_where_the_platform_is_registered_so(staging: Staging) -> None:
    stage = staging(once())
    token = good_workload_token()
    stage.grant(workload_parameters(token))
    stage.attack(workload_parameters(token), error=IG, reason="replay")
    stage.broker.clock.at += 300
    assert stage.ask(workload_parameters(token)).error == IG
    assert stage.broker.records()[-1]["reason"] == "replay"


@pytest.mark.requirement("WIF-07", "CLM-12")
def test_a_token_without_an_id_cannot_be_used_once(staging: Staging) -> None:
    attack(staging(once()), good_workload_token(jti=None), "claim_malformed")


@pytest.mark.requirement("WIF-07", "CAU-07")
def test_a_refused_request_leaves_the_token_unused(staging: Staging) -> None:
    stage = staging(once())
    token = good_workload_token()
    stage.refuse(
        workload_parameters(token, scope="b:admin"),
        error="invalid_scope",
        reason="scope_not_permitted",
    )
    stage.grant(workload_parameters(token))


@pytest.mark.requirement("WIF-07", "RPL-11")
def test_equal_ids_of_two_platforms_are_two_ids(staging: Staging) -> None:
    other = TrustedIssuer(
        "https://other.test",
        frozenset({Purpose.WORKLOAD}),
        frozenset({"ES256"}),
        replace(Cast().issuer(IDP_A).keys, jwks=signer("other").jwks),
        is_single_use=True,
        workloads=(WorkloadRule("twin", {"sub": "twin"}),),
    )
    twin = Client("twin", frozenset(), Cast().client("worker").grants, groups=AGENTS)
    stage = staging(once().with_issuer(other).with_client(twin))
    stage.grant(workload_parameters(good_workload_token(jti="same")))
    claims = good_workload_claims(iss=other.issuer, sub="twin", jti="same")
    stage.grant(workload_parameters(signer("other").sign(claims)))
    stage.grant(redeem_parameters(good_id_jag(jti="same")))
