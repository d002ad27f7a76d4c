"""One set of keys: which are used, for what, and which a token's header can name."""

import json
import math
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from broker.errors import Reason, TokenRejected
from broker.interfaces import VerificationKey
from broker.issuers import SourceRefused, read_key_set
from broker.oauth import VERIFICATION_ALGORITHMS
from broker.tokens.weakness import is_small_order_ed25519, is_weak_rsa_modulus
from tests.idp import encode, signer

INPUT = b"header.payload"


def without(jwk: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in jwk.items() if name not in names}


def find(jwk: Any, kid: str | None, algorithm: str) -> VerificationKey:
    return read_key_set({"keys": [jwk]}).find(kid, algorithm)


def refusal_of(jwk: Any, kid: str | None, algorithm: str) -> Reason:
    with pytest.raises(TokenRejected) as rejected:
        find(jwk, kid, algorithm)
    return rejected.value.reason


def rejections_of(jwk: Any) -> tuple[str, ...]:
    return read_key_set({"keys": [jwk, signer("other").jwk]}).rejected


def rsa_jwk(*, bits: int = 2048, exponent: int = 65537) -> dict[str, Any]:
    public_key = rsa.generate_private_key(exponent, bits).public_key()
    return {**json.loads(RSAAlgorithm.to_jwk(public_key)), "kid": "r", "key_ops": ["verify"]}


def number(value: int) -> str:
    return encode(value.to_bytes((value.bit_length() + 7) // 8, "big")).decode()


# ---- what verifies


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "RS256", "PS256", "EdDSA"])
def test_a_published_key_verifies_what_was_signed_with_it_and_nothing_else(algorithm: str) -> None:
    own = signer(f"own-{algorithm}", algorithm)
    other = signer(f"other-{algorithm}", algorithm)
    key = find(own.jwk, own.kid, algorithm)
    signature = own.signature(INPUT)

    assert (key.kid, key.algorithm) == (own.kid, algorithm)
    assert key.verify(INPUT, signature)
    assert not key.verify(INPUT + b"x", signature)
    assert not key.verify(INPUT, other.signature(INPUT))
    for damaged in (b"", signature[:-1], signature + b"\0", b"\0" * len(signature), b"\xff" * 2000):
        assert not key.verify(INPUT, damaged)


def test_a_key_without_alg_serves_each_algorithm_of_its_type_and_curve_alone() -> None:
    served = {
        (algorithm, asked)
        for algorithm in ("ES256", "ES384", "RS256", "EdDSA")
        for asked in (*VERIFICATION_ALGORITHMS, "HS256", "none", "ES512", "RS512", "")
        if asked
        in read_key_set({"keys": [without(signer("k", algorithm).jwk, "alg")]}).keys[0].by_algorithm
    }

    assert served == {
        ("ES256", "ES256"),
        ("ES384", "ES384"),
        ("RS256", "RS256"),
        ("RS256", "PS256"),
        ("EdDSA", "EdDSA"),
        ("EdDSA", "Ed25519"),
    }


@pytest.mark.requirement("JWS-12")
def test_degenerate_ecdsa_signatures_are_wrong_and_no_error() -> None:
    own = signer("ec")
    key = find(own.jwk, "ec", "ES256")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    edges = [0, 1, order - 1, order, order + 1, 2**256 - 1]

    for r in edges:
        for s in edges:
            assert not key.verify(INPUT, r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    der = own.private_key.sign(INPUT, ec.ECDSA(ECAlgorithm.SHA256()))
    assert not key.verify(INPUT, der)


# ---- one key, one algorithm


@pytest.mark.requirement("JWS-04", "META-12")
@pytest.mark.parametrize(
    ("signing", "stated", "asked"),
    [
        ("RS256", "RS256", "PS256"),
        ("PS256", "PS256", "RS256"),
        ("RS256", "RS512", "RS256"),
        ("ES256", "ES512", "ES256"),
        ("ES256", "ES384", "ES256"),
        ("ES256", "ES384", "ES384"),
        ("ES256", None, "RS256"),
        ("RS256", None, "ES256"),
        ("EdDSA", None, "ES256"),
        ("ES256", None, "EdDSA"),
        ("EdDSA", "EdDSA", "Ed25519"),
        ("EdDSA", "Ed25519", "EdDSA"),
        ("ES256", "ES256", "HS256"),
        ("RS256", None, "HS256"),
        ("RS256", None, "none"),
        ("RS256", "RSA-OAEP", "RS256"),
        ("ES256", 256, "ES256"),
        ("ES256", ["ES256"], "ES256"),
        ("ES256", "", "ES256"),
    ],
)
def test_another_algorithm_than_the_keys_own_is_a_mismatch(
    signing: str, stated: Any, asked: str
) -> None:
    jwk = without(signer("k", signing).jwk, "alg")
    if stated is not None:
        jwk["alg"] = stated

    assert refusal_of(jwk, "k", asked) is Reason.KEY_ALG_MISMATCH
    assert refusal_of(jwk, None, asked) is Reason.KEY_ALG_MISMATCH


@pytest.mark.requirement("JWS-13")
@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1(), ec.SECP256K1()])
def test_a_key_on_another_curve_does_not_fit_es256(curve: ec.EllipticCurve) -> None:
    public_key = ec.generate_private_key(curve).public_key()
    jwk = {**json.loads(ECAlgorithm.to_jwk(public_key)), "kid": "k"}

    assert refusal_of(jwk, "k", "ES256") is Reason.KEY_ALG_MISMATCH
    assert refusal_of({**jwk, "alg": "ES256"}, "k", "ES256") is Reason.KEY_ALG_MISMATCH


