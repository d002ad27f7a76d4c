"""The proof verifier by itself: published examples, weak keys, and whatever else is sent to it."""

import base64
import json
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.client_auth.dpop import LONGEST_PROOF, ProofVerifier
from broker.errors import InvalidDpopProof, Reason
from broker.oauth import PROOF_ALGORITHMS
from broker.tokens.jwk import verification_key
from tests.harness import Clock
from tests.idp import Signer, encode, signer
from tests.proofs import HOLDER, bare_jwk, good_proof, good_proof_claims, signed_proof, thumbprint
from tests.world import NOW

_VECTORS = Path(os.environ.get("BROKER_VECTORS", Path(__file__).parents[3] / "shared" / "vectors"))
PUBLISHED = _VECTORS / "rfc_vectors.json"

published = pytest.mark.skipif(
    not PUBLISHED.exists(), reason="the vectors are not here; BROKER_VECTORS names their folder"
)

HTU = "https://sts.test/token"
VERIFIER = ProofVerifier(lambda: NOW, timedelta(seconds=30))


def reason_of(*proofs: str, target: str = HTU, verifier: ProofVerifier = VERIFIER) -> Reason | None:
    """Why the proofs are refused, or ``None`` when they are not."""
    try:
        verifier.verify(proofs, target)
    except InvalidDpopProof as refused:
        return refused.reason
    return None


# ---- published examples


@published
@pytest.mark.requirement("DPOP-01", "DPOP-02", "DPOP-03")
def test_the_proofs_of_rfc_9449_are_judged_as_it_says() -> None:
    vectors = json.loads(PUBLISHED.read_bytes())
    for vector in vectors["dpop"]:
        claims = vector["claims"]
        verifier = ProofVerifier(Clock(claims["iat"]), timedelta(0))
        if claims["htm"] != "POST":
            assert reason_of(vector["proof"], verifier=verifier) is Reason.POP_HTM
            continue
        proved = verifier.verify((vector["proof"],), claims["htu"])
        assert proved.thumbprint == vectors["dpop_jkt"]
        assert proved.one_time_id.jti == claims["jti"]
        assert proved.one_time_id.issuer == proved.thumbprint
        assert proved.one_time_id.until == claims["iat"] + 60
        assert reason_of(vector["proof"], verifier=verifier) is Reason.POP_HTU


@published
@pytest.mark.requirement("AT-17")
def test_the_thumbprints_of_the_rfcs_are_ours() -> None:
    algorithms = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}
    for vector in json.loads(PUBLISHED.read_bytes())["thumbprints"]:
        jwk = vector["jwk"]
        assert verification_key(jwk, algorithms[jwk["kty"]]).thumbprint == vector["thumbprint"]


@pytest.mark.parametrize("algorithm", PROOF_ALGORITHMS)
def test_a_thumbprint_is_that_of_the_key_alone(algorithm: str) -> None:
    key = signer(f"thumb-{algorithm}", "EdDSA" if algorithm == "Ed25519" else algorithm)
    for jwk in (bare_jwk(key), {**bare_jwk(key), "kid": "x", "use": "sig", "ext": True}):
        assert verification_key(jwk, algorithm).thumbprint == thumbprint(key)


def test_coordinates_that_begin_with_zeros_keep_them() -> None:
    """About one key in 128 has such a coordinate; its thumbprint must not depend on luck."""
    for number in range(1, 2000):
        key = ec.derive_private_key(number, ec.SECP256R1())
        point = key.public_key().public_numbers()
        if point.x >> 248 == 0:
            break
    else:
        raise AssertionError("no such point")
    holder = Signer("zeros", "ES256", key)
    assert len(holder.jwk["x"]) == 43
    proved = VERIFIER.verify((good_proof(HTU, key=holder),), HTU)
    assert proved.thumbprint == thumbprint(holder)


# ---- keys that protect nothing


