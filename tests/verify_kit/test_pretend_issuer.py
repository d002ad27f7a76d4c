"""The pretend issuer, its tokens and the canary."""

from pathlib import Path

import httpx2
import jwt
import pytest
from jwt.algorithms import ECAlgorithm

from broker.verify_server.canary import running_canary
from broker.verify_server.issuer import Issuer, pretend_issuer
from broker.verify_server.keys import fresh_key, read_key
from broker.verify_server.minting import Mint
from broker.verify_server.options import ALGORITHMS

_AUDIENCE = "https://wiki.example/mcp"


def _get(url: str) -> httpx2.Response:
    return httpx2.get(url, trust_env=False)


def _introspected(issuer: Issuer, token: str) -> bool:
    answer = httpx2.post(f"{issuer.url}/introspect", data={"token": token}, trust_env=False)
    return bool(answer.json()["active"])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_good_token_verifies_by_what_the_issuer_publishes(algorithm: str) -> None:
    with pretend_issuer(algorithm=algorithm) as issuer:
        token = Mint(issuer.url, _AUDIENCE, issuer.key, scopes=("a", "b")).token()
        metadata = _get(f"{issuer.url}/.well-known/oauth-authorization-server").json()
        published = _get(metadata["jwks_uri"]).json()["keys"][0]

    claims = jwt.decode(token, jwt.PyJWK(published), [algorithm], audience=_AUDIENCE)
    assert metadata["issuer"] == claims["iss"] == issuer.url
    assert claims["scope"] == "a b"
    assert not {"d", "p", "q"} & set(published)


def test_an_unknown_path_of_the_issuer_is_not_found() -> None:
    with pretend_issuer() as issuer:
        assert _get(f"{issuer.url}/admin").status_code == 404


def test_introspection_knows_good_tokens_that_were_not_withdrawn() -> None:
    with pretend_issuer() as issuer:
        mint = Mint(issuer.url, _AUDIENCE, issuer.key)
        token = mint.token()
        assert _introspected(issuer, token)

        assert issuer.withdrawn is not None
        issuer.withdrawn.add(token)
        assert not _introspected(issuer, token)
        for bad in (
            mint.token({"exp": 1, "iat": 0}),
            mint.token({"jti": None}),
            mint.token(key=fresh_key("ES256")),
            mint.token(header={"typ": "JWT"}),
            "nonsense",
            "",
        ):
            assert not _introspected(issuer, bad)


def test_the_canary_remembers_which_case_lured_somebody() -> None:
    with running_canary(frozenset({"key-set-url", "other"}), algorithm="ES256") as canary:
        place = canary.place("key-set-url")
        origin = place.removesuffix("/key-set-url")
        metadata = _get(f"{origin}/.well-known/oauth-authorization-server/key-set-url").json()

        assert metadata == {"issuer": place, "jwks_uri": f"{place}/jwks"}
        assert _get(metadata["jwks_uri"]).json() == {"keys": [canary.key.public_jwk]}
        assert canary.lured == {"key-set-url"}


def test_a_key_is_read_from_a_jwk_with_its_own_id(tmp_path: Path) -> None:
    key = fresh_key("ES256")
    path = tmp_path / "key.json"
    path.write_text(ECAlgorithm.to_jwk(key.private)[:-1] + ', "kid": "k-1"}')

    found = read_key(path, algorithm="ES256")

    assert (found.kid, found.algorithm) == ("k-1", "ES256")
    assert found.public_jwk["x"] == key.public_jwk["x"]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"kty": "EC"}', "-----BEGIN X-----", "é"])
def test_a_file_without_a_key_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key"
    path.write_text(content)

    with pytest.raises(ValueError, match="no private key"):
        read_key(path, algorithm="ES256")


def test_a_public_key_cannot_sign(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(fresh_key("ES256").public_pem)

    with pytest.raises(ValueError, match="no private key"):
        read_key(path, algorithm="ES256")