@pytest.mark.requirement("JWS-13")
@pytest.mark.parametrize(
    ("key_type", "curve"), [("EC", "P-192"), ("OKP", "Ed448"), ("OKP", "X25519")]
)
def test_a_key_of_a_curve_not_accepted_here_fits_nothing(key_type: str, curve: str) -> None:
    jwk = {"kty": key_type, "crv": curve, "x": "AAAA", "y": "AAAA", "kid": "k"}

    for algorithm in VERIFICATION_ALGORITHMS:
        assert refusal_of(jwk, "k", algorithm) is Reason.KEY_ALG_MISMATCH


@pytest.mark.parametrize("claimed", ["P-384", "P-521", "secp256k1", "Ed25519"])
def test_a_point_that_claims_another_curve_is_never_used(claimed: str) -> None:
    jwk = {**signer("k").jwk, "crv": claimed}

    for algorithm in VERIFICATION_ALGORITHMS:
        with pytest.raises(TokenRejected):
            find(jwk, "k", algorithm)


# ---- not for signatures


@pytest.mark.requirement("KEY-04")
@pytest.mark.parametrize(
    "member",
    [
        {"use": "enc"},
        {"use": "SIG"},
        {"use": ""},
        {"use": None},
        {"use": ["sig"]},
        {"key_ops": ["encrypt"]},
        {"key_ops": ["sign"]},
        {"key_ops": []},
        {"key_ops": "verify"},
        {"key_ops": {"verify": True}},
        {"use": "enc", "key_ops": ["verify"]},
        {"use": "sig", "key_ops": ["wrapKey"]},
    ],
)
def test_a_key_that_is_not_meant_for_signatures_verifies_none(member: dict[str, Any]) -> None:
    jwk = {**signer("k").jwk, **member}

    assert refusal_of(jwk, "k", "ES256") is Reason.KEY_NOT_FOR_SIG
    assert refusal_of(jwk, None, "ES256") is Reason.KEY_NOT_FOR_SIG


@pytest.mark.parametrize(
    "member", [{"key_ops": ["verify"]}, {"use": "sig", "key_ops": ["verify", "sign"]}]
)
def test_a_key_that_may_verify_does(member: dict[str, Any]) -> None:
    assert find({**without(signer("k").jwk, "use"), **member}, "k", "ES256").kid == "k"


# ---- hostile keys


@pytest.mark.requirement("KEY-05")
@pytest.mark.parametrize("bits", [1024, 2040])
def test_a_short_rsa_key_is_dropped(bits: int) -> None:
    jwk = rsa_jwk(bits=bits)

    assert rejections_of(jwk) == ("the RSA key is not of 2,048 to 8,192 bits",)
    assert refusal_of(jwk, "r", "RS256") is Reason.UNKNOWN_KEY


@pytest.mark.requirement("KEY-05")
@pytest.mark.parametrize("bits", [8193, 8400, 16_384, 1_000_000])
def test_an_enormous_rsa_key_is_dropped(bits: int) -> None:
    jwk = {"kty": "RSA", "kid": "r", "e": "AQAB", "n": number(2 ** (bits - 1) + 1)}

    assert len(rejections_of(jwk)) == 1
    assert refusal_of(jwk, "r", "RS256") is Reason.UNKNOWN_KEY


@pytest.mark.requirement("KEY-05")
@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 17, 65536, 65539, 2**64 + 1])
def test_an_rsa_key_with_another_exponent_is_dropped(exponent: int) -> None:
    jwk = {**signer("r", "RS256").jwk, "e": number(exponent) or "AA"}

    assert len(rejections_of(jwk)) == 1
    assert refusal_of(jwk, "r", "RS256") is Reason.UNKNOWN_KEY