@pytest.mark.requirement("POP-04", "JWS-14", "KEY-05")
def test_a_key_that_anybody_can_sign_with_is_refused() -> None:
    """To be bound to a key of small order is to be bound to nobody."""
    for encoded in (bytes(32), (1).to_bytes(32, "little"), (2**255 - 20).to_bytes(32, "little")):
        weak = {"kty": "OKP", "crv": "Ed25519", "x": encode(encoded).decode()}
        forged = signed_proof(good_proof_claims(HTU), alg="EdDSA", jwk=weak)
        assert reason_of(forged) is Reason.POP_MALFORMED


def rsa_holder(bits: int, exponent: int = 65537) -> Signer:
    return Signer("weak", "RS256", rsa.generate_private_key(exponent, bits))


@pytest.mark.requirement("POP-04", "KEY-05")
def test_a_weak_rsa_key_is_refused() -> None:
    for holder in (rsa_holder(1024), rsa_holder(2048, exponent=3)):
        assert reason_of(good_proof(HTU, key=holder)) is Reason.POP_MALFORMED


@pytest.mark.requirement("POP-04")
def test_a_key_is_taken_in_its_canonical_spelling_alone() -> None:
    holder = signer("canonical", "RS256")
    jwk = bare_jwk(holder)
    zeros = encode(b"\0" + base64.urlsafe_b64decode(jwk["n"] + "==")).decode()
    for change in ({"n": zeros}, {"e": "AAEAAQ"}, {"n": jwk["n"] + "="}, {"n": jwk["n"] + "\n"}):
        proof = signed_proof(good_proof_claims(HTU), key=holder, jwk={**jwk, **change})
        assert reason_of(proof) is Reason.POP_MALFORMED


# ---- sizes


@pytest.mark.requirement("POP-04", "JWS-17", "DOS-06")
def test_a_proof_is_bounded_before_it_is_read() -> None:
    largest = signer("rsa-holder", "RS256")
    assert len(good_proof(HTU, key=largest)) < LONGEST_PROOF
    assert reason_of("x" * (LONGEST_PROOF + 1)) is Reason.POP_MALFORMED
    assert reason_of(good_proof(HTU, padding="x" * LONGEST_PROOF)) is Reason.POP_MALFORMED
    assert reason_of(good_proof(HTU, jti="x" * 256)) is Reason.POP_MALFORMED
    assert reason_of(good_proof(HTU, jti="x" * 255)) is None


@pytest.mark.requirement("POP-04", "CLM-02")
def test_nested_members_are_bounded() -> None:
    deep: Any = 1
    for _ in range(20):
        deep = [deep]
    assert reason_of(good_proof(HTU, deep=deep)) is Reason.POP_MALFORMED
    jwk = {**bare_jwk(HOLDER), "key_ops": deep}
    assert reason_of(signed_proof(good_proof_claims(HTU), jwk=jwk)) is Reason.POP_MALFORMED


@pytest.mark.requirement("POP-04")
@pytest.mark.parametrize("number", [0, 2, 3, 1000])
def test_there_is_exactly_one_proof(number: int) -> None:
    assert reason_of(*[good_proof(HTU)] * number) is Reason.POP_MALFORMED


# ---- addresses


@pytest.mark.requirement("DPOP-02", "DPOP-11")
@pytest.mark.parametrize(
    ("claimed", "target"),
    [
        ("https://sts.test:443/token", "https://sts.test/token"),
        ("https://sts.test/token", "https://STS.test:443/token"),
        ("http://sts.test:80/token", "http://sts.test/token"),
        ("http://127.0.0.1:8080/token", "http://127.0.0.1:8080/token"),
        ("https://[::1]/token", "https://[::1]:443/token"),
        ("https://[::ABCD]/t", "https://[::abcd]/t"),
        ("https://sts.test:1/s/M", "https://sts.test:*/s/M"),
        ("https://sts.test/s/M", "https://sts.test:*/s/M"),
    ],
)
def test_equal_addresses_are_told(claimed: str, target: str) -> None:
    assert reason_of(good_proof(claimed), target=target) is None


