"""What holds of bound tokens, however inputs, proofs and clients are combined."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.interfaces import PolicyEngine
from broker.oauth import TOKEN_TYPE_ID_TOKEN
from tests.harness import Broker, GrpcFace, HttpFace
from tests.idp import Signer
from tests.proofs import HOLDER, OTHER_HOLDER, proof_for, thumbprint
from tests.stage import Stage
from tests.world import (
    API,
    RES_1,
    RES_2,
    Cast,
    Parameters,
    assertion_request,
    by_assertion,
    client_parameters,
    exchange_parameters,
    good_access_token,
    good_id_jag,
    good_id_token,
    redeem_parameters,
)

KEYS: tuple[Signer | None, ...] = (None, HOLDER, OTHER_HOLDER)


def names(key: Signer | None) -> str:
    """How a test calls a key."""
    return "none" if key is None else key.kid


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, policy: PolicyEngine) -> Iterator[Broker]:
    made = Broker(tmp_path_factory.mktemp("broker"), cast=Cast(), policy=policy)
    yield made
    made.close()


@pytest.fixture(scope="module", params=["http", "grpc"])
def stage(request: pytest.FixtureRequest, broker: Broker) -> Iterator[Stage]:
    if request.param == "http":
        yield Stage(broker, HttpFace(broker))
        return
    face = GrpcFace(broker)
    yield Stage(broker, face)
    face.close()


def confirmation(key: Signer | None) -> Any:
    return None if key is None else {"jkt": thumbprint(key)}


def request_with(kind: str, key: Signer | None) -> Parameters:
    """A request that policy permits, whose input is bound to the key where there are both."""
    cnf = confirmation(key)
    if kind == "identity":
        asked = {"subject_token_type": TOKEN_TYPE_ID_TOKEN, "resource": RES_1, "scope": None}
        return exchange_parameters(good_id_token(cnf=cnf), **asked) | by_assertion("agent-x")
    if kind == "id-jag":
        return assertion_request(subject_token=good_id_token(cnf=cnf))
    if kind == "redeem":
        return redeem_parameters(good_id_jag(cnf=cnf))
    if kind == "client":
        return client_parameters()
    return exchange_parameters(good_access_token(cnf=cnf)) | by_assertion("mcp1-srv")


@pytest.mark.requirement("POP-01", "POP-02", "POP-03", "DPOP-05", "TX-25", "IDJAG-R-14")
@pytest.mark.parametrize("kind", ["subject", "identity", "id-jag", "redeem", "client"])
@pytest.mark.parametrize("bound_to", KEYS, ids=names)
@pytest.mark.parametrize("proved", KEYS, ids=names)
def test_a_token_is_bound_to_the_key_that_was_proved_and_to_no_other(
    stage: Stage, kind: str, bound_to: Signer | None, proved: Signer | None
) -> None:
    parameters = request_with(kind, bound_to)
    proofs = [] if proved is None else [proof_for(stage, parameters, key=proved)]

    answer = stage.ask(parameters, proofs=proofs)

    assert answer.is_granted is (kind == "client" or bound_to in (None, proved))
    if answer.is_granted:
        assert answer.claims.get("cnf") == confirmation(proved)
        expected = "N_A" if kind == "id-jag" else "Bearer" if proved is None else "DPoP"
        assert answer.fields["token_type"] == expected


hops = st.tuples(
    st.sampled_from([("agent-x", RES_1), ("mcp1-srv", API), ("agent-n", RES_2)]),
    st.sampled_from([*KEYS, HOLDER]),
)


@pytest.mark.requirement("POP-03", "POP-09", "TEX-13")
@settings(max_examples=80, deadline=None)
@given(hops=st.lists(hops, min_size=1, max_size=6))
def test_no_chain_of_exchanges_loses_or_changes_a_binding(stage: Stage, hops: list[Any]) -> None:
    parameters = request_with("identity", HOLDER)
    token = stage.ask(parameters, proofs=[proof_for(stage, parameters)]).token
    assert token
    for (client, resource), key in hops:
        asked = exchange_parameters(token, resource=resource, scope=None)
        parameters = asked | by_assertion(client)
        proofs = [] if key is None else [proof_for(stage, parameters, key=key)]
        answer = stage.ask(parameters, proofs=proofs)
        if answer.is_granted:
            assert key is HOLDER
            assert answer.claims["cnf"] == confirmation(HOLDER)
            assert answer.fields["token_type"] == "DPoP"
            token = answer.token