@pytest.mark.parametrize("factor", [2, 3, 101, 167])
def test_an_rsa_key_with_a_small_factor_is_dropped(factor: int) -> None:
    modulus = factor * (2**2047 // factor + 1)
    jwk = {"kty": "RSA", "kid": "r", "e": "AQAB", "n": number(modulus)}

    assert is_weak_rsa_modulus(modulus)
    assert len(rejections_of(jwk)) == 1


def test_the_mark_of_roca_is_recognised_and_sound_keys_do_not_bear_it() -> None:
    primorial = math.prod(p for p in range(3, 168) if all(p % d for d in range(2, p)))
    marked = pow(65537, 12345, primorial) + primorial * 2**1900
    sound = [signer(kid, "RS256").private_key.public_key() for kid in ("r", "r0", "r1")]

    assert is_weak_rsa_modulus(marked)
    assert not any(is_weak_rsa_modulus(key.public_numbers().n) for key in sound)


@pytest.mark.requirement("JWS-14")
@pytest.mark.parametrize(
    "encoded",
    [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ],
)
def test_an_ed25519_key_of_small_order_or_not_canonical_is_dropped(encoded: str) -> None:
    raw = bytes.fromhex(encoded)
    jwk = {"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": encode(raw).decode()}

    assert is_small_order_ed25519(raw)
    assert refusal_of(jwk, "k", "Ed25519") is Reason.UNKNOWN_KEY


def test_sound_ed25519_keys_are_not_of_small_order() -> None:
    for number_of_key in range(20):
        public_key = signer(f"ed-{number_of_key}", "EdDSA").private_key.public_key()
        assert not is_small_order_ed25519(public_key.public_bytes_raw())


@pytest.mark.requirement("KEY-05")
@pytest.mark.requirement("JWS-02")
@pytest.mark.parametrize("algorithm", ["HS256", "ES256", "none", "RS256"])
def test_a_symmetric_key_in_a_set_is_never_usable(algorithm: str) -> None:
    jwk = {"kty": "oct", "k": "c2VjcmV0", "kid": "k", "alg": algorithm}

    assert len(rejections_of(jwk)) == 1
    for asked in (*VERIFICATION_ALGORITHMS, algorithm):
        assert refusal_of(jwk, "k", asked) is Reason.UNKNOWN_KEY


@pytest.mark.requirement("KEY-05")
@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "oth", "k"])
def test_a_key_with_a_private_member_is_dropped(member: str) -> None:
    for algorithm in ("ES256", "RS256", "EdDSA"):
        jwk = {**signer("k", algorithm).jwk, member: "AAAA"}

        assert len(rejections_of(jwk)) == 1
        assert refusal_of(jwk, "k", algorithm) is Reason.UNKNOWN_KEY


@pytest.mark.parametrize(
    "damage",
    [
        {"x": None},
        {"x": 1},
        {"x": ""},
        {"x": "A"},
        {"x": "AAAA"},
        {"x": "!" * 43},
        {"x": "A" * 43},
        {"x": "A" * 100_000},
        {"x": ["A"]},
        {"y": {"y": "y"}},
        {"crv": None},
        {"crv": ["P-256"]},
        {"crv": {}},
        {"kty": "ec"},
        {"kty": None},
        {"kty": ["EC"]},
        {"kty": {}},
        {"kty": "RSA"},
        {"kid": 1},
        {"kid": ["k"]},
        {"kid": {}},
        {"kid": "k" * 513},
    ],
)
def test_a_malformed_key_is_dropped_and_its_neighbours_stay(damage: dict[str, Any]) -> None:
    keys = read_key_set({"keys": [{**signer("k").jwk, **damage}, signer("other").jwk]})

    assert len(keys.rejected) == 1
    assert keys.find("other", "ES256").kid == "other"
    with pytest.raises(TokenRejected) as rejected:
        keys.find("k", "ES256")
    assert rejected.value.reason is Reason.UNKNOWN_KEY


@pytest.mark.parametrize("member", [None, 1, "key", [], [{}], {}])
def test_a_member_that_is_no_key_is_dropped(member: Any) -> None:
    assert len(rejections_of(member)) == 1


# ---- the set


@pytest.mark.requirement("KEY-06")
@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "keys",
        1,
        {},
        {"keys": None},
        {"keys": {}},
        {"keys": "keys"},
        {"keys": 1},
        {"keys": []},
        {"KEYS": [{}]},
        {"keys": [{}] * 101},
        {"keys": [signer("k").jwk] * 1000},
        {"keys": [signer("k").jwk] * 10_000},
    ],
)
def test_what_is_no_set_or_too_large_a_one_is_refused_whole(document: Any) -> None:
    with pytest.raises(SourceRefused) as refused:
        read_key_set(document)

    assert refused.value.code == "jwks_invalid"


@pytest.mark.requirement("KEY-07")
def test_of_two_keys_with_one_kid_none_is_tried_when_both_fit() -> None:
    first, second = signer("first").jwk, signer("second").jwk
    keys = read_key_set({"keys": [{**first, "kid": "k"}, {**second, "kid": "k"}]})

    for order in ("k", None):
        with pytest.raises(TokenRejected) as rejected:
            keys.find(order, "ES256")
        assert rejected.value.reason is Reason.UNKNOWN_KEY


