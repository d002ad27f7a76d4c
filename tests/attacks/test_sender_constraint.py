"""Group 1J of the attack catalogue: tokens that are bound to a key, and who may present them."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.model import ExplainRequest, Explanation, RequestContext, new_request_id
from broker.oauth import TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_TOKEN, TYP_ACCESS_TOKEN
from broker.rpc.call import CallMetadata
from broker.rpc.token_service import read_exchange
from tests.harness import Answer, exchange_message
from tests.idp import Signer, encode
from tests.proofs import HOLDER, OTHER_HOLDER, bare_jwk, good_proof, proof_for, thumbprint
from tests.stage import ACTOR, ASSERTION, CLIENT, SUBJECT, SVID, WORKLOAD, Slot, Stage
from tests.stagehands import Staging
from tests.world import (
    API,
    ISS,
    NOW,
    RES_1,
    Cast,
    Parameters,
    assertion_request,
    by_assertion,
    client_parameters,
    exchange_parameters,
    fresh_jti,
    good_id_jag,
    good_id_token,
    jwt_client,
    redeem_parameters,
)

BOUND = {"jkt": thumbprint(HOLDER)}
EXPLAIN = f"{ISS}/broker.v1.PolicyService/ExplainDecision"


def grant(stage: Stage, parameters: Parameters, *, key: Signer = HOLDER) -> Answer:
    """The answer to a request that comes with a good proof."""
    return stage.grant(parameters, proofs=[proof_for(stage, parameters, key=key)])


def identity_exchange(**changes: Any) -> Parameters:
    """An agent that exchanges its user's identity for a token for RES-1."""
    parameters = {
        "subject_token_type": TOKEN_TYPE_ID_TOKEN,
        "resource": RES_1,
        "scope": "a:read b:read",
        **changes,
    }
    return exchange_parameters(good_id_token(), **parameters) | by_assertion("agent-x")


def narrowing(token: str, *, client: str = "agent-x", **changes: Any) -> Parameters:
    """A request for a narrower token out of one of ours."""
    parameters = {"resource": RES_1, "scope": "b:read", **changes}
    return exchange_parameters(token, **parameters) | by_assertion(client)


ACCESS_TOKEN_REQUESTS: dict[str, Callable[[], Parameters]] = {
    "exchange": identity_exchange,
    "client": client_parameters,
    "redeem": redeem_parameters,
}
REQUESTS = {**ACCESS_TOKEN_REQUESTS, "id_jag": assertion_request}


# ---- what a good proof gives


@pytest.mark.requirement("DPOP-05", "AT-17", "IDJAG-R-14")
@pytest.mark.parametrize("kind", ACCESS_TOKEN_REQUESTS)
def test_a_proved_key_binds_the_token(stage: Stage, kind: str) -> None:
    answer = grant(stage, ACCESS_TOKEN_REQUESTS[kind]())

    assert answer.claims["cnf"] == BOUND
    assert answer.fields["token_type"] == "DPoP"
    assert stage.broker.records()[-1]["confirmation"] == thumbprint(HOLDER)


@pytest.mark.requirement("IDJAG-I-23")
def test_a_proved_key_goes_into_an_identity_assertion(stage: Stage) -> None:
    bound, unbound = grant(stage, assertion_request()), stage.grant(assertion_request())

    assert bound.claims["cnf"] == BOUND
    assert "cnf" not in unbound.claims
    assert bound.fields["token_type"] == unbound.fields["token_type"] == "N_A"


@pytest.mark.requirement("POP-03", "TX-25")
def test_what_is_made_of_a_bound_token_is_bound_to_the_same_key(stage: Stage) -> None:
    first = grant(stage, identity_exchange())

    second = grant(stage, narrowing(first.token))

    assert second.claims["cnf"] == first.claims["cnf"] == BOUND
    assert second.fields["token_type"] == "DPoP"


@pytest.mark.requirement("POP-03", "IDJAG-R-14")
def test_a_bound_identity_assertion_is_redeemed_for_a_bound_token(stage: Stage) -> None:
    answer = grant(stage, redeem_parameters(good_id_jag(cnf=BOUND)))

    assert answer.claims["cnf"] == BOUND
    assert answer.fields["token_type"] == "DPoP"


@pytest.mark.requirement("POP-09")
def test_another_client_with_the_original_key_gets_no_other_binding(stage: Stage) -> None:
    """Policy lets this MCP server exchange what it receives; that changes nothing about the key."""
    received = grant(stage, identity_exchange())

    answer = grant(stage, narrowing(received.token, client="mcp1-srv", resource=API))

    assert answer.claims["cnf"] == BOUND


# ---- a bound token without its key


