"""A token that is bound to a key is good together with a proof of that key, for one request (RFC 9449 7)."""

from collections.abc import Callable, Iterator

import pytest

from broker.client._proofs import SpentProofs
from broker.client.refusals import InvalidProof, InvalidToken, NotServed, Unverifiable
from broker.client.verify import Proof
from broker.errors import Reason, TokenRejected
from tests.client.key_server import KeyServer, running_key_server
from tests.client.receiving import (
    BROKER_KEY,
    KINDS,
    NOW,
    RESOURCE,
    Receiver,
    bound,
    claims_for,
    good_token,
    hash_of,
    proof_for,
    receiver,
)
from tests.idp import signer
from tests.proofs import HOLDER, OTHER_HOLDER, bare_jwk, signed_proof, thumbprint

RSA_HOLDER = signer("holder-RS256", "RS256")


@pytest.fixture(scope="module")
def server() -> Iterator[KeyServer]:
    with running_key_server() as running:
        running.publish(BROKER_KEY.jwk)
        yield running


@pytest.fixture(params=KINDS)
def verifier(request: pytest.FixtureRequest, server: KeyServer) -> Receiver:
    return receiver(request.param, server)


def request_with(*values: str, method: str = "POST", url: str = RESOURCE) -> Proof:
    return Proof(values, method, url)


def refusal(verifier: Receiver, token: str, proof: Proof | None) -> NotServed:
    with pytest.raises(NotServed) as refused:
        verifier.verify(token, proof=proof)
    return refused.value


@pytest.mark.requirement("DPOP-08", "AT-17")
def test_a_bound_token_with_a_proof_is_accepted(verifier: Receiver, server: KeyServer) -> None:
    token = bound(server)

    delegation = verifier.verify(token, proof=request_with(proof_for(token)))

    assert delegation.key == thumbprint(HOLDER)


@pytest.mark.parametrize(
    "htu",
    ["HTTPS://Tickets.MCP.Example/mcp", "https://tickets.mcp.example:443/mcp", f"{RESOURCE}?a=b#c"],
)
def test_an_address_is_compared_after_normalisation(
    verifier: Receiver, server: KeyServer, htu: str
) -> None:
    token = bound(server)

    assert verifier.verify(token, proof=request_with(proof_for(token, htu=htu))).key


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
def test_keys_of_other_kinds_prove_as_well(server: KeyServer, algorithm: str) -> None:
    key = signer(f"holder-{algorithm}", algorithm)
    token = good_token(server.issuer, cnf={"jkt": thumbprint(key)})

    assert receiver("sync", server).verify(token, proof=request_with(proof_for(token, key=key))).key


Make = Callable[[str], Proof]

REFUSED: dict[str, tuple[Make, Reason]] = {
    "no_proof": (lambda _: request_with(), Reason.POP_MALFORMED),
    "two_proofs": (
        lambda token: request_with(proof_for(token), proof_for(token)),
        Reason.POP_MALFORMED,
    ),
    "an_endless_proof": (
        lambda token: request_with(proof_for(token, note="x" * 4096)),
        Reason.POP_MALFORMED,
    ),
    "no_jwt": (lambda _: request_with("proof"), Reason.POP_MALFORMED),
    "the_token_itself": (request_with, Reason.POP_MALFORMED),
    "another_type": (
        lambda token: request_with(signed_proof(claims_for(token), typ="JWT")),
        Reason.POP_MALFORMED,
    ),
    "an_empty_key": (
        lambda token: request_with(signed_proof(claims_for(token), jwk={})),
        Reason.POP_MALFORMED,
    ),
    "a_private_key": (
        lambda token: request_with(
            signed_proof(claims_for(token), jwk={**bare_jwk(HOLDER), "d": "AAAA"})
        ),
        Reason.POP_MALFORMED,
    ),
    "a_key_for_another_algorithm": (
        lambda token: request_with(
            signed_proof(claims_for(token), jwk={**bare_jwk(HOLDER), "alg": "ES384"})
        ),
        Reason.POP_MALFORMED,
    ),
    "a_key_that_is_spelt_in_another_way": (
        lambda token: request_with(
            signed_proof(
                claims_for(token), key=RSA_HOLDER, jwk={**bare_jwk(RSA_HOLDER), "e": "AAEAAQ"}
            )
        ),
        Reason.POP_MALFORMED,
    ),
    "a_symmetric_algorithm": (
        lambda token: request_with(signed_proof(claims_for(token), alg="HS256")),
        Reason.POP_MALFORMED,
    ),
    "a_key_at_an_address_too": (
        lambda token: request_with(signed_proof(claims_for(token), jku="https://evil.example")),
        Reason.POP_MALFORMED,
    ),
    "somebody_elses_signature": (
        lambda token: request_with(signed_proof(claims_for(token), jwk=bare_jwk(OTHER_HOLDER))),
        Reason.POP_SIGNATURE,
    ),
    "somebody_elses_key": (
        lambda token: request_with(proof_for(token, key=OTHER_HOLDER)),
        Reason.POP_MISMATCH,
    ),
    "another_method": (
        lambda token: request_with(proof_for(token, htm="GET")),
        Reason.POP_HTM,
    ),
    "a_method_in_small_letters": (
        lambda token: request_with(proof_for(token, htm="post")),
        Reason.POP_HTM,
    ),
    "another_address": (
        lambda token: request_with(proof_for(token, htu="https://wiki.mcp.example/mcp")),
        Reason.POP_HTU,
    ),
    "another_path": (
        lambda token: request_with(proof_for(token, htu=RESOURCE + "/")),
        Reason.POP_HTU,
    ),
    "another_scheme": (
        lambda token: request_with(proof_for(token, htu="http://tickets.mcp.example/mcp")),
        Reason.POP_HTU,
    ),
    "a_user_in_the_address": (
        lambda token: request_with(proof_for(token, htu="https://x@tickets.mcp.example/mcp")),
        Reason.POP_HTU,
    ),
    "a_port_out_of_range": (
        lambda token: request_with(proof_for(token, htu="https://tickets.mcp.example:99999/")),
        Reason.POP_HTU,
    ),
    "no_address": (
        lambda token: request_with(proof_for(token, htu=None)),
        Reason.POP_MALFORMED,
    ),
    "no_time": (lambda token: request_with(proof_for(token, iat=None)), Reason.POP_MALFORMED),
    "an_old_proof": (
        lambda token: request_with(proof_for(token, iat=NOW - 91)),
        Reason.POP_STALE,
    ),
    "a_proof_of_tomorrow": (
        lambda token: request_with(proof_for(token, iat=NOW + 31)),
        Reason.POP_STALE,
    ),
    "no_hash_of_the_token": (
        lambda token: request_with(proof_for(token, ath=None)),
        Reason.POP_MALFORMED,
    ),
    "the_hash_of_another_token": (
        lambda token: request_with(proof_for(token, ath=hash_of("another"))),
        Reason.POP_MISMATCH,
    ),
    "no_id": (lambda token: request_with(proof_for(token, jti=None)), Reason.POP_MALFORMED),
}


