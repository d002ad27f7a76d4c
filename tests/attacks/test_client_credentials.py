"""Client credentials: agents that act for themselves, as the MCP extension of that name has it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.errors import Reason
from broker.model import Pedigree
from broker.oauth import (
    AUTH_PRIVATE_KEY_JWT,
    AUTH_SECRET_BASIC,
    AUTH_SECRET_POST,
    GRANT_CLIENT_CREDENTIALS,
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_TOKEN,
)
from tests.harness import basic, decode_header
from tests.stage import Stage
from tests.stagehands import Staging
from tests.world import (
    AGENTS,
    API,
    CLOSED,
    ISS,
    MCP_CLAIM,
    NOW,
    OFF,
    RES_1,
    RES_2,
    WEB_SECRET,
    Cast,
    Parameters,
    assertion_request,
    by_assertion,
    client_parameters,
    exchange_parameters,
    good_access_token,
    good_assertion,
    good_id_token,
    jwt_client,
    redeem_parameters,
)

IC = "invalid_client"
IG = "invalid_grant"
IR = "invalid_request"
IS = "invalid_scope"
IT = "invalid_target"
UC = "unauthorized_client"


def by_secret(**changes: Any) -> Parameters:
    """What a client asks that authenticates by a secret."""
    return client_parameters(client_assertion=None, client_assertion_type=None, **changes)


def machine_token(stage: Stage, **changes: Any) -> str:
    """agent-x's own token for RES-1."""
    return stage.grant(client_parameters(**changes)).token


@pytest.mark.requirement("CC-04", "CC-06", "CC-07", "CC-08", "AT-14", "RES-04")
def test_an_agent_gets_a_token_that_says_who_it_is_and_nothing_else(stage: Stage) -> None:
    answer = stage.grant(client_parameters())

    assert decode_header(answer.token)["typ"] == "at+jwt"
    assert answer.fields["token_type"] == "Bearer"
    assert "refresh_token" not in answer.everything
    claims = answer.claims
    assert claims.pop("jti")
    assert claims.pop("txn")
    assert claims == {
        "iss": ISS,
        "sub": "client:agent-x",
        "aud": RES_1,
        "client_id": "agent-x",
        "scope": "a:read",
        "iat": NOW,
        "exp": NOW + 300,
        MCP_CLAIM: {"client": "agent-x", "resource": RES_1, "subject_issuer": ISS},
    }


@pytest.mark.requirement("CC-02")
def test_a_client_may_authenticate_by_a_secret(staging: Staging) -> None:
    stage = staging(Cast().with_client(replace(Cast().client("web-s"), groups=AGENTS)))

    stage.grant(by_secret(), basic("web-s", WEB_SECRET))
    stage.grant(by_secret(client_id="web-s", client_secret=WEB_SECRET))
    stage.attack(by_secret(), basic("web-s", "wrong"), error=IC, reason="bad_secret")


@pytest.mark.requirement("CC-02", "CC-11", "CA-01")
def test_an_assertion_alone_says_which_client_it_is(stage: Stage) -> None:
    assert "client_id" not in client_parameters()
    stage.grant(client_parameters())
    stage.grant(client_parameters(client_id="agent-x"))
    other = client_parameters(client_id="agent-n")
    stage.attack(other, error=IC, reason="client_id_mismatch")


@pytest.mark.requirement("CC-03", "CC-14")
def test_the_metadata_says_how_a_client_gets_its_own_token(stage: Stage) -> None:
    document = stage.face.metadata()

    assert document["issuer"] == ISS
    assert GRANT_CLIENT_CREDENTIALS in document["grant_types_supported"]
    methods = {AUTH_PRIVATE_KEY_JWT, AUTH_SECRET_BASIC, AUTH_SECRET_POST}
    assert methods <= set(document["token_endpoint_auth_methods_supported"])
    assert "ES256" in document["token_endpoint_auth_signing_alg_values_supported"]


@pytest.mark.requirement("CC-01")
def test_a_stranger_gets_nothing(stage: Stage) -> None:
    stranger = client_parameters() | by_assertion("nobody")
    stage.attack(stranger, error=IC, reason="client_unknown")


@pytest.mark.requirement("CC-01")
def test_a_name_without_a_proof_is_no_client(stage: Stage) -> None:
    stage.attack(by_secret(client_id="agent-x"), error=IC, reason="client_auth_missing")


@pytest.mark.requirement("CC-01", "CA-04")
def test_a_client_that_is_not_registered_for_it_is_refused(staging: Staging) -> None:
    others = Cast().client("agent-x").grants - {GRANT_CLIENT_CREDENTIALS}
    stage = staging(Cast().with_client(replace(Cast().client("agent-n"), grants=others)))
    stage.attack(client_parameters("agent-n"), error=UC, reason="grant_not_allowed")


@pytest.mark.requirement("CC-01", "CAU-15")
def test_a_disabled_client_is_refused(stage: Stage) -> None:
    stage.attack(client_parameters("off-srv"), error=IC, reason="client_disabled")