def own_machine_token(stage: Stage, client: str, **changes: Any) -> str:
    """A token of the broker's own that names a client, as it would be issued to it."""
    claims = {
        "iss": ISS,
        "sub": f"client:{client}",
        "aud": ISS,
        "client_id": client,
        "iat": NOW,
        "exp": NOW + 300,
        "jti": fresh_jti(),
        **changes,
    }
    key = stage.broker.key_store.signing_key("ES256")
    header = {"typ": TYP_ACCESS_TOKEN, "alg": key.algorithm, "kid": key.kid}
    signing_input = b".".join(encode(json.dumps(one).encode()) for one in (header, claims))
    return (signing_input + b"." + encode(key.sign(signing_input))).decode()


def bound_actor(stage: Stage) -> Parameters:
    token = own_machine_token(stage, "mcp1-srv", cnf=BOUND)
    return stage.good(actor_token=token, actor_token_type=TOKEN_TYPE_ACCESS_TOKEN)


EXCHANGES: dict[str, Callable[[Stage], Parameters]] = {
    "subject": lambda stage: SUBJECT.place(stage, SUBJECT.token(cnf=BOUND)),
    "own-subject": lambda stage: narrowing(grant(stage, identity_exchange()).token),
    "relayed": lambda stage: narrowing(
        grant(stage, identity_exchange()).token, client="mcp1-srv", resource=API
    ),
    "identity": lambda _stage: identity_exchange(subject_token=good_id_token(cnf=BOUND)),
    "id-jag": lambda _stage: assertion_request(subject_token=good_id_token(cnf=BOUND)),
    "actor": bound_actor,
}
"""Exchanges that present a token which is bound to the holder's key."""


@pytest.mark.requirement("POP-01", "POP-03", "POP-09", "TX-25", "std:ACT-15")
@pytest.mark.parametrize("kind", EXCHANGES)
def test_a_bound_token_is_nothing_without_a_proof(stage: Stage, kind: str) -> None:
    stage.attack(EXCHANGES[kind](stage), error="invalid_request", reason="pop_required")


@pytest.mark.requirement("POP-02", "POP-09", "TX-25")
@pytest.mark.parametrize("kind", EXCHANGES)
def test_a_bound_token_is_nothing_with_another_key(stage: Stage, kind: str) -> None:
    """So nobody rebinds what was made for another's key, the MCP server it was sent to included."""
    parameters = EXCHANGES[kind](stage)
    proofs = [proof_for(stage, parameters, key=OTHER_HOLDER)]
    stage.attack(parameters, error="invalid_dpop_proof", reason="pop_mismatch", proofs=proofs)


@pytest.mark.requirement("POP-03")
@pytest.mark.parametrize("kind", EXCHANGES)
def test_a_bound_token_with_its_key_gives_a_bound_one(stage: Stage, kind: str) -> None:
    assert grant(stage, EXCHANGES[kind](stage)).claims["cnf"] == BOUND


@pytest.mark.requirement("POP-02")
def test_a_subject_and_an_actor_with_different_keys_do_not_go_together(stage: Stage) -> None:
    for key in (HOLDER, OTHER_HOLDER):
        parameters = bound_actor(stage)
        parameters["subject_token"] = SUBJECT.token(cnf={"jkt": thumbprint(OTHER_HOLDER)})
        proofs = [proof_for(stage, parameters, key=key)]
        stage.attack(parameters, error="invalid_dpop_proof", reason="pop_mismatch", proofs=proofs)


@pytest.mark.requirement("POP-01", "POP-02", "IDJAG-R-14")
def test_a_bound_identity_assertion_is_refused_as_a_grant(stage: Stage) -> None:
    for key, reason in [(None, "pop_required"), (OTHER_HOLDER, "pop_mismatch")]:
        parameters = redeem_parameters(good_id_jag(cnf=BOUND))
        proofs = [] if key is None else [proof_for(stage, parameters, key=key)]
        stage.attack(parameters, error="invalid_grant", reason=reason, proofs=proofs)


@pytest.mark.requirement("POP-06")
@pytest.mark.parametrize("slot", [SUBJECT, ASSERTION], ids=lambda slot: slot.name)
def test_a_certificate_is_not_proved_by_a_dpop_proof(stage: Stage, slot: Slot) -> None:
    for value in ("A" * 43, "x", None, 1):
        parameters = slot.place(stage, slot.token(cnf={"x5t#S256": value}))
        for proofs in ([], [proof_for(stage, parameters)]):
            stage.attack(parameters, error=slot.error, reason="pop_required", proofs=proofs)


JKT = thumbprint(HOLDER)


