"""Group 1A of the attack catalogue: the JOSE container and its signature, in every slot."""

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.idp import Signer, encode, signer
from tests.stage import ASSERTION, CLIENT, SLOTS, SUBJECT, Slot, Stage
from tests.world import IDP_A

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture(params=SLOTS, ids=lambda slot: slot.name)
def slot(request: pytest.FixtureRequest) -> Slot:
    chosen = request.param
    assert isinstance(chosen, Slot)
    return chosen


def attack(stage: Stage, slot: Slot, token: str, reason: str) -> None:
    stage.attack(slot.place(stage, token), error=slot.error, reason=slot.reason(reason))


def unsigned(slot: Slot, algorithm: Any, signature: bytes = b"") -> str:
    header = {"alg": algorithm, "typ": slot.typ, "kid": slot.signer.kid}
    parts = [encode(json.dumps(one).encode()) for one in (header, slot.claims())]
    return b".".join([*parts, encode(signature)]).decode()


@pytest.mark.requirement("JWS-01", "JWT-01")
@pytest.mark.parametrize("algorithm", ["none", "None", "nOnE", "none ", ""])
def test_an_unsigned_token_is_refused(stage: Stage, slot: Slot, algorithm: str) -> None:
    attack(stage, slot, unsigned(slot, algorithm), "alg_not_allowed")


@pytest.mark.requirement("JWS-01")
def test_an_empty_signature_is_refused(stage: Stage, slot: Slot) -> None:
    attack(stage, slot, unsigned(slot, slot.signer.algorithm), "sig_invalid")


def _public_key_bytes(key: Signer) -> list[bytes]:
    public = key.private_key.public_key()
    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return [pem, pem.strip(), der, json.dumps(key.jwk).encode()]


@pytest.mark.requirement("JWS-02", "JWT-01")
@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_a_public_key_is_never_an_hmac_secret(stage: Stage, slot: Slot, digest: str) -> None:
    header = {"alg": f"HS{digest[3:]}", "typ": slot.typ, "kid": slot.signer.kid}
    parts = [encode(json.dumps(one).encode()) for one in (header, slot.claims())]
    signing_input = b".".join(parts)
    for secret in _public_key_bytes(slot.signer):
        mac = hmac.new(secret, signing_input, getattr(hashlib, digest)).digest()
        token = (signing_input + b"." + encode(mac)).decode()
        stage.refuse(slot.place(stage, token), error=slot.error, reason="alg_not_allowed")


@pytest.mark.requirement("JWS-03", "JWT-01")
def test_an_algorithm_outside_the_pin_is_refused(stage: Stage, slot: Slot) -> None:
    key = Signer(slot.signer.kid, "ES384", signer("other", "ES384").private_key)
    attack(stage, slot, key.sign(slot.claims(), typ=slot.typ), "alg_not_allowed")


@pytest.mark.requirement("JWS-04", "JWT-01", "META-12")
def test_a_key_is_used_with_its_own_algorithm_only(stage: Stage) -> None:
    """RS256 is pinned for these clients too, but the key of this one is an EC key."""
    key = Signer("mcp1-srv", "RS256", signer("some-rsa", "RS256").private_key)
    attack(stage, CLIENT, key.sign(CLIENT.claims()), "key_alg_mismatch")


@pytest.mark.requirement("JWS-04")
def test_an_rsa_key_does_not_verify_an_ec_header(stage: Stage) -> None:
    claims = {**CLIENT.claims(), "iss": "rsa-srv", "sub": "rsa-srv"}
    token = Signer("rsa-srv", "ES256", signer("some-ec").private_key).sign(claims)
    attack(stage, CLIENT, token, "key_alg_mismatch")


@pytest.mark.requirement("JWS-05", "JWT-05")
@pytest.mark.parametrize("carrier", ["jwk", "x5c", "jku", "x5u"])
def test_a_key_carried_in_the_token_is_refused(stage: Stage, slot: Slot, carrier: str) -> None:
    attacker = signer("attacker")
    value: Any = {
        "jwk": attacker.jwk,
        "x5c": [base64.b64encode(b"certificate").decode()],
        "jku": "https://evil.test/jwks",
        "x5u": "https://evil.test/cert",
    }[carrier]
    token = attacker.sign(slot.claims(), typ=slot.typ, **{carrier: value})
    attack(stage, slot, token, "unknown_key")