@pytest.mark.requirement("KEY-07")
def test_of_two_keys_with_one_kid_the_one_that_fits_is_found() -> None:
    elliptic, rsa_key, encryption = (
        {**signer("first").jwk, "kid": "k"},
        {**signer("second", "RS256").jwk, "kid": "k"},
        {**signer("third").jwk, "kid": "k", "use": "enc"},
    )
    keys = read_key_set({"keys": [elliptic, rsa_key, encryption]})

    assert keys.find("k", "RS256").verify(INPUT, signer("second", "RS256").signature(INPUT))
    assert keys.find("k", "ES256").verify(INPUT, signer("first").signature(INPUT))


@pytest.mark.requirement("KEY-08")
def test_without_a_kid_the_only_key_that_fits_is_found() -> None:
    assert find(signer("k").jwk, None, "ES256").kid == "k"
    assert find(without(signer("k").jwk, "kid"), None, "ES256").kid is None

    others = [signer(f"r{number}", "RS256").jwk for number in range(4)]
    keys = read_key_set({"keys": [signer("k").jwk, *others]})
    assert keys.find(None, "ES256").kid == "k"


@pytest.mark.requirement("KEY-08")
@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
def test_without_a_kid_several_keys_or_none_are_unknown(algorithm: str) -> None:
    keys = read_key_set({"keys": [signer(f"k{number}").jwk for number in range(5)]})

    with pytest.raises(TokenRejected) as rejected:
        keys.find(None, algorithm)

    assert rejected.value.reason is Reason.UNKNOWN_KEY


@pytest.mark.requirement("JWS-06")
@pytest.mark.parametrize(
    "kid",
    ["", "K", "k ", " k", "k\0", "../../etc/passwd", "' OR 1=1--", "*", "k\r\nx", "x" * 10_000],
)
def test_a_kid_is_compared_byte_for_byte(kid: str) -> None:
    assert refusal_of(signer("k").jwk, kid, "ES256") is Reason.UNKNOWN_KEY


def test_a_key_without_a_kid_is_not_found_by_one() -> None:
    assert refusal_of(without(signer("k").jwk, "kid"), "k", "ES256") is Reason.UNKNOWN_KEY


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "n", "e", "alg", "use", "key_ops", "kid", "d"]),
        st.sampled_from(["EC", "RSA", "OKP", "P-256", "Ed25519", "AQAB", "sig", "verify"]) | _JSON,
    ),
    st.none() | st.text(max_size=3),
)
def test_no_member_of_a_key_is_an_error(members: dict[str, Any], kid: str | None) -> None:
    jwk = {**signer("k").jwk, **members}
    keys = read_key_set({"keys": [jwk]})

    for algorithm in ("ES256", "RS256", "Ed25519"):
        try:
            key = keys.find(kid, algorithm)
        except TokenRejected:
            continue
        assert key.algorithm == algorithm


# ---- the bundle of a SPIFFE trust domain


def of_use(kid: str, use: str) -> dict[str, Any]:
    """A key as bundles hold them: with a use of their own, and without an algorithm."""
    return {**without(signer(kid).jwk, "alg"), "use": use}


@pytest.mark.requirement("CA-14")
def test_a_bundle_has_keys_of_svids_and_of_certificates() -> None:
    bundle = {
        "keys": [of_use("x", "x509-svid"), of_use("j", "jwt-svid"), of_use("w", "wit-svid")],
        "spiffe_sequence": 10,
        "spiffe_refresh_hint": 300,
    }
    keys = read_key_set(bundle, is_bundle=True)

    assert keys.find("j", "ES256").verify(INPUT, signer("j").signature(INPUT))
    for kid in ("x", "w"):
        with pytest.raises(TokenRejected) as rejected:
            keys.find(kid, "ES256")
        assert rejected.value.reason is Reason.KEY_NOT_FOR_SIG
    assert not keys.rejected


@pytest.mark.requirement("CA-14", "KEY-04")
def test_the_keys_of_svids_verify_nothing_elsewhere() -> None:
    assert refusal_of(of_use("j", "jwt-svid"), "j", "ES256") is Reason.KEY_NOT_FOR_SIG


@pytest.mark.requirement("CA-14", "KEY-05")
@pytest.mark.parametrize("member", [{"d": "AA"}, {"k": "AA"}, {"x": "!"}, {"kty": "oct"}])
def test_the_keys_of_a_bundle_are_held_to_the_same_rules(member: dict[str, str]) -> None:
    jwk = {**of_use("j", "jwt-svid"), **member}

    assert read_key_set({"keys": [jwk]}, is_bundle=True).rejected
