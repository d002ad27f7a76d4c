from tests.stage import Stage
from tests.world import (
    RAS,
    RES_1,
    WIKI,
    assertion_request,
    client_parameters,
    redeem_parameters,
)


def test_an_agent_gets_a_token_for_itself(stage: Stage) -> None:
    claims = stage.grant(client_parameters()).claims

    assert claims["sub"] == "client:agent-x"
    assert claims["aud"] == RES_1
    assert claims["scope"] == "a:read"
    assert "act" not in claims


def test_an_identity_becomes_an_assertion_for_another_server(stage: Stage) -> None:
    answer = stage.grant(assertion_request())

    assert answer.fields["token_type"] == "N_A"
    assert answer.claims["aud"] == RAS
    assert answer.claims["client_id"] == "agent-x-at-ras"
    assert answer.claims["resource"] == WIKI


def test_an_assertion_is_redeemed_for_the_resource_that_it_names(stage: Stage) -> None:
    claims = stage.grant(redeem_parameters()).claims

    assert claims["sub"] == "u1"
    assert claims["aud"] == RES_1
    assert claims["scope"] == "a:read b:read"
    assert "act" not in claims