@pytest.mark.requirement("JWS-06", "JWT-05")
@pytest.mark.parametrize(
    "kid",
    [
        "../../etc/passwd",
        "' OR 1=1--",
        "*",
        "\r\nSET x 1\r\n",
        "\0",
        "k" * 10_240,
        "nobody",
        1,
        [],
        {},
        True,
    ],
    ids=lambda kid: str(kid)[:12].encode("unicode_escape").decode(),
)
def test_a_hostile_kid_is_an_unknown_key(stage: Stage, slot: Slot, kid: Any) -> None:
    attack(stage, slot, slot.token(header={"kid": kid}), "unknown_key")


@pytest.mark.requirement("JWS-06")
def test_a_null_kid_is_not_an_absent_one(stage: Stage, slot: Slot) -> None:
    header = json.dumps({"alg": slot.signer.algorithm, "typ": slot.typ, "kid": None}).encode()
    token = slot.signer.sign_raw(header, json.dumps(slot.claims()).encode())
    attack(stage, slot, token, "unknown_key")


@pytest.mark.requirement("JWS-07", "JWT-09")
@pytest.mark.parametrize("crit", [["cnf"], ["x"], [], "x", ["alg"], ["x", "x"], 1, {}])
def test_a_critical_header_is_refused(stage: Stage, slot: Slot, crit: Any) -> None:
    attack(stage, slot, slot.token(header={"crit": crit}), "crit_unsupported")


@pytest.mark.requirement("JWS-08")
@pytest.mark.parametrize("extra", [{"b64": False}, {"b64": False, "crit": ["b64"]}])
def test_an_unencoded_payload_is_refused(stage: Stage, slot: Slot, extra: dict[str, Any]) -> None:
    attack(stage, slot, slot.token(header=extra), "crit_unsupported")


@pytest.mark.requirement("JWS-09")
def test_json_serialization_is_refused(stage: Stage, slot: Slot) -> None:
    protected, payload, signature = slot.token().split(".")
    flattened = {"protected": protected, "payload": payload, "signature": signature}
    general = {"payload": payload, "signatures": [{"protected": protected, "signature": signature}]}
    for document in (flattened, general):
        attack(stage, slot, json.dumps(document), "malformed_token")
    attack(stage, slot, f'{{"x":"{protected}"}}.{payload}.{signature}', "malformed_token")


@pytest.mark.requirement("JWS-10", "JWS-11", "JWT-02")
@pytest.mark.parametrize(
    "header",
    [
        {"alg": "RSA-OAEP", "enc": "A256GCM"},
        {"alg": "dir", "enc": "A256GCM", "cty": "JWT"},
        {"alg": "dir", "enc": "A256GCM", "zip": "DEF"},
        {"alg": "PBES2-HS512+A256KW", "enc": "A256GCM", "p2c": 2147483647, "p2s": "AAAA"},
    ],
    ids=["rsa", "nested", "zip-bomb", "pbes2-bomb"],
)
def test_an_encrypted_token_is_refused_unread(
    stage: Stage, slot: Slot, header: dict[str, Any]
) -> None:
    first = encode(json.dumps(header).encode()).decode()
    attack(stage, slot, f"{first}.AAAA.AAAA.AAAA.AAAA", "jwe_refused")


@pytest.mark.requirement("JWS-12")
@pytest.mark.parametrize(
    "signature",
    [
        b"\0" * 64,
        P256_ORDER.to_bytes(32, "big") * 2,
        b"\x01" * 63,
        b"\x01" * 65,
        encode_dss_signature(1, 1),
    ],
    ids=["zeros", "order", "short", "long", "der"],
)
def test_a_degenerate_signature_is_refused(stage: Stage, slot: Slot, signature: bytes) -> None:
    signing_input = slot.token().rpartition(".")[0]
    attack(stage, slot, f"{signing_input}.{encode(signature).decode()}", "sig_invalid")


