"""Statements about keys in memory: nothing is believed that a certifier in Vault has not signed."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from broker.jws import read_token
from broker.keys.life import LONGEST_STATED_LIFE
from broker.keys.published import PublishedKey, key_of_jwk, published_key
from broker.keys.statement import (
    KeyStatement,
    StatementRefused,
    certifiers_of,
    read_statement,
    sign_statement,
)
from broker.keys.transit_key import KeyVersion, read_versions
from tests.idp import Signer, signer
from tests.openbao import ISSUER, Transit

NOW = 1_800_000_000
CERTIFIER = signer("certifier")


def jwk_of(key: Any, algorithm: str = "ES256") -> dict[str, Any]:
    return dict(published_key(key.public_key(), algorithm).jwk)


JWK = jwk_of(ec.generate_private_key(ec.SECP256R1()))


def certifiers() -> dict[str, PublishedKey]:
    (jwk,) = CERTIFIER.jwks["keys"]
    return {CERTIFIER.kid: key_of_jwk(jwk, "ES256")}


def claims(**changes: Any) -> dict[str, Any]:
    stated = {
        "iss": ISSUER,
        "sub": "replica",
        "iat": NOW,
        "nbf": NOW + 345,
        "exp": NOW + 4000,
        "jwk": JWK,
    }
    return {name: value for name, value in {**stated, **changes}.items() if value is not None}


def statement(by: Signer = CERTIFIER, typ: str = "broker-key-statement+jwt", **changes: Any) -> str:
    return by.sign(claims(**changes), typ=typ)


def read(text: str) -> KeyStatement:
    return read_statement(text, issuer=ISSUER, certifiers=certifiers(), latest_made_at=NOW + 30)


def test_a_good_statement_is_read() -> None:
    found = read(statement())

    assert found.replica == "replica"
    assert found.published.members() == JWK
    assert (found.made_at, found.begins_at, found.ends_at) == (NOW, NOW + 345, NOW + 4000)
    assert found.certifier == CERTIFIER.kid


PRIVATE = {**JWK, "d": "AAAA"}
WEAK = rsa.generate_private_key(65537, 1024)  # noqa: S505 -- it is to be refused.
REFUSED: dict[str, Callable[[], str]] = {
    "nothing": lambda: "",
    "no token": lambda: "not a token",
    "a bare key": lambda: json.dumps(JWK),
    "another signer": lambda: statement(by=signer("somebody")),
    "a signer under the certifier's name": lambda: Signer(
        CERTIFIER.kid, "ES256", ec.generate_private_key(ec.SECP256R1())
    ).sign(claims(), typ="broker-key-statement+jwt"),
    "an access token": lambda: statement(typ="at+jwt"),
    "a token without a type": lambda: CERTIFIER.sign(claims()),
    "another issuer": lambda: statement(iss="https://elsewhere.example"),
    "no issuer": lambda: statement(iss=None),
    "no replica": lambda: statement(sub=None),
    "a replica of great length": lambda: statement(sub="r" * 65),
    "no key": lambda: statement(jwk=None),
    "a key that is none": lambda: statement(jwk="key"),
    "a private key": lambda: statement(jwk=PRIVATE),
    "a symmetric key": lambda: statement(jwk={"kty": "oct", "k": "AAAA", "alg": "HS256"}),
    "no algorithm": lambda: statement(jwk={k: v for k, v in JWK.items() if k != "alg"}),
    "the algorithm none": lambda: statement(jwk={**JWK, "alg": "none"}),
    "an algorithm that the key is not for": lambda: statement(jwk={**JWK, "alg": "RS256"}),
    "a key under another's id": lambda: statement(jwk={**JWK, "kid": "k" * 43}),
    "a key with more to say": lambda: statement(jwk={**JWK, "x5u": "https://evil.example"}),
    "a key for encryption": lambda: statement(jwk={**JWK, "use": "enc"}),
    "P-384": lambda: statement(
        jwk={**JWK, "crv": "P-384", "x": JWK["x"] + "AA", "y": JWK["y"] + "AA"}
    ),
    "a weak key": lambda: statement(
        jwk={**JWK, "kty": "RSA", "alg": "RS256", "n": n_of(WEAK), "e": "AQAB"}
    ),
    "no moment": lambda: statement(exp=None),
    "a moment as text": lambda: statement(iat=str(NOW)),
    "true for a moment": lambda: statement(iat=True),
    "an end before the beginning": lambda: statement(exp=NOW + 344),
    "a beginning before it was made": lambda: statement(nbf=NOW - 1),
    "the future": lambda: statement(iat=NOW + 31, nbf=NOW + 400),
    "a life without end": lambda: statement(exp=NOW + int(LONGEST_STATED_LIFE.total_seconds()) + 1),
}


def n_of(key: Any) -> str:
    n = key.public_key().public_numbers().n
    return base64.urlsafe_b64encode(n.to_bytes(128, "big")).rstrip(b"=").decode()


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_what_is_no_statement_of_ours_is_not_believed(make: Callable[[], str]) -> None:
    with pytest.raises(StatementRefused):
        read(make())


@pytest.mark.parametrize("at", [5, 60, 200, -5])
def test_a_statement_that_was_changed_anywhere_is_not_believed(at: int) -> None:
    text = statement()
    other = "A" if text[at] != "A" else "B"
    position = at % len(text)

    with pytest.raises(StatementRefused):
        read(text[:position] + other + text[position + 1 :])


def test_a_statement_by_a_certifier_that_is_no_longer_known_is_not_believed() -> None:
    with pytest.raises(StatementRefused, match="certifier is not known"):
        read_statement(statement(), issuer=ISSUER, certifiers={}, latest_made_at=NOW)


def test_the_reason_of_a_refusal_quotes_nothing() -> None:
    with pytest.raises(StatementRefused) as refused:
        read(statement(iss="https://evil.example", sub="<script>"))

    assert "evil" not in str(refused.value)
    assert "script" not in str(refused.value)


# With a real certifier.


@pytest.fixture
def certifier(own_transit: Transit) -> Iterator[tuple[Transit, KeyVersion]]:
    with closing(own_transit.session()) as session:
        (version,) = read_versions(session, "transit", key_name="certifier", algorithm="ES256")
        yield own_transit, version


@pytest.mark.openbao
def test_what_vault_signs_is_read_as_it_was_stated(certifier: tuple[Transit, KeyVersion]) -> None:
    transit, version = certifier
    made = KeyStatement(
        "replica", "ES256", key_of_jwk(JWK, "ES256"), NOW, NOW + 5, NOW + 60, version.kid
    )
    with closing(transit.session()) as session:
        text = sign_statement(session, "transit", issuer=ISSUER, statement=made, by=version)

    found = read_statement(
        text, issuer=ISSUER, certifiers=certifiers_of([version]), latest_made_at=NOW
    )

    assert found.published.jwk == made.published.jwk
    assert (found.made_at, found.begins_at, found.ends_at) == (NOW, NOW + 5, NOW + 60)
    assert len(text) < 1000


def test_a_statement_can_never_pass_for_a_token_of_ours() -> None:
    """It is signed with a key that is in no key set, and says what it is."""
    token = read_token(statement())

    assert token.header.unverified_typ == "broker-key-statement+jwt"
    assert "aud" not in token.unverified_claims