@pytest.mark.requirement("CC-01")
def test_a_client_whose_subject_is_disabled_gets_nothing_for_itself(staging: Staging) -> None:
    stage = staging(replace(Cast(), disabled_subjects=frozenset({"client:agent-x"})))
    stage.attack(client_parameters(), error=UC, reason="principal_disabled")
    stage.grant(client_parameters("agent-n"))


@pytest.mark.requirement("CC-05", "AT-05", "AT-09")
@pytest.mark.parametrize("scope", ["a:read", "a:read b:read", None])
def test_without_a_resource_the_token_is_for_the_default_one(
    staging: Staging, scope: str | None
) -> None:
    stage = staging(replace(Cast(), default_resource=RES_1))
    answer = stage.grant(client_parameters(resource=None, scope=scope))
    assert answer.claims["aud"] == RES_1
    assert answer.fields["resource"] == RES_1


@pytest.mark.requirement("CC-05", "AT-05")
def test_without_a_resource_or_a_default_nothing_is_issued(stage: Stage) -> None:
    stage.attack(client_parameters(resource=None), error=IT, reason="target_missing")


@pytest.mark.requirement("CC-05", "AT-09")
@pytest.mark.parametrize("scope", ["pages.read", "a:read pages.read"])
def test_scopes_of_another_resource_are_not_taken_for_those_of_the_default_one(
    staging: Staging, scope: str
) -> None:
    stage = staging(replace(Cast(), default_resource=RES_1))
    parameters = client_parameters(resource=None, scope=scope)
    stage.attack(parameters, error=IS, reason="scope_unknown")


@pytest.mark.requirement("CC-09", "CC-10", "TX-21")
def test_a_scope_that_policy_denies_is_dropped_and_the_rest_reported(stage: Stage) -> None:
    """A client that asks for all it ever asked for gets the same answer every time."""
    for _ in range(3):
        answer = stage.grant(client_parameters(scope="a:read b:admin b:read"))
        assert answer.claims["scope"] == "a:read b:read"
        assert answer.fields["scope"] == "a:read b:read"


@pytest.mark.requirement("CC-09")
@pytest.mark.parametrize(
    ("scope", "reason"),
    [
        ("b:admin", "scope_not_permitted"),
        ("a:read no:such", "scope_unknown"),
        ("*", "scope_unknown"),
        ("a:read a:read", "scope_malformed"),
        ('a:read"', "scope_malformed"),
    ],
)
def test_a_scope_that_cannot_be_granted_is_refused(stage: Stage, scope: str, reason: str) -> None:
    stage.attack(client_parameters(scope=scope), error=IS, reason=reason)


@pytest.mark.requirement("CC-09")
def test_without_a_scope_an_agent_gets_what_policy_lets_it_have(stage: Stage) -> None:
    assert stage.grant(client_parameters(scope=None)).claims["scope"] == "a:read b:read"


@pytest.mark.requirement("CC-13", "AT-15")
def test_a_machine_token_lives_for_minutes(staging: Staging) -> None:
    stage = staging(replace(Cast(), machine_lifetime=timedelta(minutes=15)))
    answer = stage.grant(client_parameters())
    assert answer.fields["expires_in"] == answer.claims["exp"] - NOW == 900
    assert stage.grant(stage.good()).fields["expires_in"] == 300


@pytest.mark.requirement("CC-13", "AT-15")
def test_a_resource_shortens_the_life_of_a_machine_token(staging: Staging) -> None:
    short = replace(Cast().resource(RES_1), max_lifetime=timedelta(seconds=45))
    stage = staging(Cast().with_resource(short))
    assert stage.grant(client_parameters()).fields["expires_in"] == 45


@pytest.mark.requirement("TEX-06", "POL-01")
def test_unknown_and_forbidden_targets_look_the_same_to_an_agent(stage: Stage) -> None:
    answers = [
        stage.attack(client_parameters(resource=resource), error=IT, reason=reason)
        for resource, reason in [
            ("https://nope.test", "target_unknown"),
            (CLOSED, "policy_no_permit"),
            (API, "policy_no_permit"),
            (OFF, "target_refused"),
        ]
    ]
    assert len({(one.status, one.description, str(one.fields)) for one in answers}) == 1


@pytest.mark.requirement("POL-01")
def test_who_has_no_permit_gets_nothing_for_itself(stage: Stage) -> None:
    """A server may exchange what it is called with; that is no leave to act on its own."""
    stage.attack(client_parameters("mcp1-srv"), error=IT, reason="policy_no_permit")


@pytest.mark.requirement("TEX-09", "AT-09")
def test_a_machine_token_is_for_one_resource(stage: Stage) -> None:
    parameters = client_parameters(resource=[RES_1, RES_2])
    stage.attack(parameters, error=IT, reason="single_target_only")


