"""Whatever the verifier accepts, another library accepts as well, and nothing breaks it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey

from broker.client.refusals import InvalidToken
from broker.client.verify import SyncTokenVerifier
from tests.client.key_server import running_key_server
from tests.client.receiving import BROKER_KEY, NOW, RESOURCE, good_claims, good_token
from tests.idp import encode

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
_TIMES = st.integers(NOW - 100, NOW + 400) | st.floats(NOW - 100, NOW + 400)
_CLAIMS = st.dictionaries(
    st.sampled_from(["iss", "sub", "aud", "client_id", "scope", "act", "jti", "cnf", "acr", "amr"]),
    _JSON,
    max_size=2,
)
_MOMENTS = st.dictionaries(st.sampled_from(["exp", "iat", "nbf", "auth_time"]), _TIMES, max_size=3)
_HEADER = st.dictionaries(
    st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jwk", "zip"]),
    st.sampled_from(["ES256", "at+jwt", "AT+JWT", "JWT", "none", "HS256", BROKER_KEY.kid]) | _JSON,
    max_size=2,
)
_ORDINARY = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def verifier() -> Iterator[SyncTokenVerifier]:
    with running_key_server() as server:
        server.publish(BROKER_KEY.jwk)
        verifier = SyncTokenVerifier(server.issuer, RESOURCE, clock=lambda: NOW)
        verifier.verify(good_token(server.issuer))
        yield verifier


def is_accepted(verifier: SyncTokenVerifier, token: str) -> bool:
    """Whether the verifier accepts it; anything but a refusal fails the test."""
    try:
        delegation = verifier.verify(token)
    except InvalidToken:
        return False
    assert delegation.resource == RESOURCE
    return True


def judge_by_another_library(token: str) -> dict[str, Any]:
    """The claims by joserfc, which raises for what it does not accept."""
    key = ECKey.import_key({name: BROKER_KEY.jwk[name] for name in ("kty", "crv", "x", "y")})
    decoded = jwt.decode(token, key, algorithms=["ES256"])
    rules = jwt.JWTClaimsRegistry(
        now=NOW,
        leeway=31,
        iss={"essential": True},
        sub={"essential": True},
        aud={"essential": True, "value": RESOURCE},
        exp={"essential": True},
        iat={"essential": True},
        jti={"essential": True},
        client_id={"essential": True},
    )
    rules.validate(decoded.claims)
    return dict(decoded.claims)


@_ORDINARY
@given(claims=_CLAIMS, moments=_MOMENTS, header=_HEADER)
def test_what_is_accepted_another_library_accepts_with_the_same_key(
    verifier: SyncTokenVerifier,
    claims: dict[str, Any],
    moments: dict[str, Any],
    header: dict[str, Any],
) -> None:
    made = {**good_claims(verifier.issuer), **moments, **claims}
    members = {"alg": "ES256", "typ": "at+jwt", "kid": BROKER_KEY.kid, **header}
    try:
        token = BROKER_KEY.sign_raw(json.dumps(members).encode(), json.dumps(made).encode())
    except UnicodeEncodeError:
        assume(condition=False)
    if is_accepted(verifier, token):
        assert judge_by_another_library(token)["iss"] == verifier.issuer


@_ORDINARY
@given(moments=_MOMENTS)
def test_a_token_is_accepted_exactly_while_it_is_valid(
    verifier: SyncTokenVerifier, moments: dict[str, Any]
) -> None:
    claims = {**good_claims(verifier.issuer, auth_time=None), **moments}
    exp, iat = int(claims["exp"]), int(claims["iat"])
    starts = [int(claims[name]) for name in ("iat", "nbf") if name in claims]
    has_begun = max(starts) <= NOW + 30 and int(claims.get("auth_time", iat)) <= NOW + 30
    is_valid = exp > max([*starts, NOW - 30]) and has_begun

    assert is_accepted(verifier, BROKER_KEY.sign(claims, typ="at+jwt")) == is_valid


@_ORDINARY
@given(position=st.integers(0, 10_000), letter=st.characters(max_codepoint=0x1FF))
def test_a_token_with_one_letter_changed_is_refused(
    verifier: SyncTokenVerifier, position: int, letter: str
) -> None:
    token = good_token(verifier.issuer)
    position %= len(token)
    assume(token[position] != letter)

    assert not is_accepted(verifier, token[:position] + letter + token[position + 1 :])


@_ORDINARY
@given(parts=st.lists(st.binary(max_size=60), min_size=1, max_size=6), text=st.text(max_size=200))
def test_any_text_is_refused_and_nothing_else_happens(
    verifier: SyncTokenVerifier, parts: list[bytes], text: str
) -> None:
    assert not is_accepted(verifier, text)
    assert not is_accepted(verifier, b".".join(encode(part) for part in parts).decode())
