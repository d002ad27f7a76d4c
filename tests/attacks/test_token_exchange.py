"""Group 1F of the attack catalogue: token exchange, and the TX rows of the protocol."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.model import ExplainRequest, Purpose, RequestContext, TrustedIssuer, new_request_id
from broker.oauth import (
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_JAG,
    TOKEN_TYPE_ID_TOKEN,
    TOKEN_TYPE_JWT,
    TOKEN_TYPE_REFRESH_TOKEN,
    TOKEN_TYPE_SAML1,
    TOKEN_TYPE_SAML2,
    TYP_ACCESS_TOKEN,
)
from broker.rpc.call import CallMetadata
from broker.rpc.token_service import read_exchange
from tests.harness import decode_claims, exchange_message
from tests.idp import signer
from tests.stage import Stage
from tests.stagehands import Staging, every_exchange
from tests.world import (
    API,
    CLOSED,
    IDP_A,
    IDP_B,
    ISS,
    MCP_CLAIM,
    NOW,
    OFF,
    RES_1,
    RES_2,
    Cast,
    Parameters,
    by_assertion,
    exchange_parameters,
    good_access_token,
    good_access_token_claims,
    good_id_token,
    good_id_token_claims,
)

face_name = every_exchange

IR = "invalid_request"
IT = "invalid_target"
IS = "invalid_scope"


def from_id_token(client: str = "agent-x", **changes: Any) -> Parameters:
    parameters = exchange_parameters(
        good_id_token(aud=client),
        **{"subject_token_type": TOKEN_TYPE_ID_TOKEN, "resource": RES_1, "scope": None, **changes},
    )
    return parameters | by_assertion(client)


def own_token(stage: Stage, **changes: Any) -> str:
    """A token of this broker for RES-1, issued to agent-x on behalf of u1."""
    return stage.grant(from_id_token(**changes)).token


def tx(subject_token: str, client: str = "mcp1-srv", **changes: Any) -> Parameters:
    return exchange_parameters(subject_token, **changes) | by_assertion(client)


@pytest.mark.requirement("TX-12", "AT-03", "AT-04", "AT-05", "AT-07", "TEX-22")
def test_an_exchange_gives_a_complete_answer(stage: Stage) -> None:
    subject_token = own_token(stage)
    answer = stage.grant(tx(subject_token))
    assert answer.fields["token_type"] == "Bearer"
    assert answer.fields["expires_in"] == 300
    assert "refresh_token" not in answer.fields
    if stage.face.name == "http":
        assert answer.fields["issued_token_type"] == TOKEN_TYPE_ACCESS_TOKEN
    claims = answer.claims
    assert claims["iss"] == ISS
    assert claims["sub"] == "u1"
    assert claims["aud"] == API
    assert claims["client_id"] == "mcp1-srv"
    assert claims["scope"] == "b:read"
    assert (claims["iat"], claims["exp"]) == (NOW, NOW + 300)
    assert claims[MCP_CLAIM] == {
        "client": "agent-x",
        "server": RES_1,
        "resource": API,
        "subject_issuer": IDP_A,
        "lineage": [decode_claims(subject_token)["jti"]],
    }


@pytest.mark.requirement("TX-20")
def test_a_subject_token_need_not_name_the_broker(stage: Stage) -> None:
    stage.grant(tx(good_access_token(aud=RES_1)))


@pytest.mark.requirement("TEX-01", "TX-19")
def test_a_token_addressed_to_another_server_is_refused(stage: Stage) -> None:
    """The confused deputy: server two shows what was given to server one."""
    for token in (own_token(stage), good_access_token()):
        stage.attack(tx(token, "mcp2-srv"), error=IR, reason="subject_not_for_caller")


@pytest.mark.requirement("TEX-01")
def test_a_token_issued_to_another_agent_is_refused(stage: Stage) -> None:
    token = own_token(stage)
    stage.attack(tx(token, "agent-n", resource=RES_1), error=IR, reason="subject_not_for_caller")


@pytest.mark.requirement("TEX-01")
def test_a_foreign_client_id_proves_nothing_here(stage: Stage) -> None:
    """IDP-A calls its client agent-n; that is not our agent-n."""
    token = good_access_token(client_id="agent-n")
    stage.attack(tx(token, "agent-n", resource=RES_1), error=IR, reason="subject_not_for_caller")


@pytest.mark.requirement("TEX-02", "TX-02")
@pytest.mark.parametrize(
    "changes",
    [
        {"subject_token": None},
        {"subject_token": ""},
        {"subject_token": "   "},
        {"subject_token_type": None},
        {"subject_token_type": ""},
    ],
    ids=str,
)
def test_a_missing_subject_token_is_refused(stage: Stage, changes: dict[str, Any]) -> None:
    stage.attack(stage.good(**changes), error=IR, reason="param_missing")


@pytest.mark.requirement("TEX-03")
@pytest.mark.parametrize("name", ["assertion", "code", "refresh_token", "username"])
def test_an_exchange_takes_no_parameters_of_other_grants(stage: Stage, name: str) -> None:
    """The gRPC message has no place for these, which is the same answer."""
    if stage.face.name == "http":
        stage.attack(stage.good(**{name: "x"}), error=IR, reason="param_not_allowed")


@pytest.mark.requirement("CA-03")
def test_an_unknown_grant_is_unsupported(stage: Stage) -> None:
    if stage.face.name == "http":
        for grant_type in ("password", "authorization_code", "x"):
            stage.attack(
                stage.good(grant_type=grant_type),
                error="unsupported_grant_type",
                reason="grant_unsupported",
            )
        stage.attack(stage.good(grant_type=None), error=IR, reason="param_missing")


def _mislabelled() -> list[Any]:
    access, identity = good_access_token_claims, good_id_token_claims
    a = signer("a1")
    return [
        pytest.param(a.sign(identity()), TOKEN_TYPE_ACCESS_TOKEN, id="id-token-as-access-token"),
        pytest.param(
            a.sign(identity(), typ="oauth-id-jag+jwt"), TOKEN_TYPE_JWT, id="id-jag-as-jwt"
        ),
        pytest.param(
            a.sign(access(), typ=TYP_ACCESS_TOKEN), TOKEN_TYPE_ID_TOKEN, id="at-as-id-token"
        ),
        pytest.param(a.sign(access(), typ=TYP_ACCESS_TOKEN), TOKEN_TYPE_JWT, id="at-as-jwt"),
        pytest.param(a.sign(access()), TOKEN_TYPE_ACCESS_TOKEN, id="jwt-as-access-token"),
    ]


@pytest.mark.requirement("TEX-04", "TX-04")
@pytest.mark.parametrize(("token", "token_type"), _mislabelled())
def test_a_mislabelled_token_is_refused(stage: Stage, token: str, token_type: str) -> None:
    parameters = stage.good(subject_token=token, subject_token_type=token_type)
    stage.attack(parameters, error=IR, reason="wrong_token_type")


@pytest.mark.requirement("TEX-04")
@pytest.mark.parametrize(
    "token_type",
    [TOKEN_TYPE_SAML1, TOKEN_TYPE_SAML2, TOKEN_TYPE_REFRESH_TOKEN, TOKEN_TYPE_ID_JAG, "x"],
)
def test_another_subject_token_type_is_refused_unread(stage: Stage, token_type: str) -> None:
    parameters = stage.good(subject_token="<saml/>", subject_token_type=token_type)
    stage.attack(parameters, error=IR, reason="type_unsupported")


@pytest.mark.requirement("TEX-05", "TX-10", "TX-14")
@pytest.mark.parametrize(
    "requested",
    [TOKEN_TYPE_REFRESH_TOKEN, TOKEN_TYPE_SAML2, TOKEN_TYPE_JWT, TOKEN_TYPE_ID_TOKEN, "x"],
)
def test_another_output_is_refused(stage: Stage, requested: str) -> None:
    parameters = stage.good(requested_token_type=requested)
    stage.attack(parameters, error=IR, reason="requested_type")


@pytest.mark.requirement("TX-10")
def test_an_access_token_may_be_asked_for_by_name(stage: Stage) -> None:
    stage.grant(stage.good(requested_token_type=TOKEN_TYPE_ACCESS_TOKEN))


@pytest.mark.requirement("TEX-06", "TX-06", "TX-26", "RES-01", "POL-01")
def test_unknown_and_forbidden_targets_look_the_same(stage: Stage) -> None:
    answers = [
        stage.refuse(stage.good(resource=resource), error=IT, reason=reason)
        for resource, reason in [
            ("https://nope.test", "target_unknown"),
            (CLOSED, "policy_no_permit"),
            (OFF, "target_refused"),
            (RES_2, "policy_no_permit"),
        ]
    ]
    assert len({(one.status, one.description, str(one.fields)) for one in answers}) == 1
    lengths = {name: value for name, value in answers[0].headers.items() if "decision" not in name}
    for one in answers[1:]:
        assert {n: v for n, v in one.headers.items() if "decision" not in n} == lengths


@pytest.mark.requirement("TEX-06", "TX-06")
@pytest.mark.parametrize("scope", ["no:such", "b:admin", None])
def test_a_scope_is_no_oracle_for_a_closed_resource(stage: Stage, scope: str | None) -> None:
    """Whatever scope is asked of it, a closed resource looks as if it did not exist."""
    closed = stage.refuse(
        stage.good(resource=CLOSED, scope=scope), error=IT, reason="policy_no_permit"
    )
    unknown = stage.refuse(
        stage.good(resource="https://nope.test", scope=scope), error=IT, reason="target_unknown"
    )
    assert closed.fields == unknown.fields


@pytest.mark.requirement("TEX-06", "TX-06")
@pytest.mark.parametrize("scope", ["b:read no:such", None])
@pytest.mark.parametrize("resource", ["https://nope.test", OFF])
def test_the_record_of_a_target_that_is_none_tells_what_was_asked_and_no_word_of_ours(
    stage: Stage, resource: str, scope: str | None
) -> None:
    """Policy is asked about a scope that there is not, for the time that it takes; nobody asked for that."""
    reason = "target_refused" if resource == OFF else "target_unknown"
    stage.refuse(stage.good(resource=resource, scope=scope), error=IT, reason=reason)

    record = stage.broker.records()[-1]
    assert record["targets_asked"] == [resource]
    assert record["scopes_asked"] == (scope or "").split()
    assert not {"scope_decisions", "resource"} & record.keys()
    assert record["policy_ids"] == []
    assert "probe" not in str(record)


def test_nobody_is_explained_a_scope_that_nobody_asked_for(stage: Stage) -> None:
    message = exchange_message(
        exchange_parameters(good_access_token(), resource="https://nope.test")
        | by_assertion("auditor")
    )
    asked = ExplainRequest(read_exchange(message, CallMetadata()), client_id="mcp1-srv")
    context = RequestContext("grpc", new_request_id())

    explained = stage.broker.endpoints.explain.explain(context, lambda: asked)

    assert (explained.reason, explained.scopes) == ("target_unknown", ())
    assert "scope_decisions" not in stage.broker.records()[-1]


@pytest.mark.requirement("TEX-07", "TX-07", "RES-01")
@pytest.mark.parametrize(
    "resource",
    [
        "/relative",
        "api.test/v1",
        API + "#fragment",
        API + "#",
        "https://u:p@api.test/v1",
        "javascript:alert(1)",
        "https://api.test/" + "x" * 4096,
        "https://api.t\u00e9st/v1",
        "https://api.test\\v1",
        "https://api.test/v1\n",
        "https:///v1",
    ],
    ids=lambda one: ascii(one)[:24],
)
def test_a_malformed_target_is_refused(stage: Stage, resource: str) -> None:
    stage.attack(stage.good(resource=resource), error=IT, reason="target_malformed")


@pytest.mark.requirement("TEX-07", "AT-05")
def test_a_missing_target_is_refused_without_a_default(stage: Stage) -> None:
    stage.attack(stage.good(resource=None), error=IT, reason="target_missing")


@pytest.mark.requirement("AT-05", "RES-05")
def test_a_default_target_is_used_and_reported(staging: Staging) -> None:
    stage = staging(replace(Cast(), default_resource=API))
    answer = stage.grant(stage.good(resource=None))
    assert answer.claims["aud"] == API
    assert answer.fields["resource"] == API


@pytest.mark.requirement("TEX-08", "TX-08")
def test_audience_and_resource_must_agree(stage: Stage) -> None:
    stage.attack(stage.good(audience=RES_2), error=IT, reason="target_conflict")
    stage.attack(stage.good(audience="nobody"), error=IT, reason="target_conflict")
    stage.grant(stage.good(audience="the-api"))


@pytest.mark.requirement("TX-09")
def test_a_logical_audience_resolves_to_the_resource(stage: Stage) -> None:
    answer = stage.grant(stage.good(resource=None, audience="the-api"))
    assert answer.claims["aud"] == API


@pytest.mark.requirement("TX-09")
def test_an_unknown_audience_is_an_unknown_target(stage: Stage) -> None:
    parameters = stage.good(resource=None, audience="nobody")
    stage.attack(parameters, error=IT, reason="target_unknown")


@pytest.mark.requirement("TEX-09", "TX-08", "AT-09")
def test_one_target_per_token(stage: Stage) -> None:
    several = stage.good(resource=[API, RES_1])
    stage.attack(several, error=IT, reason="single_target_only")
    stage.grant(stage.good(resource=[API, API]))


@pytest.mark.requirement("RES-02", "RES-03")
@pytest.mark.parametrize("spelling", ["HTTPS://API.test/v1", "https://Api.Test/v1"])
def test_scheme_and_host_have_one_spelling(stage: Stage, spelling: str) -> None:
    assert stage.grant(stage.good(resource=spelling)).claims["aud"] == API


@pytest.mark.requirement("RES-02", "RES-03")
@pytest.mark.parametrize(
    "other", ["https://api.test/v1/", "https://api.test/V1", "https://api.test", API + "/deeper"]
)
def test_paths_are_never_matched_loosely(stage: Stage, other: str) -> None:
    stage.attack(stage.good(resource=other), error=IT, reason="target_unknown")


@pytest.mark.requirement("TEX-10", "TX-21", "TX-12", "CC-09")
def test_scopes_never_grow(stage: Stage) -> None:
    """A scope that is known but not permitted is dropped, and the rest is reported."""
    answer = stage.grant(stage.good(scope="b:read b:admin"))
    assert answer.claims["scope"] == "b:read"
    assert answer.fields["scope"] == "b:read"


@pytest.mark.requirement("TEX-10", "TX-21")
def test_a_scope_that_cannot_be_granted_is_refused(stage: Stage) -> None:
    exceeding = stage.good(subject_token=good_access_token(scope="a:read"))
    stage.attack(exceeding, error=IS, reason="scope_exceeds_subject")
    denied = stage.good(subject_token=good_access_token(scope="b:admin b:read"), scope="b:admin")
    stage.attack(denied, error=IS, reason="scope_not_permitted")
    stage.attack(stage.good(scope="no:such"), error=IS, reason="scope_unknown")


@pytest.mark.requirement("TX-21")
def test_a_scope_derives_only_from_those_it_names(stage: Stage) -> None:
    derived = stage.grant(stage.good(scope="b:write"))
    assert derived.claims["scope"] == "b:write"
    only_a = stage.good(subject_token=good_access_token(scope="a:read"), scope="b:write")
    stage.attack(only_a, error=IS, reason="scope_exceeds_subject")


@pytest.mark.requirement("TX-21")
@pytest.mark.parametrize("scope", [None, ""])
def test_a_subject_token_without_scopes_gives_none(stage: Stage, scope: str | None) -> None:
    token = good_access_token(scope=scope)
    for asked in ("b:read", None):
        parameters = stage.good(subject_token=token, scope=asked)
        stage.attack(parameters, error=IS, reason="scope_exceeds_subject")


@pytest.mark.requirement("TX-12")
def test_no_scope_asks_for_what_the_subject_token_has(stage: Stage) -> None:
    answer = stage.grant(stage.good(scope=None))
    assert set(answer.claims["scope"].split()) == {"a:read", "b:read", "b:write"}
    assert set(answer.fields["scope"].split()) == {"a:read", "b:read", "b:write"}


@pytest.mark.requirement("TEX-11")
@pytest.mark.parametrize(
    "scope",
    [
        'b:read"',
        "b:read\\",
        "b:re\x01ad",
        "b:r\u00e9ad",
        " ".join(f"s{n}" for n in range(1000)),
        "b:read b:read",
        "b:read  a:read",
        " b:read",
        "b:read ",
        "s" * 300,
    ],
    ids=lambda one: ascii(one)[:12],
)
def test_a_malformed_scope_is_refused(stage: Stage, scope: str) -> None:
    stage.attack(stage.good(scope=scope), error=IS, reason="scope_malformed")


@pytest.mark.requirement("TEX-11")
def test_a_star_is_a_scope_like_any_other(stage: Stage) -> None:
    stage.attack(stage.good(scope="*"), error=IS, reason="scope_unknown")


@pytest.mark.requirement("TEX-12", "TX-17")
def test_a_token_never_outlives_its_subject_token(stage: Stage) -> None:
    token = good_access_token(exp=NOW + 42)
    answer = stage.grant(stage.good(subject_token=token))
    assert answer.claims["exp"] == NOW + 42
    assert answer.fields["expires_in"] == 42


@pytest.mark.requirement("TEX-12")
def test_a_token_never_outlives_its_actor_token(stage: Stage) -> None:
    actor = by_assertion("mcp1-srv", exp=NOW + 17)["client_assertion"]
    answer = stage.grant(stage.good(actor_token=actor, actor_token_type=TOKEN_TYPE_JWT))
    assert answer.claims["exp"] == NOW + 17


@pytest.mark.requirement("TEX-12", "AT-15")
def test_resource_and_policy_shorten_a_life(staging: Staging) -> None:
    short = replace(Cast().resource(API), max_lifetime=timedelta(seconds=90))
    stage = staging(Cast().with_resource(short))
    assert stage.grant(stage.good()).fields["expires_in"] == 90
    fresh = from_id_token("agent-s", scope="a:read")
    assert stage.grant(fresh).fields["expires_in"] == 60


@pytest.mark.requirement("TEX-13", "TX-24", "std:ACT-13")
def test_fifty_exchanges_of_the_result_gain_nothing(stage: Stage) -> None:
    token = own_token(stage)
    first = stage.grant(tx(token, "agent-x", resource=RES_1, scope=None)).claims
    for _ in range(50):
        stage.broker.clock.at += 2
        renewed = by_assertion("agent-x", iat=stage.broker.clock.at, exp=stage.broker.clock.at + 60)
        answer = stage.ask(exchange_parameters(token, resource=RES_1, scope=None) | renewed)
        assert answer.is_granted
        token, claims = answer.token, answer.claims
        assert claims["exp"] <= first["exp"]
        assert claims["act"] == first["act"]
        assert claims["auth_time"] == first["auth_time"]
        assert set(claims["scope"].split()) <= set(first["scope"].split())


@pytest.mark.requirement("TEX-14", "std:ACT-07", "sec:ACT-10")
def test_more_than_five_actors_are_refused_never_cut(stage: Stage) -> None:
    def chain(length: int) -> Any:
        act: Any = None
        for number in range(length):
            inner = {} if act is None else {"act": act}
            act = {"sub": f"actor-{number}", "iss": IDP_A, **inner}
        return act

    answer = stage.grant(stage.good(subject_token=good_access_token(act=chain(4))))
    assert answer.claims["act"]["act"] == chain(4)
    for length in (5, 6, 12):
        token = good_access_token(act=chain(length))
        stage.attack(stage.good(subject_token=token), error=IR, reason="chain_too_deep")


@pytest.mark.requirement("TEX-15")
def test_an_enormous_token_is_refused_never_cut(staging: Staging) -> None:
    stage = staging(replace(Cast(), max_token_bytes=1200))
    token = good_access_token(act={"sub": "a" * 1500, "iss": IDP_A})
    stage.attack(stage.good(subject_token=token), error=IR, reason="issued_too_large")


@pytest.mark.requirement("TEX-16", "TX-05")
def test_a_revoked_subject_token_is_dead(stage: Stage) -> None:
    answer = stage.grant(from_id_token())
    stage.grant(tx(answer.token))
    stage.broker.state.revoke(answer.claims["jti"], answer.claims["exp"])
    stage.attack(tx(answer.token), error=IR, reason="revoked")


@pytest.mark.requirement("TEX-16")
def test_a_disabled_user_is_refused(staging: Staging) -> None:
    stage = staging(replace(Cast(), disabled_subjects=frozenset({"u2"})))
    parameters = stage.good(subject_token=good_access_token(sub="u2"))
    stage.attack(parameters, error=IR, reason="principal_disabled")


@pytest.mark.requirement("TEX-16", "CAU-15")
@pytest.mark.parametrize("is_deleted", [True, False])
def test_a_token_dies_with_the_client_it_was_issued_to(
    staging: Staging, *, is_deleted: bool
) -> None:
    stage = staging(Cast())
    token = own_token(stage)
    stage.grant(tx(token))
    others = tuple(one for one in Cast().clients if one.client_id != "agent-x")
    off = replace(Cast().client("agent-x"), is_disabled=True)
    stage.broker.replace_cast(replace(Cast(), clients=others if is_deleted else (*others, off)))
    stage.attack(tx(token), error=IR, reason="principal_disabled")


@pytest.mark.requirement("KEY-14", "TEX-16")
def test_disabling_an_issuer_ends_what_it_vouched_for(staging: Staging) -> None:
    stage = staging(Cast())
    token = own_token(stage)
    off = replace(Cast().issuer(IDP_A), is_disabled=True)
    stage.broker.replace_cast(Cast().with_issuer(off))
    stage.refuse(tx(token), error=IR, reason="issuer_disabled")
    stage.refuse(stage.good(), error=IR, reason="issuer_disabled")


@pytest.mark.requirement("TEX-17")
def test_an_issuer_not_accepted_from_this_client_is_refused(staging: Staging) -> None:
    other = TrustedIssuer(
        "https://idp-c.test",
        frozenset({Purpose.USER, Purpose.ACCESS_TOKEN}),
        frozenset({"ES256"}),
        replace(Cast().issuer(IDP_A).keys, jwks=signer("c1").jwks),
        subject_prefix="c|",
    )
    stage = staging(Cast().with_issuer(other))
    claims = good_access_token_claims(iss=other.issuer, aud="https://picky.test/mcp")
    token = signer("c1").sign(claims, typ=TYP_ACCESS_TOKEN)
    stage.attack(tx(token, "picky-srv"), error=IR, reason="issuer_not_for_client")
    stage.grant(tx(good_access_token(aud="https://picky.test/mcp"), "picky-srv"))


@pytest.mark.requirement("TEX-18", "STEP-04")
def test_a_weak_login_is_asked_to_step_up(stage: Stage) -> None:
    weak = exchange_parameters(
        good_id_token(aud="agent-s", acr="pwd"),
        subject_token_type=TOKEN_TYPE_ID_TOKEN,
        resource=RES_1,
        scope="a:read",
    )
    answer = stage.attack(
        weak | by_assertion("agent-s"),
        error="insufficient_user_authentication",
        reason="step_up_required",
    )
    if stage.face.name == "http":
        assert (answer.fields["acr_values"], answer.fields["max_age"]) == ("phr", 900)


@pytest.mark.requirement("TEX-19", "TX-15", "std:ACT-01", "std:ACT-04", "std:ACT-05")
def test_the_caller_becomes_the_actor_without_an_actor_token(stage: Stage) -> None:
    act = stage.grant(tx(own_token(stage))).claims["act"]
    assert act == {
        "iss": ISS,
        "sub": "mcp1-srv",
        "sub_profile": "service",
        "act": {"iss": ISS, "sub": "agent-x", "sub_profile": "ai_agent"},
    }


@pytest.mark.requirement("TX-15", "TX-22")
def test_impersonation_needs_a_policy_of_its_own(stage: Stage) -> None:
    answer = stage.grant(from_id_token("impersonator", scope="a:read"))
    assert "act" not in answer.claims
    with_actor = from_id_token("impersonator", scope="a:read")
    with_actor |= {
        "actor_token": str(with_actor["client_assertion"]),
        "actor_token_type": TOKEN_TYPE_JWT,
    }
    assert stage.grant(with_actor).claims["act"]["sub"] == "impersonator"


@pytest.mark.requirement("TEX-20", "TX-28")
def test_a_server_gets_no_new_token_for_itself(stage: Stage) -> None:
    for token in (own_token(stage), good_access_token()):
        stage.attack(tx(token, resource=RES_1, scope="a:read"), error=IT, reason="target_refused")


@pytest.mark.requirement("TX-28")
def test_an_agent_may_narrow_its_own_token(stage: Stage) -> None:
    answer = stage.grant(tx(own_token(stage), "agent-x", resource=RES_1, scope="a:read"))
    assert answer.claims["scope"] == "a:read"
    assert answer.claims["act"]["sub"] == "agent-x"
    assert "act" not in answer.claims["act"]


@pytest.mark.requirement("TX-19")
def test_an_agent_does_not_reach_past_its_servers(stage: Stage) -> None:
    """What was issued to an agent for one server is no ticket to the API behind it."""
    parameters = tx(own_token(stage), "agent-x", resource=API)
    stage.attack(parameters, error=IT, reason="policy_no_permit")


@pytest.mark.requirement("TX-11", "TX-04")
def test_a_plain_jwt_of_a_trusted_issuer_comes_as_jwt(stage: Stage) -> None:
    token = signer("a1").sign(good_access_token_claims())
    stage.grant(stage.good(subject_token=token, subject_token_type=TOKEN_TYPE_JWT))


@pytest.mark.requirement("TX-11")
def test_an_issuer_for_identity_alone_gives_no_access_tokens(staging: Staging) -> None:
    identity = replace(Cast().issuer(IDP_A), purposes=frozenset({Purpose.USER}))
    stage = staging(Cast().with_issuer(identity))
    for token_type, typ in [(TOKEN_TYPE_ACCESS_TOKEN, "at+jwt"), (TOKEN_TYPE_JWT, "JWT")]:
        token = signer("a1").sign(good_access_token_claims(), typ=typ)
        parameters = stage.good(subject_token=token, subject_token_type=token_type)
        stage.refuse(parameters, error=IR, reason="issuer_not_for_purpose")


@pytest.mark.requirement("JAG-01", "TX-19")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aud": "agent-n"}, "subject_aud_mismatch"),
        ({"aud": ["agent-x", "agent-n"]}, "aud_mismatch"),
        ({"azp": "agent-n"}, "subject_aud_mismatch"),
        ({"aud": ISS}, "subject_aud_mismatch"),
    ],
    ids=str,
)
def test_an_id_token_of_another_client_is_refused(
    stage: Stage, changes: dict[str, Any], reason: str
) -> None:
    parameters = from_id_token() | {"subject_token": good_id_token(**changes)}
    stage.attack(parameters, error=IR, reason=reason)


@pytest.mark.requirement("TX-19")
def test_a_client_may_have_another_id_at_the_issuer(staging: Staging) -> None:
    agent = replace(Cast().client("agent-x"), issuer_client_ids={IDP_A: "0oa-7"})
    stage = staging(Cast().with_client(agent))
    stage.grant(from_id_token() | {"subject_token": good_id_token(aud="0oa-7")})
    stage.attack(from_id_token(), error=IR, reason="subject_aud_mismatch")


@pytest.mark.requirement("TEX-21")
def test_an_external_token_for_somebody_else_is_refused(stage: Stage) -> None:
    token = good_access_token(aud="account", client_id="mcp1-srv")
    stage.attack(stage.good(subject_token=token), error=IR, reason="subject_not_for_broker")


@pytest.mark.requirement("TEX-23", "CC-07", "CLM-09")
@pytest.mark.parametrize("sub", ["client:mcp1-srv", "client:anything"])
def test_a_user_cannot_pose_as_a_client(stage: Stage, sub: str) -> None:
    parameters = stage.good(subject_token=good_access_token(sub=sub))
    stage.attack(parameters, error=IR, reason="subject_reserved")


@pytest.mark.requirement("TX-23")
def test_equal_subjects_of_two_issuers_stay_two_people(stage: Stage) -> None:
    claims = good_access_token_claims(iss="https://idp-t2.test")
    token = signer("t2").sign(claims, typ=TYP_ACCESS_TOKEN)
    assert stage.grant(stage.good(subject_token=token)).claims["sub"] == "t2|u1"
    assert stage.grant(stage.good()).claims["sub"] == "u1"


@pytest.mark.requirement("TX-24", "AT-08")
def test_the_login_is_carried_over_unchanged(stage: Stage) -> None:
    first = stage.grant(from_id_token())
    second = stage.grant(tx(first.token))
    for answer in (first, second):
        claims = answer.claims
        assert (claims["auth_time"], claims["acr"], claims["amr"]) == (NOW - 60, "phr", ["hwk"])


@pytest.mark.requirement("TX-01")
def test_duplicate_parameters_are_refused(stage: Stage) -> None:
    if stage.face.name == "http":
        for name in ("subject_token", "scope", "grant_type", "client_assertion", "unknown"):
            good = stage.good()
            doubled = good | {name: [str(good.get(name, "x")), str(good.get(name, "x"))]}
            stage.attack(doubled, error=IR, reason="duplicate_param")


@pytest.mark.requirement("TX-01")
def test_unknown_parameters_are_ignored(stage: Stage) -> None:
    stage.grant(stage.good(something_else="x"))


@pytest.mark.requirement("KEY-08")
def test_a_token_without_a_kid_works_with_a_sole_key(stage: Stage) -> None:
    token = signer("a1").sign(good_access_token_claims(), typ=TYP_ACCESS_TOKEN, kid=None)
    stage.grant(stage.good(subject_token=token))


@pytest.mark.requirement("KEY-12", "JWT-03", "TX-05")
def test_a_token_signed_by_another_issuer_is_refused(stage: Stage) -> None:
    token = signer("o1").sign(good_access_token_claims(), typ=TYP_ACCESS_TOKEN)
    stage.attack(stage.good(subject_token=token), error=IR, reason="unknown_key")
    forged = signer("o1").sign(good_access_token_claims(), typ=TYP_ACCESS_TOKEN, kid="a1")
    stage.attack(stage.good(subject_token=forged), error=IR, reason="sig_invalid")


@pytest.mark.requirement("KEY-13")
def test_our_keys_and_theirs_never_meet(stage: Stage) -> None:
    ours_by_them = signer("a1").sign(good_access_token_claims(iss=ISS), typ=TYP_ACCESS_TOKEN)
    stage.attack(stage.good(subject_token=ours_by_them), error=IR, reason="unknown_key")
    key = stage.broker.key_store.signing_key("ES256")
    theirs = signer("a1").sign(good_access_token_claims(), typ=TYP_ACCESS_TOKEN, kid=key.kid)
    stage.attack(stage.good(subject_token=theirs), error=IR, reason="unknown_key")


@pytest.mark.requirement("KEY-14")
def test_a_disabled_issuer_is_refused(stage: Stage) -> None:
    claims = good_access_token_claims(iss="https://idp-off.test")
    token = signer("o1").sign(claims, typ=TYP_ACCESS_TOKEN)
    stage.attack(stage.good(subject_token=token), error=IR, reason="issuer_disabled")


@pytest.mark.requirement("KEY-15")
def test_an_unknown_issuer_is_refused_without_a_fetch(stage: Stage) -> None:
    claims = good_access_token_claims(iss="https://evil.test/x")
    token = signer("evil").sign(claims, typ=TYP_ACCESS_TOKEN)
    stage.attack(stage.good(subject_token=token), error=IR, reason="iss_unknown")


@pytest.mark.requirement("KEY-16")
def test_a_workload_issuer_vouches_for_no_user(stage: Stage) -> None:
    key = signer("b1", "RS256")
    for token_type, typ, claims in [
        (TOKEN_TYPE_ACCESS_TOKEN, "at+jwt", good_access_token_claims(iss=IDP_B)),
        (TOKEN_TYPE_ID_TOKEN, "JWT", good_id_token_claims(iss=IDP_B)),
    ]:
        token = key.sign(claims, typ=typ)
        parameters = stage.good(subject_token=token, subject_token_type=token_type)
        stage.attack(parameters, error=IR, reason="issuer_not_for_purpose")