@pytest.mark.requirement("sec:ACT-11")
def test_what_belongs_to_a_tenant_is_for_agents_of_that_tenant(staging: Staging) -> None:
    cast = Cast().with_resource(replace(Cast().resource(RES_1), tenant="t1"))
    stage = staging(cast.with_client(jwt_client("agent-t1", groups=AGENTS, tenant="t1")))
    claims = stage.grant(client_parameters("agent-t1")).claims
    assert claims[MCP_CLAIM]["tenant"] == "t1"
    stage.refuse(client_parameters(), error=IT, reason="target_refused")


@pytest.mark.requirement("RPL-01")
def test_an_assertion_gives_one_machine_token(stage: Stage) -> None:
    parameters = client_parameters()
    stage.grant(parameters)
    stage.attack(parameters, error=IC, reason="replay")


@pytest.mark.requirement("CC-12", "IDJAG-R-02")
def test_a_client_assertion_is_no_grant(stage: Stage) -> None:
    """Some documentation shows it as the ``assertion`` of the JWT bearer grant."""
    self_issued = good_assertion("agent-x")
    stage.attack(redeem_parameters(self_issued), error=IG, reason="wrong_token_type")
    typed = redeem_parameters(good_assertion("agent-x", aud=ISS + "/token"))
    stage.attack(typed, error=IG, reason="wrong_token_type")


@pytest.mark.requirement("CC-07", "TEX-23")
def test_a_client_that_is_called_like_a_user_is_not_that_user(staging: Staging) -> None:
    stage = staging(Cast().with_client(jwt_client("u1", groups=AGENTS)))
    machine = stage.grant(client_parameters("u1")).claims
    person = stage.grant(
        exchange_parameters(
            good_id_token(), subject_token_type=TOKEN_TYPE_ID_TOKEN, resource=RES_1, scope="a:read"
        )
        | by_assertion("agent-x")
    ).claims
    assert (machine["sub"], person["sub"]) == ("client:u1", "u1")


@pytest.mark.requirement("CC-07", "TEX-23")
@pytest.mark.parametrize("sub", ["client:agent-x", "client:"])
def test_no_user_has_the_name_of_a_machine(stage: Stage, sub: str) -> None:
    as_subject = stage.good(subject_token=good_access_token(sub=sub))
    stage.attack(as_subject, error=IR, reason="subject_reserved")
    as_identity = assertion_request(subject_token=good_id_token(sub=sub))
    stage.attack(as_identity, error=IR, reason="subject_reserved")


@pytest.mark.requirement("CC-08", "std:ACT-05", "AT-16")
def test_a_server_that_a_machine_calls_acts_for_the_machine(stage: Stage) -> None:
    token = machine_token(stage, scope="b:read")
    claims = stage.grant(stage.good(subject_token=token)).claims
    assert claims["sub"] == "client:agent-x"
    assert claims["act"]["sub"] == "mcp1-srv"
    assert "act" not in claims["act"]


@pytest.mark.requirement("CC-08", "TX-28")
def test_a_machine_that_narrows_its_token_does_not_act_for_itself(stage: Stage) -> None:
    token = machine_token(stage, scope="a:read b:read")
    narrower = exchange_parameters(token, resource=RES_1, scope="a:read") | by_assertion("agent-x")
    claims = stage.grant(narrower).claims
    assert claims["sub"] == "client:agent-x"
    assert "act" not in claims


@pytest.mark.requirement("TEX-01", "TX-19")
def test_a_machine_token_is_of_no_use_to_who_neither_got_nor_received_it(stage: Stage) -> None:
    token = machine_token(stage, scope="b:read")
    for client in ("agent-n", "mcp2-srv"):
        stolen = exchange_parameters(token) | by_assertion(client)
        stage.attack(stolen, error=IR, reason="subject_not_for_caller")


@pytest.mark.requirement("AT-16", "JAG-02", "IDJAG-I-09")
def test_a_machine_token_is_no_identity(stage: Stage) -> None:
    token = machine_token(stage)
    for token_type in (TOKEN_TYPE_ID_TOKEN, TOKEN_TYPE_ACCESS_TOKEN):
        parameters = assertion_request(subject_token=token, subject_token_type=token_type)
        stage.attack(parameters, error=IR, reason="wrong_token_type")


@pytest.mark.requirement("R-11")
def test_no_machine_token_is_issued_that_is_withdrawn_already(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that forgot withdraws all that is issued for a while; no subject token tells of it."""
    state, asked = stage.broker.state, list[Pedigree]()

    def withdraws_all(pedigree: Pedigree) -> Reason | None:
        asked.append(pedigree)
        return Reason.REVOKED if pedigree.issued_at <= NOW else None

    monkeypatch.setattr(state, "reason_against", withdraws_all)
    stage.refuse(
        client_parameters(), error="temporarily_unavailable", reason="revocation_unavailable"
    )
    assert [(one.issued_at, one.parties) for one in asked] == [(NOW, frozenset())]


@pytest.mark.requirement("R-09")
def test_no_machine_token_is_issued_while_nobody_knows_what_is_withdrawn(stage: Stage) -> None:
    stage.broker.state.close()
    stage.refuse(
        client_parameters(), error="temporarily_unavailable", reason="revocation_unavailable"
    )
