"""A server that proves itself as the actor and asks for its own resource: policy decides."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from broker.interfaces import PolicyEngine
from broker.oauth import TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_TOKEN, TOKEN_TYPE_JWT
from broker.policy.cedar import CedarPolicyEngine
from tests.stage import Stage
from tests.stagehands import Staging, every_exchange
from tests.world import (
    ISS,
    NOW,
    RES_1,
    Cast,
    Parameters,
    by_assertion,
    client_parameters,
    exchange_parameters,
    good_access_token,
    good_assertion,
    good_id_token,
)

face_name = every_exchange

ROOT = Path(__file__).parents[2]
IR = "invalid_request"
IT = "invalid_target"
IS = "invalid_scope"

PERMITS = """
@id("server-one-acts")
permit (
  principal == Client::"mcp1-srv",
  action == Action::"exchange",
  resource in Resource::"https://mcp1.test/mcp"
)
when { context.relation == "audience" && context.subject_scopes.contains(resource.name) };

@id("server-one-for-itself")
permit (principal == Client::"mcp1-srv", action == Action::"issue", resource);

@id("server-one-impersonates")
permit (principal == Client::"mcp1-srv", action == Action::"impersonate", resource);
"""


@pytest.fixture
def lenient(tmp_path: Path) -> PolicyEngine:
    """The policies of the world with the guardrail that exempts a proven actor."""
    folder = tmp_path / "lenient"
    folder.mkdir()
    shutil.copy(ROOT / "policies" / "broker.cedarschema", folder)
    shutil.copy(ROOT / "examples" / "interop" / "policies" / "guardrails.cedar", folder)
    world = (ROOT / "tests" / "world_policies" / "world.cedar").read_text()
    (folder / "world.cedar").write_text(world + PERMITS)
    return CedarPolicyEngine.load(folder)


def own_token(stage: Stage) -> str:
    """What agent-x calls server one with, for u1."""
    parameters = exchange_parameters(
        good_id_token(),
        subject_token_type=TOKEN_TYPE_ID_TOKEN,
        resource=RES_1,
        scope="a:read b:read",
    )
    return stage.grant(parameters | by_assertion("agent-x")).token


def for_itself(token: str, **changes: Any) -> Parameters:
    """Server one asks for its own resource, as the actor that it proves to be."""
    actor = {"actor_token": good_assertion("mcp1-srv"), "actor_token_type": TOKEN_TYPE_JWT}
    return exchange_parameters(
        token, **{"resource": RES_1, "scope": "a:read", **actor, **changes}
    ) | by_assertion("mcp1-srv")


NO_ACTOR = {"actor_token": None, "actor_token_type": None}


@pytest.mark.requirement("TX-28", "TEX-20", "std:ACT-01")
def test_a_proven_actor_gets_a_token_that_names_it_where_policy_says_so(
    staging: Staging, lenient: PolicyEngine
) -> None:
    stage = staging(Cast(), engine=lenient)
    claims = stage.grant(for_itself(own_token(stage))).claims
    assert (claims["sub"], claims["aud"], claims["scope"]) == ("u1", RES_1, "a:read")
    assert claims["act"] == {
        "iss": ISS,
        "sub": "mcp1-srv",
        "sub_profile": "service",
        "act": {"iss": ISS, "sub": "agent-x", "sub_profile": "ai_agent"},
    }


@pytest.mark.requirement("TX-28", "TEX-20")
def test_its_own_machine_token_proves_it_too(staging: Staging, lenient: PolicyEngine) -> None:
    stage = staging(Cast(), engine=lenient)
    machine = stage.grant(client_parameters("mcp1-srv")).token
    proof = {"actor_token": machine, "actor_token_type": TOKEN_TYPE_ACCESS_TOKEN}
    assert stage.grant(for_itself(own_token(stage), **proof)).claims["act"]["sub"] == "mcp1-srv"


@pytest.mark.requirement("TX-28", "TEX-20")
def test_without_the_proof_no_policy_can_allow_it(staging: Staging, lenient: PolicyEngine) -> None:
    stage = staging(Cast(), engine=lenient)
    for token in (own_token(stage), good_access_token()):
        parameters = for_itself(token, **NO_ACTOR)
        stage.attack(parameters, error=IT, reason="target_refused")


@pytest.mark.requirement("TX-28", "TEX-20")
def test_the_delivered_guardrail_refuses_even_the_proven_actor(stage: Stage) -> None:
    parameters = for_itself(own_token(stage))
    stage.attack(parameters, error=IT, reason="policy_forbidden")


@pytest.mark.requirement("TX-28", "sec:ACT-04")
def test_the_proof_of_another_is_none(staging: Staging, lenient: PolicyEngine) -> None:
    stage = staging(Cast(), engine=lenient)
    borrowed = {"actor_token": good_assertion("agent-x")}
    parameters = for_itself(own_token(stage), **borrowed)
    stage.attack(parameters, error=IR, reason="actor_not_caller")


@pytest.mark.requirement("TX-28", "TX-21", "TEX-12", "TX-22")
def test_nothing_but_the_actor_is_gained(staging: Staging, lenient: PolicyEngine) -> None:
    stage = staging(Cast(), engine=lenient)
    narrow = good_access_token(scope="a:read", exp=NOW + 21)
    wider = for_itself(narrow, scope="a:read b:read")
    claims = stage.grant(wider).claims
    assert (claims["scope"], claims["exp"]) == ("a:read", NOW + 21)
    # Policy permits impersonation too; it is out of the question where an actor was proved.
    assert claims["act"]["sub"] == "mcp1-srv"
    beyond = for_itself(narrow, scope="b:read")
    stage.attack(beyond, error=IS, reason="scope_exceeds_subject")


@pytest.mark.requirement("TX-28", "sec:ACT-10")
def test_it_cannot_be_done_twice_in_one_chain(staging: Staging, lenient: PolicyEngine) -> None:
    """The second token would name nobody new: it would be the first one again."""
    stage = staging(Cast(), engine=lenient)
    once = stage.grant(for_itself(own_token(stage)))
    stage.refuse(for_itself(once.token), error="invalid_target", reason="target_refused")


@pytest.mark.requirement("TX-28", "TEX-20")
def test_the_credential_itself_is_no_proof_besides(staging: Staging, lenient: PolicyEngine) -> None:
    stage = staging(Cast(), engine=lenient)
    credential = by_assertion("mcp1-srv")
    same = {"actor_token": str(credential["client_assertion"])}
    parameters = for_itself(own_token(stage), **same) | credential
    stage.refuse(parameters, error=IT, reason="target_refused")