@pytest.mark.requirement("POP-04", "DPOP-02")
@pytest.mark.parametrize(
    ("claimed", "target"),
    [
        ("https://sts.test:80/token", "https://sts.test/token"),
        ("http://sts.test:443/token", "https://sts.test/token"),
        ("http://sts.test/token", "http://sts.test:443/token"),
        ("https://sts.test:*/s/M", "https://sts.test:*/s/M"),
        ("https://sts.test:*/token", "https://sts.test/token"),
        ("https://sts.test:99999999/s/M", "https://sts.test:*/s/M"),
        ("https://sts.test:-1/s/M", "https://sts.test:*/s/M"),
        ("https://sts.test:1/s/N", "https://sts.test:*/s/M"),
        ("https://evil.test:1/s/M", "https://sts.test:*/s/M"),
        ("https://sts.test.evil.test/s/M", "https://sts.test:*/s/M"),
        ("https://evil.test/", ""),
        ("/token", "/token"),
        ("", ""),
    ],
)
def test_other_addresses_are_told(claimed: str, target: str) -> None:
    wrong = Reason.POP_HTU if claimed else Reason.POP_MALFORMED
    assert reason_of(good_proof(claimed), target=target) is wrong


# ---- whatever else is sent

MANY = settings(max_examples=300, deadline=None)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)


@pytest.mark.requirement("POP-04", "HTP-05")
@MANY
@given(st.text(max_size=200))
@example("..")
@example("e30.e30.")
def test_no_text_is_taken_for_a_proof(text: str) -> None:
    assert reason_of(text) in (Reason.POP_MALFORMED, Reason.POP_SIGNATURE)


@pytest.mark.requirement("POP-04")
@MANY
@given(header=st.dictionaries(st.text(max_size=6), JSON), jwk=JSON, claims=JSON)
def test_no_made_up_header_breaks_the_reading(header: Any, jwk: Any, claims: Any) -> None:
    members = {"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk, **header}
    token = HOLDER.sign_raw(json.dumps(members).encode(), json.dumps(claims).encode())
    assert reason_of(token) is not None


@pytest.mark.requirement("POP-04", "DPOP-01")
@MANY
@given(name=st.sampled_from(["kty", "crv", "x", "y", "alg", "use", "key_ops", "kid"]), value=JSON)
def test_no_made_up_key_breaks_the_reading(name: str, value: Any) -> None:
    """Whatever a member says, the proof is refused or the key is the one that signed it."""
    jwk = {**bare_jwk(HOLDER), name: value}
    proof = signed_proof(good_proof_claims(HTU), jwk=jwk)
    if reason_of(proof) is None:
        assert {**jwk, **bare_jwk(HOLDER)} == jwk
        assert VERIFIER.verify((proof,), HTU).thumbprint == thumbprint(HOLDER)


@pytest.mark.requirement("POP-04", "JWS-12")
@MANY
@given(position=st.integers(0, 10_000), character=st.sampled_from("AQZaz09-_.=+/ "))
def test_a_proof_with_one_character_changed_is_refused(position: int, character: str) -> None:
    proof = good_proof(HTU, jti="fixed")
    at = position % len(proof)
    changed = proof[:at] + character + proof[at + 1 :]
    if changed != proof:
        assert reason_of(changed) is not None


@pytest.mark.requirement("DPOP-03")
@MANY
@given(issued_at=st.integers(NOW - 200, NOW + 200), leeway=st.integers(0, 30))
def test_a_proof_is_fresh_or_refused_and_its_id_outlives_it(issued_at: int, leeway: int) -> None:
    proof, tolerant = good_proof(HTU, iat=issued_at), timedelta(seconds=leeway)
    verifier = replace(VERIFIER, leeway=tolerant)
    is_fresh = NOW - 60 - leeway <= issued_at <= NOW + leeway
    if not is_fresh:
        assert reason_of(proof, verifier=verifier) is Reason.POP_STALE
        return
    until = verifier.verify((proof,), HTU).one_time_id.until
    assert until >= NOW
    later = replace(verifier, now=lambda: until + 1)
    assert reason_of(proof, verifier=later) is Reason.POP_STALE