@pytest.mark.requirement("DPOP-01", "DPOP-02", "DPOP-03", "DPOP-08")
@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_proof_is_refused(verifier: Receiver, server: KeyServer, name: str) -> None:
    make, reason = REFUSED[name]
    token = bound(server)

    refused = refusal(verifier, token, make(token))

    assert isinstance(refused, InvalidToken)
    assert (refused.status, refused.reason) == (401, reason)


def test_a_proof_serves_once(verifier: Receiver, server: KeyServer) -> None:
    token = bound(server)
    proof = request_with(proof_for(token))
    verifier.verify(token, proof=proof)

    refused = refusal(verifier, token, proof)

    assert isinstance(refused, InvalidProof)
    assert refused.reason is Reason.REPLAY
    assert refused.www_authenticate.startswith('DPoP error="invalid_dpop_proof"')


def test_a_token_that_is_not_accepted_spends_no_proof(
    verifier: Receiver, server: KeyServer
) -> None:
    token = bound(server)
    proof = proof_for(token)

    refusal(verifier, token, request_with(proof, method="GET"))

    assert verifier.verify(token, proof=request_with(proof)).key


@pytest.mark.requirement("DPOP-08")
def test_a_bound_token_is_never_taken_for_a_bearer_token(
    verifier: Receiver, server: KeyServer
) -> None:
    refused = refusal(verifier, bound(server), None)

    assert isinstance(refused, InvalidToken)
    assert refused.reason is Reason.POP_REQUIRED
    assert refused.www_authenticate.startswith('DPoP error="invalid_token"')
    assert "ES256" in refused.www_authenticate


def test_a_bearer_token_is_not_bound_by_a_proof_that_comes_along(
    verifier: Receiver, server: KeyServer
) -> None:
    token = good_token(server.issuer)

    refused = refusal(verifier, token, request_with(proof_for(token)))

    assert isinstance(refused, InvalidToken)
    assert refused.reason is Reason.POP_MISMATCH


def test_proofs_are_forgotten_when_they_are_too_old_and_not_before() -> None:
    spent = SpentProofs(capacity=2)
    spent.spend("a", "1", until=10, now=0)
    spent.spend("b", "1", until=11, now=1)

    with pytest.raises(TokenRejected):
        spent.spend("a", "1", until=20, now=10)
    with pytest.raises(Unverifiable):
        spent.spend("c", "1", until=20, now=10)
    spent.spend("c", "1", until=21, now=11)


def test_whoever_makes_many_proofs_takes_the_place_of_nobody_else() -> None:
    spent = SpentProofs(capacity=80)
    for number in range(10):
        spent.spend("busy", str(number), until=100, now=0)

    with pytest.raises(Unverifiable):
        spent.spend("busy", "another", until=100, now=1)

    spent.spend("quiet", "1", until=101, now=1)
    spent.spend("busy", "another", until=200, now=101)
    assert set(spent._counts) == {"quiet", "busy"}


def test_nothing_of_a_proof_is_shown() -> None:
    assert "secret" not in repr(request_with("secret"))
