"""The confusion matrix: one good token of every kind in every slot, of which each fits its own alone."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from broker.oauth import (
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_TOKEN,
    TOKEN_TYPE_JWT,
    TYP_ACCESS_TOKEN,
)
from tests.harness import decode_header
from tests.idp import signer
from tests.stage import Stage
from tests.stagehands import Staging
from tests.world import (
    AGENTS,
    RES_1,
    SERVERS,
    Cast,
    Parameters,
    assertion_request,
    by_assertion,
    client_parameters,
    exchange_parameters,
    good_access_token_claims,
    good_assertion,
    good_id_jag,
    good_id_token,
    redeem_parameters,
)

Making = Callable[[Stage], str]
Placing = Callable[[Stage, str], Parameters]

SERVER = "mcp1-srv"


def own_access_token(stage: Stage) -> str:
    """A token of ours, made for a user's agent and addressed to the server."""
    parameters = exchange_parameters(
        good_id_token(), subject_token_type=TOKEN_TYPE_ID_TOKEN, resource=RES_1
    )
    return stage.grant(parameters | by_assertion("agent-x")).token


KINDS: Mapping[str, Making] = {
    "our access token": own_access_token,
    "our machine token": lambda stage: stage.grant(client_parameters(SERVER, scope="b:read")).token,
    "our identity assertion": lambda stage: stage.grant(assertion_request()).token,
    "another's access token": lambda _: signer("a1").sign(
        good_access_token_claims(), typ=TYP_ACCESS_TOKEN
    ),
    "another's plain JWT": lambda _: signer("a1").sign(good_access_token_claims()),
    "an ID token": lambda _: good_id_token(),
    "another's identity assertion": lambda _: good_id_jag(),
    "a client assertion": lambda _: good_assertion(SERVER),
}


def as_subject(token_type: str) -> Placing:
    """The server exchanges it for a token for the API."""
    return lambda _, token: (
        exchange_parameters(token, subject_token_type=token_type) | by_assertion(SERVER)
    )


def as_actor(token_type: str) -> Placing:
    """The server proves by it that it is the actor."""
    return lambda stage, token: stage.good(actor_token=token, actor_token_type=token_type)


SLOTS: Mapping[str, tuple[Placing, str, frozenset[str]]] = {
    "subject_token, access_token": (
        as_subject(TOKEN_TYPE_ACCESS_TOKEN),
        "invalid_request",
        frozenset({"our access token", "our machine token", "another's access token"}),
    ),
    "subject_token, jwt": (
        as_subject(TOKEN_TYPE_JWT),
        "invalid_request",
        frozenset({"another's plain JWT"}),
    ),
    "subject_token, id_token": (
        lambda _, token: (
            exchange_parameters(token, subject_token_type=TOKEN_TYPE_ID_TOKEN, resource=RES_1)
            | by_assertion("agent-x")
        ),
        "invalid_request",
        frozenset({"an ID token"}),
    ),
    "subject_token of an assertion to be": (
        lambda _, token: assertion_request(subject_token=token),
        "invalid_request",
        frozenset({"an ID token"}),
    ),
    "actor_token, access_token": (
        as_actor(TOKEN_TYPE_ACCESS_TOKEN),
        "invalid_request",
        frozenset({"our machine token"}),
    ),
    "actor_token, jwt": (
        as_actor(TOKEN_TYPE_JWT),
        "invalid_request",
        frozenset({"a client assertion"}),
    ),
    "client_assertion": (
        lambda stage, token: stage.good() | {"client_assertion": token},
        "invalid_client",
        frozenset({"a client assertion"}),
    ),
    "assertion": (
        lambda _, token: redeem_parameters(token),
        "invalid_grant",
        frozenset({"another's identity assertion"}),
    ),
}
"""Each slot: how a token gets into it, the error of a bad one, and the kinds that belong there."""


@pytest.fixture
def stage(staging: Staging) -> Stage:
    """A stage on which the server may have a token of its own too."""
    server = replace(Cast().client(SERVER), groups=SERVERS | AGENTS)
    return staging(Cast().with_client(server))


@pytest.mark.requirement("AT-16", "AT-13", "JWS-18", "JWT-07", "IDJAG-R-02", "JAG-02", "JAG-09")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slot", SLOTS)
def test_a_token_fits_the_slots_of_its_kind_alone(stage: Stage, kind: str, slot: str) -> None:
    place, error, fitting = SLOTS[slot]
    parameters = place(stage, KINDS[kind](stage))
    answer = stage.ask(parameters)
    if kind in fitting:
        assert answer.is_granted, stage.broker.records()[-1]
    else:
        assert answer.error == error
        assert stage.broker.records()[-1]["decision"] == "deny"


@pytest.mark.requirement("AT-13")
def test_our_keys_sign_both_kinds_and_the_type_tells_them_apart(stage: Stage) -> None:
    """One key set serves both, so that whoever verifies must look at ``typ``, as we do."""
    access, assertion = (
        decode_header(token)
        for token in (own_access_token(stage), stage.grant(assertion_request()).token)
    )
    assert access["kid"] == assertion["kid"]
    assert (access["typ"], assertion["typ"]) == ("at+jwt", "oauth-id-jag+jwt")