@pytest.mark.requirement("POP-08", "IDJAG-R-14")
@pytest.mark.parametrize("slot", [SUBJECT, ASSERTION], ids=lambda slot: slot.name)
@pytest.mark.parametrize(
    "confirmation",
    [
        {},
        [],
        "x",
        1,
        [BOUND],
        {"jwk": bare_jwk(HOLDER)},
        {"kid": "holder"},
        {"jku": "https://evil.test/jwks"},
        {**BOUND, "x5t#S256": "A" * 43},
        {**BOUND, "jwk": bare_jwk(HOLDER)},
        {**BOUND, "extra": None},
        {"JKT": JKT},
        {"jkt": ""},
        {"jkt": None},
        {"jkt": [JKT]},
        {"jkt": JKT + "="},
        {"jkt": JKT[:-1]},
        {"jkt": JKT[:-1] + "B"},
        {"jkt": " " + JKT[1:]},
        {"jkt": "A" * 10_000},
    ],
    # The values hold a fresh thumbprint, so their text may not name a test.
    ids=lambda _: None,
)
def test_a_binding_that_is_not_understood_is_refused(
    stage: Stage, slot: Slot, confirmation: Any
) -> None:
    """A proof by the key that is named does not help: all that is there must hold."""
    parameters = slot.place(stage, slot.token(cnf=confirmation))
    for proofs in ([], [proof_for(stage, parameters)]):
        stage.refuse(parameters, error=slot.error, reason="cnf_unsupported", proofs=proofs)


@pytest.mark.requirement("POP-08")
@pytest.mark.parametrize("slot", [ACTOR, CLIENT, WORKLOAD, SVID], ids=lambda slot: slot.name)
def test_what_clients_and_workloads_say_of_themselves_is_never_bound(
    stage: Stage, slot: Slot
) -> None:
    for confirmation in (BOUND, {"x5t#S256": "A" * 43}, {}):
        parameters = slot.place(stage, slot.token(cnf=confirmation))
        for proofs in ([], [proof_for(stage, parameters)]):
            stage.refuse(parameters, error=slot.error, reason="cnf_unsupported", proofs=proofs)


# ---- a client that gets bound tokens alone


@pytest.mark.requirement("POP-07", "DPOP-06")
@pytest.mark.parametrize("kind", REQUESTS)
def test_a_client_for_bound_tokens_gets_no_other(staging: Staging, kind: str) -> None:
    cast = Cast()
    stage = staging(cast.with_client(replace(cast.client("agent-x"), is_bound=True)))

    stage.attack(REQUESTS[kind](), error="invalid_dpop_proof", reason="pop_required")

    assert grant(stage, REQUESTS[kind]()).claims["cnf"] == BOUND


@pytest.mark.requirement("POP-07")
def test_a_client_that_proved_nothing_hears_nothing_of_proofs(staging: Staging) -> None:
    stage = staging(Cast().with_client(jwt_client("agent-x", is_bound=True)))
    parameters = client_parameters() | {"client_assertion": CLIENT.token(iss="agent-x")}
    for proofs in ([], ["x"], [proof_for(stage, parameters)]):
        stage.attack(parameters, error="invalid_client", reason="claim_inconsistent", proofs=proofs)


@pytest.mark.requirement("POP-03")
def test_a_bound_token_lives_no_longer_than_its_input(staging: Staging) -> None:
    stage = staging(replace(Cast(), lifetime=timedelta(minutes=10)))
    parameters = SUBJECT.place(stage, SUBJECT.token(cnf=BOUND, exp=NOW + 100))
    assert grant(stage, parameters).fields["expires_in"] == 100


def explain(stage: Stage, parameters: Parameters, *proofs: str) -> Explanation:
    """What an operator's tool is told of a request that mcp1-srv would make."""
    message = exchange_message(parameters | by_assertion("auditor"))
    metadata = CallMetadata(proofs=proofs, proof_target=EXPLAIN)
    asked = ExplainRequest(read_exchange(message, metadata), client_id="mcp1-srv")
    context = RequestContext("grpc", new_request_id())
    return stage.broker.endpoints.explain.explain(context, lambda: asked)


@pytest.mark.requirement("POP-01", "POP-02")
def test_a_bound_token_is_not_explained_to_who_does_not_hold_its_key(stage: Stage) -> None:
    parameters = SUBJECT.place(stage, SUBJECT.token(cnf=BOUND))

    refused = explain(stage, parameters)
    mismatched = explain(stage, parameters, good_proof(EXPLAIN, key=OTHER_HOLDER))
    explained = explain(stage, parameters, good_proof(EXPLAIN))

    assert (refused.error, refused.reason) == ("invalid_request", "pop_required")
    assert (mismatched.error, mismatched.reason) == ("invalid_dpop_proof", "pop_mismatch")
    assert explained.is_permitted
    assert explained.claims is not None
    assert explained.claims["cnf"] == BOUND
