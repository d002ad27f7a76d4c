"""Group 1H of the attack catalogue, first half: issuing an identity assertion (ID-JAG)."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.model import Purpose, Resource, ResourceAuthorizationServer, Scope, SubjectForm
from broker.oauth import (
    GRANT_TOKEN_EXCHANGE,
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_JAG,
    TOKEN_TYPE_JWT,
    TOKEN_TYPE_REFRESH_TOKEN,
    TOKEN_TYPE_SAML1,
    TOKEN_TYPE_SAML2,
    TYP_ACCESS_TOKEN,
)
from tests.harness import decode_header
from tests.idp import signer
from tests.stage import Stage
from tests.stagehands import Staging
from tests.world import (
    AGENTS,
    IDP_A,
    IDP_B,
    ISS,
    NOW,
    RAS,
    RES_1,
    WIKI,
    Cast,
    Parameters,
    assertion_request,
    by_assertion,
    exchange_parameters,
    good_access_token_claims,
    good_assertion,
    good_id_token,
    good_id_token_claims,
)

IC = "invalid_client"
IR = "invalid_request"
IS = "invalid_scope"
IT = "invalid_target"
UC = "unauthorized_client"

OTHER_RAS = "https://other-ras.test"
NOTES = "https://notes.test/mcp"
XXE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><Assertion>&x;</Assertion>'


def other_server(**changes: Any) -> ResourceAuthorizationServer:
    """A second authorization server, where agent-x is a client too."""
    notes = Resource(NOTES, {"notes.read": Scope("notes.read", frozenset({"notes.read"}))})
    server = ResourceAuthorizationServer(
        OTHER_RAS,
        {"agent-x": "another-name"},
        (replace(notes, authorization_server=OTHER_RAS),),
    )
    return replace(server, **changes)


def for_other(**changes: Any) -> Parameters:
    """A request for an assertion to the second server."""
    asked = {"audience": OTHER_RAS, "resource": NOTES, "scope": "notes.read", **changes}
    return assertion_request(**asked)


def with_ras(**changes: Any) -> Cast:
    """The cast with the first authorization server registered otherwise."""
    return Cast().with_server(replace(Cast().server(RAS), **changes))


def presenting(subject_token: str, **changes: Any) -> Parameters:
    """A request for an assertion of whoever this token is about."""
    return assertion_request(subject_token=subject_token, **changes)


@pytest.mark.requirement("JAG-08", "IDJAG-I-01", "IDJAG-I-06", "IDJAG-I-11", "IDJAG-I-12")
@pytest.mark.requirement("IDJAG-I-14", "IDJAG-I-18", "IDJAG-I-19", "AT-13", "IDJAG-I-02")
def test_an_identity_becomes_an_assertion_for_one_server(stage: Stage) -> None:
    answer = stage.grant(assertion_request())

    header = decode_header(answer.token)
    assert header["typ"] == "oauth-id-jag+jwt"
    assert header["alg"] == "ES256"
    assert answer.fields["issued_token_type"] == TOKEN_TYPE_ID_JAG
    assert answer.fields["token_type"] == "N_A"
    assert answer.fields["expires_in"] == 300
    assert answer.fields["scope"] == "pages.read"
    assert "refresh_token" not in answer.everything
    claims = answer.claims
    assert claims.pop("jti")
    assert claims.pop("txn")
    assert claims == {
        "iss": ISS,
        "sub": "u1",
        "aud": RAS,
        "client_id": "agent-x-at-ras",
        "resource": WIKI,
        "scope": "pages.read",
        "iat": NOW,
        "exp": NOW + 300,
        "auth_time": NOW - 60,
        "acr": "phr",
        "amr": ["hwk"],
    }


@pytest.mark.requirement("JAG-08", "LOG-02")
def test_the_record_says_for_which_server_an_assertion_is(stage: Stage) -> None:
    answer = stage.grant(assertion_request())
    record = stage.broker.records()[-1]
    assert record["authorization_server"] == RAS
    assert record["resource"] == WIKI
    assert record["issued_token_type"] == TOKEN_TYPE_ID_JAG
    assert answer.token not in str(record)


@pytest.mark.requirement("IDJAG-I-02")
def test_a_logical_name_is_resolved_to_the_issuer(staging: Staging) -> None:
    stage = staging(with_ras(names=frozenset({"the-wiki"})))
    assert stage.grant(assertion_request(audience="the-wiki")).claims["aud"] == RAS
    stage.grant(assertion_request(audience=[RAS, RAS]))


@pytest.mark.requirement("JAG-01", "IDJAG-I-08", "IDJAG-I-20", "P-A")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aud": "agent-n"}, "subject_aud_mismatch"),
        ({"azp": "agent-n"}, "subject_aud_mismatch"),
        ({"aud": ["agent-x", "agent-n"]}, "aud_mismatch"),
        ({"aud": ISS}, "subject_aud_mismatch"),
        ({"aud": RAS}, "subject_aud_mismatch"),
        ({"aud": "agent-x-at-ras"}, "subject_aud_mismatch"),
    ],
    ids=str,
)
def test_an_identity_shown_to_somebody_else_is_not_asserted(
    stage: Stage, changes: dict[str, Any], reason: str
) -> None:
    stage.attack(presenting(good_id_token(**changes)), error=IR, reason=reason)


@pytest.mark.requirement("IDJAG-I-08", "IDJAG-I-20")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iat": NOW - 400, "exp": NOW - 30}, "subject_expired"),
        ({"iat": NOW - 400, "exp": NOW - 29}, "born_expired"),
        ({"iat": NOW + 31}, "not_yet_valid"),
        ({"iss": "https://evil.test"}, "iss_unknown"),
        ({"sub": ""}, "claim_malformed"),
        ({"exp": None}, "claim_malformed"),
    ],
    ids=str,
)
def test_a_bad_identity_is_an_invalid_request(
    stage: Stage, changes: dict[str, Any], reason: str
) -> None:
    """One code per slot: a bad subject token is ``invalid_request`` whatever is made of it."""
    stage.attack(presenting(good_id_token(**changes)), error=IR, reason=reason)


@pytest.mark.requirement("IDJAG-I-08")
def test_a_forged_identity_is_refused(stage: Stage) -> None:
    claims = good_id_token_claims()
    stage.attack(presenting(signer("o1").sign(claims, kid="a1")), error=IR, reason="sig_invalid")
    stage.attack(presenting(signer("o1").sign(claims)), error=IR, reason="unknown_key")


@pytest.mark.requirement("JAG-02", "IDJAG-I-09")
@pytest.mark.parametrize("token_type", [TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_JWT])
def test_an_access_token_is_no_identity(stage: Stage, token_type: str) -> None:
    typ = TYP_ACCESS_TOKEN if token_type == TOKEN_TYPE_ACCESS_TOKEN else "JWT"
    token = signer("a1").sign(good_access_token_claims(), typ=typ)
    parameters = presenting(token, subject_token_type=token_type)
    stage.attack(parameters, error=IR, reason="wrong_token_type")


@pytest.mark.requirement("JAG-02", "IDJAG-I-09", "AT-16")
@pytest.mark.parametrize(
    ("extra", "typ"),
    [
        ({}, TYP_ACCESS_TOKEN),
        ({}, "oauth-id-jag+jwt"),
        ({"scope": "a:read"}, "JWT"),
        ({"client_id": "agent-x"}, "JWT"),
        ({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}, "JWT"),
    ],
    ids=str,
)
def test_a_token_that_only_calls_itself_an_identity_is_refused(
    stage: Stage, extra: dict[str, Any], typ: str
) -> None:
    token = signer("a1").sign(good_id_token_claims(**extra), typ=typ)
    stage.attack(presenting(token), error=IR, reason="wrong_token_type")


@pytest.mark.requirement("JAG-02")
def test_a_client_assertion_is_no_identity(stage: Stage) -> None:
    token = good_assertion("agent-x")
    stage.attack(presenting(token), error=IR, reason="iss_unknown")


@pytest.mark.requirement("JAG-03", "IDJAG-I-02", "IDJAG-I-03")
@pytest.mark.parametrize(
    "audience",
    [
        None,
        "",
        "https://unknown-ras.test",
        ISS,
        [RAS, OTHER_RAS],
        [RAS, "https://unknown-ras.test"],
        RAS + "/",
        RAS + "/token",
        RAS.upper(),
        WIKI,
        RES_1,
        "agent-x",
    ],
    ids=str,
)
def test_the_audience_is_one_authorization_server_by_its_issuer(
    staging: Staging, audience: str | list[str] | None
) -> None:
    stage = staging(Cast().with_server(other_server()))
    answers = [
        stage.attack(assertion_request(audience=one), error=IT, reason="jag_audience")
        for one in (audience, None)
    ]
    assert len({(answer.description, str(answer.fields)) for answer in answers}) == 1


@pytest.mark.requirement("JAG-03")
def test_a_disabled_server_is_as_good_as_unknown(staging: Staging) -> None:
    stage = staging(with_ras(is_disabled=True))
    stage.attack(assertion_request(), error=IT, reason="jag_audience")


@pytest.mark.requirement("JAG-03", "IDJAG-I-24")
def test_no_assertion_is_made_for_this_issuer_even_if_it_is_declared(staging: Staging) -> None:
    """Whoever redeems its own assertions has no one to answer to (ID-JAG 9.3)."""
    ourselves = replace(Cast().server(RAS), issuer=ISS)
    stage = staging(Cast().with_server(ourselves))
    stage.attack(assertion_request(audience=ISS), error=IT, reason="jag_audience")


@pytest.mark.requirement("JAG-04", "IDJAG-I-05", "IDJAG-I-04")
@pytest.mark.parametrize("resource", [NOTES, "https://nope.test", RES_1, WIKI + "/", WIKI + "x"])
def test_a_resource_that_the_server_does_not_protect_is_refused(
    staging: Staging, resource: str
) -> None:
    stage = staging(Cast().with_server(other_server()))
    stage.grant(for_other())
    stage.attack(assertion_request(resource=resource), error=IT, reason="target_conflict")


@pytest.mark.requirement("JAG-04", "TEX-06")
def test_a_foreign_resource_looks_like_a_forbidden_one(staging: Staging) -> None:
    second = Resource("https://secret.test", {}, authorization_server=RAS)
    off = Resource("https://old.test", {}, authorization_server=RAS, is_disabled=True)
    resources = (*Cast().server(RAS).resources, second, off)
    stage = staging(with_ras(resources=resources))
    answers = [
        stage.refuse(assertion_request(resource=resource), error=IT, reason=reason)
        for resource, reason in [
            ("https://nope.test", "target_conflict"),
            ("https://secret.test", "policy_no_permit"),
            ("https://old.test", "target_refused"),
        ]
    ]
    assert len({(answer.description, str(answer.fields)) for answer in answers}) == 1


@pytest.mark.requirement("JAG-04", "IDJAG-I-04")
def test_the_resource_may_be_left_out_only_where_there_is_no_choice(staging: Staging) -> None:
    stage = staging(Cast())
    assert stage.grant(assertion_request(resource=None)).claims["resource"] == WIKI
    second = Resource("https://wiki2.test/mcp", {}, authorization_server=RAS)
    several = staging(with_ras(resources=(*Cast().server(RAS).resources, second)))
    several.refuse(assertion_request(resource=None), error=IT, reason="param_missing")
    both = assertion_request(resource=[WIKI, second.resource])
    several.attack(both, error=IT, reason="single_target_only")


@pytest.mark.requirement("IDJAG-I-04", "TEX-07")
@pytest.mark.parametrize("resource", ["wiki", WIKI + "#x", "https://u:p@wiki.test/mcp"])
def test_a_malformed_resource_is_refused(stage: Stage, resource: str) -> None:
    stage.attack(assertion_request(resource=resource), error=IT, reason="target_malformed")


@pytest.mark.requirement("JAG-05", "IDJAG-I-14")
def test_a_client_without_a_name_at_the_server_gets_no_assertion(stage: Stage) -> None:
    """Its name here is never used in place of the one it lacks there."""
    parameters = presenting(good_id_token(aud="agent-n")) | by_assertion("agent-n")
    stage.attack(parameters, error=UC, reason="client_mapping_missing")


@pytest.mark.requirement("JAG-05", "IDJAG-I-14")
def test_each_server_knows_the_client_by_the_name_it_gave(staging: Staging) -> None:
    stage = staging(Cast().with_server(other_server()))
    first = stage.grant(assertion_request()).claims
    elsewhere = stage.grant(for_other()).claims
    assert (first["client_id"], elsewhere["client_id"]) == (
        "agent-x-at-ras",
        "another-name",
    )


@pytest.mark.requirement("JAG-06", "JAG-07", "IDJAG-I-06")
@pytest.mark.parametrize(
    "token_type", [TOKEN_TYPE_REFRESH_TOKEN, TOKEN_TYPE_SAML1, TOKEN_TYPE_SAML2, TOKEN_TYPE_ID_JAG]
)
def test_another_proof_of_identity_is_refused_unread(stage: Stage, token_type: str) -> None:
    parameters = presenting(XXE, subject_token_type=token_type)
    stage.attack(parameters, error=IR, reason="type_unsupported")


@pytest.mark.requirement("IDJAG-I-26")
@pytest.mark.parametrize(
    "extra",
    [
        {"actor_token": good_assertion("agent-x"), "actor_token_type": TOKEN_TYPE_JWT},
        {"actor_token": "x"},
        {"actor_token_type": TOKEN_TYPE_JWT},
    ],
    ids=["both", "token", "type"],
)
def test_an_actor_token_has_no_meaning_here_and_is_refused(
    stage: Stage, extra: dict[str, str]
) -> None:
    stage.attack(assertion_request(**extra), error=IR, reason="param_not_allowed")


@pytest.mark.requirement("IDJAG-I-26", "std:ACT-05")
def test_an_identity_with_a_history_is_refused_not_shortened(staging: Staging) -> None:
    """An assertion has no place for actors; leaving them out would hide who acted."""
    acted = {"act": {"iss": IDP_A, "sub": "somebody"}}
    stage = staging(Cast())
    stage.attack(presenting(good_id_token(**acted)), error=IR, reason="chain_malformed")
    dropping = replace(Cast().issuer(IDP_A), foreign_actors="drop")
    stage = staging(Cast().with_issuer(dropping))
    assert "act" not in stage.grant(presenting(good_id_token(**acted))).claims


@pytest.mark.requirement("sec:ACT-06", "sec:ACT-07")
@pytest.mark.parametrize(
    "may_act", [{"sub": "agent-n"}, {"sub": "agent-x", "role": "x"}, {}, None, "agent-x"], ids=str
)
def test_an_identity_that_another_may_act_for_is_not_asserted(stage: Stage, may_act: Any) -> None:
    claims = {**good_id_token_claims(), "may_act": may_act}
    stage.attack(presenting(signer("a1").sign(claims)), error=IR, reason="may_act_denied")
    stage.grant(presenting(good_id_token(may_act={"sub": "agent-x"})))


@pytest.mark.requirement("IDJAG-I-10", "IDJAG-I-30", "TX-21")
def test_policy_narrows_what_an_assertion_says(stage: Stage) -> None:
    answer = stage.grant(assertion_request(scope="pages.write pages.read"))
    assert answer.claims["scope"] == answer.fields["scope"] == "pages.read"
    assert stage.grant(assertion_request(scope=None)).claims["scope"] == "pages.read"


@pytest.mark.requirement("IDJAG-I-10", "IDJAG-I-30")
@pytest.mark.parametrize(
    ("scope", "reason"),
    [
        ("pages.write", "scope_not_permitted"),
        ("pages.read no:such", "scope_unknown"),
        ("a:read", "scope_unknown"),
        ("pages.read pages.read", "scope_malformed"),
    ],
)
def test_a_scope_that_cannot_be_asserted_is_refused(stage: Stage, scope: str, reason: str) -> None:
    stage.attack(assertion_request(scope=scope), error=IS, reason=reason)


@pytest.mark.requirement("IDJAG-I-10", "POL-01")
def test_who_has_no_permit_gets_no_assertion(staging: Staging) -> None:
    cast = with_ras(client_ids={"agent-x": "x", "impersonator": "i"})
    parameters = presenting(good_id_token(aud="impersonator")) | by_assertion("impersonator")
    staging(cast).attack(parameters, error=IT, reason="policy_no_permit")


@pytest.mark.requirement("IDJAG-I-22", "STEP-03", "TEX-18")
def test_a_weak_login_is_asked_to_step_up_before_it_is_asserted(staging: Staging) -> None:
    careful = replace(Cast().client("agent-s"), groups=AGENTS)
    cast = with_ras(client_ids={"agent-x": "x", "agent-s": "s"}).with_client(careful)
    stage = staging(cast)

    def parameters(**changes: Any) -> Parameters:
        token = good_id_token(aud="agent-s", **changes)
        return presenting(token) | by_assertion("agent-s")

    stage.grant(parameters())
    answer = stage.attack(
        parameters(acr="pwd"),
        error="insufficient_user_authentication",
        reason="step_up_required",
    )
    if stage.face.name == "http":
        assert (answer.fields["acr_values"], answer.fields["max_age"]) == ("phr", 900)
    # No login would help with a scope that is not for this client at all.
    hopeless = parameters(acr="pwd") | {"scope": "pages.write"}
    assert not stage.ask(hopeless).is_granted
    assert stage.broker.records()[-1]["error"] != "insufficient_user_authentication"


@pytest.mark.requirement("IDJAG-I-13", "IDJAG-I-15")
def test_each_server_is_told_a_pseudonym_of_its_own(staging: Staging) -> None:
    pairwise = other_server(subject_form=SubjectForm.PAIRWISE)
    cast = with_ras(subject_form=SubjectForm.PAIRWISE).with_server(pairwise)
    stage = staging(cast)

    def sub(parameters: Parameters) -> Any:
        claims = stage.grant(parameters).claims
        assert "somebody" not in str(claims)
        assert "email" not in claims
        return claims["sub"]

    def identity(name: str = "somebody") -> dict[str, str]:
        return {"subject_token": good_id_token(sub=name, email="somebody@idp-a.test")}

    here, there = sub(assertion_request(**identity())), sub(for_other(**identity()))
    assert here != there
    assert here == sub(assertion_request(**identity()))
    assert sub(assertion_request(**identity("somebody else"))) not in (here, there)


@pytest.mark.requirement("IDJAG-I-13")
def test_a_listed_user_is_called_as_the_server_calls_him(staging: Staging) -> None:
    mapped = with_ras(subject_form=SubjectForm.MAPPED, subjects={"u1": "ursula"})
    stage = staging(mapped)
    assert stage.grant(assertion_request()).claims["sub"] == "ursula"
    unlisted = presenting(good_id_token(sub="u2"))
    stage.refuse(unlisted, error=IR, reason="subject_unresolved")


@pytest.mark.requirement("IDJAG-I-15")
def test_an_address_is_told_only_to_servers_that_are_to_know_it(staging: Staging) -> None:
    told = with_ras(has_email=True)
    address = good_id_token(email="u1@idp-a.test", email_verified=True)
    assert "email" not in staging(Cast()).grant(presenting(address)).claims
    stage = staging(told)
    assert stage.grant(presenting(address)).claims["email"] == "u1@idp-a.test"
    for odd in ({"email_verified": False}, {"email": 1}, {"email": "a\nb"}, {"email": "e" * 300}):
        token = good_id_token(**{"email": "u1@idp-a.test", **odd})
        assert "email" not in stage.grant(presenting(token)).claims


@pytest.mark.requirement("IDJAG-I-16", "TX-23")
def test_equal_subjects_of_two_tenants_stay_two_people(staging: Staging) -> None:
    several = replace(Cast().issuer(IDP_A), is_multi_tenant=True)
    stage = staging(with_ras(tenant="ours-there").with_issuer(several))

    def claims(tenant: str) -> Any:
        return stage.grant(presenting(good_id_token(tenant=tenant))).claims

    acme, globex = claims("acme"), claims("globex")
    assert (acme["tenant"], globex["tenant"]) == ("acme", "globex")
    assert (acme["sub"], globex["sub"]) == ("acme/u1", "globex/u1")
    assert acme["aud_tenant"] == globex["aud_tenant"] == "ours-there"


@pytest.mark.requirement("IDJAG-I-16")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "subject_unresolved"),
        ({"tenant": ""}, "claim_malformed"),
        ({"tenant": 1}, "claim_malformed"),
        ({"tenant": ["acme"]}, "claim_malformed"),
        ({"tenant": "acme/u1"}, "claim_malformed"),
        ({"tenant": "a\u200bcme"}, "claim_malformed"),
    ],
    ids=ascii,
)
def test_an_issuer_of_several_tenants_must_say_which(
    staging: Staging, changes: dict[str, Any], reason: str
) -> None:
    several = replace(Cast().issuer(IDP_A), is_multi_tenant=True)
    stage = staging(Cast().with_issuer(several))
    stage.refuse(presenting(good_id_token(**changes)), error=IR, reason=reason)
    as_login = exchange_parameters(good_id_token(**changes), resource=RES_1, scope="a:read")
    as_login |= {"subject_token_type": str(assertion_request()["subject_token_type"])}
    stage.refuse(as_login | by_assertion("agent-x"), error=IR, reason=reason)


@pytest.mark.requirement("sec:ACT-11")
def test_an_agent_of_one_tenant_asserts_no_user_of_another(staging: Staging) -> None:
    agent = replace(Cast().client("agent-x"), tenant="t1")
    stage = staging(Cast().with_client(agent))
    stage.refuse(assertion_request(), error=IR, reason="tenant_mismatch")


@pytest.mark.requirement("IDJAG-I-19", "AT-15", "CC-13")
@pytest.mark.parametrize("longest", [timedelta(minutes=5), timedelta(seconds=20)])
def test_an_assertion_lives_for_minutes_and_not_beyond_the_identity(
    staging: Staging, longest: timedelta
) -> None:
    stage = staging(replace(Cast(), id_jag_lifetime=longest, lifetime=timedelta(minutes=10)))
    seconds = int(longest.total_seconds())
    assert stage.grant(assertion_request()).fields["expires_in"] == seconds
    soon = presenting(good_id_token(exp=NOW + 11))
    assert stage.grant(soon).claims["exp"] == NOW + 11


@pytest.mark.requirement("IDJAG-I-28", "JAG-19", "RAR-06")
@pytest.mark.parametrize(
    "details",
    ["x", "{}", "[]", '[{"type":"unknown"}]', "[" * 2000 + "]" * 2000, '[{"type":"x"', "null"],
    ids=lambda text: text[:20],
)
def test_authorization_details_are_refused_never_dropped(stage: Stage, details: str) -> None:
    """The gRPC message has no place for them, which is the same answer."""
    if stage.face.name == "http":
        stage.attack(
            assertion_request(authorization_details=details),
            error="invalid_authorization_details",
            reason="rar_invalid",
        )


@pytest.mark.requirement("IDJAG-I-29", "CAU-01")
def test_an_identity_alone_authenticates_no_client(stage: Stage) -> None:
    nobody = {"client_assertion": None, "client_assertion_type": None}
    stage.attack(assertion_request(**nobody), error=IC, reason="client_auth_missing")
    named = assertion_request(**nobody, client_id="agent-x")
    stage.attack(named, error=IC, reason="client_auth_missing")


@pytest.mark.requirement("IDJAG-I-25", "IDJAG-R-21", "JAG-20", "CC-14")
def test_the_metadata_offers_assertions_and_names_nobody(stage: Stage) -> None:
    document = stage.face.metadata()
    assert TOKEN_TYPE_ID_JAG in document["identity_chaining_requested_token_types_supported"]
    assert GRANT_TOKEN_EXCHANGE in document["grant_types_supported"]
    text = str(document)
    for name in (IDP_A, IDP_B, RAS, WIKI, RES_1, "agent-x"):
        assert name not in text


@pytest.mark.requirement("KEY-16", "JAG-01")
def test_a_workload_issuer_vouches_for_no_user_to_another_server(stage: Stage) -> None:
    token = signer("b1", "RS256").sign(good_id_token_claims(iss=IDP_B))
    stage.attack(presenting(token), error=IR, reason="issuer_not_for_purpose")


@pytest.mark.requirement("KEY-16")
def test_an_issuer_of_assertions_alone_has_no_users_to_log_in(staging: Staging) -> None:
    only = replace(Cast().issuer(IDP_A), purposes=frozenset({Purpose.ID_JAG}))
    stage = staging(Cast().with_issuer(only))
    stage.refuse(assertion_request(), error=IR, reason="issuer_not_for_purpose")


@pytest.mark.requirement("JAG-17", "KEY-14")
def test_a_disabled_issuer_has_no_users_to_assert(staging: Staging) -> None:
    stage = staging(Cast().with_issuer(replace(Cast().issuer(IDP_A), is_disabled=True)))
    stage.refuse(assertion_request(), error=IR, reason="issuer_disabled")


@pytest.mark.requirement("JAG-17", "TEX-16")
def test_a_disabled_user_is_not_asserted(staging: Staging) -> None:
    stage = staging(replace(Cast(), disabled_subjects=frozenset({"u2"})))
    stage.attack(presenting(good_id_token(sub="u2")), error=IR, reason="principal_disabled")
    stage.grant(assertion_request())


@pytest.mark.requirement("JAG-17", "CAU-15")
def test_a_disabled_client_asserts_nobody(staging: Staging) -> None:
    off = replace(Cast().client("agent-x"), is_disabled=True)
    stage = staging(Cast().with_client(off))
    stage.refuse(assertion_request(), error=IC, reason="client_disabled")


@pytest.mark.requirement("JAG-02", "TEX-02")
@pytest.mark.parametrize("missing", ["subject_token", "subject_token_type"])
def test_without_an_identity_there_is_nothing_to_assert(stage: Stage, missing: str) -> None:
    stage.attack(assertion_request(**{missing: None}), error=IR, reason="param_missing")


@pytest.mark.requirement("TEX-05", "IDJAG-I-01")
def test_an_access_token_is_made_unless_an_assertion_is_asked_for(stage: Stage) -> None:
    """Without the type the audience is a name of a resource, and no such one is known."""
    parameters = assertion_request(requested_token_type=None)
    stage.attack(parameters, error=IT, reason="target_conflict")