@pytest.mark.requirement("JWS-12")
def test_a_der_signature_is_refused(stage: Stage, slot: Slot) -> None:
    signing_input, _, signature = slot.token().rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    attack(stage, slot, f"{signing_input}.{encode(der).decode()}", "sig_invalid")


@pytest.mark.requirement("JWS-15", "JWT-08")
@pytest.mark.parametrize("character", ["+", "/", "=", " ", "\t", "\n", "\ufeff", "\uff0e"])
def test_characters_outside_base64url_are_refused(stage: Stage, slot: Slot, character: str) -> None:
    token = slot.token()
    attack(stage, slot, token[:20] + character + token[20:], "malformed_token")


@pytest.mark.requirement("JWS-16")
@pytest.mark.parametrize("token", [".", "..", "a.b", "a.b.c.d", ".e30.AAAA", "." * 16_000])
def test_broken_segmentation_is_refused(stage: Stage, slot: Slot, token: str) -> None:
    attack(stage, slot, token, "malformed_token")


@pytest.mark.requirement("JWS-17", "JWT-11")
def test_an_oversized_token_is_refused_before_it_is_decoded(stage: Stage, slot: Slot) -> None:
    attack(stage, slot, slot.token(padding="x" * 20_000), "token_too_large")


TYPS = [
    None,
    "JWT",
    "at+jwt",
    "client-authentication+jwt",
    "oauth-id-jag+jwt",
    "dpop+jwt",
    "logout+jwt",
    "secevent+jwt",
    "token-introspection+jwt",
    "oauth-authz-req+jwt",
    "oauth-client-attestation+jwt",
    "txntoken+jwt",
]


@pytest.mark.requirement("JWS-18", "AT-16", "JWT-07", "CA-08", "JAG-09", "IDJAG-R-02")
@pytest.mark.parametrize(
    ("slot", "typ"),
    [(slot, typ) for slot in SLOTS for typ in TYPS if typ not in {slot.typ, *slot.other_typs}],
    ids=lambda one: one.name if isinstance(one, Slot) else str(one),
)
def test_a_token_of_another_kind_is_refused(stage: Stage, slot: Slot, typ: str | None) -> None:
    attack(stage, slot, slot.token(header={"typ": typ}), "wrong_token_type")


@pytest.mark.requirement("JWS-19", "AT-01")
@pytest.mark.parametrize("typ", ["application/at+jwt", "AT+JWT", "at+JWT"])
def test_the_type_is_compared_as_a_media_type(stage: Stage, typ: str) -> None:
    token = SUBJECT.token(header={"typ": typ})
    stage.grant(SUBJECT.place(stage, token))


@pytest.mark.requirement("JWS-19", "IDJAG-R-02")
@pytest.mark.parametrize("typ", ["application/oauth-id-jag+jwt", "OAUTH-ID-JAG+JWT"])
def test_the_type_of_an_identity_assertion_is_compared_likewise(stage: Stage, typ: str) -> None:
    stage.grant(ASSERTION.place(stage, ASSERTION.token(header={"typ": typ})))


@pytest.mark.requirement("JWS-19")
@pytest.mark.parametrize("typ", ["at+jwt ", None, 1, ["at+jwt"], "text/at+jwt"])
def test_a_misspelt_type_is_refused(stage: Stage, typ: Any) -> None:
    attack(stage, SUBJECT, SUBJECT.token(header={"typ": typ}), "wrong_token_type")


@pytest.mark.requirement("CA-08")
@pytest.mark.parametrize("typ", ["JWT", None, "client-authentication+jwt"])
def test_assertions_may_state_their_type_or_not(stage: Stage, typ: str | None) -> None:
    stage.grant(CLIENT.place(stage, CLIENT.token(header={"typ": typ})))


def test_the_good_tokens_of_all_slots_are_accepted(stage: Stage, slot: Slot) -> None:
    answer = stage.grant(slot.place(stage, slot.token()))
    assert answer.claims["iss"] != IDP_A
