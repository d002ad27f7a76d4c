"""What a client's metadata document may say, and what makes it worthless."""

import json
from typing import Any

import pytest

from broker.errors import Reason, TokenRejected
from broker.issuers.client_metadata import (
    ClientMetadata,
    read_client_key_document,
    read_client_metadata,
)
from broker.oauth import AUTH_NONE, AUTH_PRIVATE_KEY_JWT, GRANT_TOKEN_EXCHANGE
from tests.idp import signer
from tests.world import without_none

URL = "https://c.test/app.json"
C1 = signer("c1")
PRIVATE_JWK = {**C1.jwk, "d": "AAAA"}
SYMMETRIC_JWK = {"kty": "oct", "k": "AAAA"}


def metadata(**changes: Any) -> dict[str, Any]:
    """The members of a good document; one given as ``None`` is left out."""
    members = {
        "client_id": URL,
        "client_name": "App",
        "token_endpoint_auth_method": AUTH_PRIVATE_KEY_JWT,
        "jwks": C1.jwks,
        **changes,
    }
    return without_none(members)


def read(members: Any) -> ClientMetadata:
    body = members if isinstance(members, bytes) else json.dumps(members).encode()
    return read_client_metadata(body, URL)


def reason_of(members: Any) -> Reason:
    with pytest.raises(TokenRejected) as rejected:
        read(members)
    return rejected.value.reason


@pytest.mark.requirement("CIMD-02", "CIMD-03", "CIMD-10")
def test_a_document_without_redirects_gives_a_client_its_keys() -> None:
    found = read(metadata())

    assert found.document.auth_method == AUTH_PRIVATE_KEY_JWT
    assert found.document.grants is None
    assert found.jwks_uri is None
    assert found.keys.find("c1", "ES256").verify(b"input", C1.signature(b"input"))


def test_keys_may_be_elsewhere() -> None:
    found = read(metadata(jwks=None, jwks_uri="https://keys.test/jwks"))

    assert (found.jwks_uri, found.keys.keys) == ("https://keys.test/jwks", ())


@pytest.mark.requirement("NET-11", "CIMD-15", "CIMD-16")
def test_members_that_would_give_something_are_not_looked_at() -> None:
    greedy = metadata(
        scope="admin b:admin",
        roles=["admin"],
        resources=["https://api.test/v1"],
        software_statement="eyJ",
        authorization_grant_profiles_supported=["urn:ietf:params:oauth:grant-profile:id-jag"],
        groups=["servers"],
        algorithms=["none"],
    )

    assert read(greedy).document == read(metadata()).document


def test_a_document_can_restrict_its_client() -> None:
    document = read(
        metadata(
            grant_types=[GRANT_TOKEN_EXCHANGE, "authorization_code"],
            token_endpoint_auth_signing_alg="ES256",
            dpop_bound_access_tokens=True,
        )
    ).document

    assert document.grants == frozenset({GRANT_TOKEN_EXCHANGE, "authorization_code"})
    assert (document.algorithm, document.is_bound) == ("ES256", True)


@pytest.mark.requirement("NET-09")
@pytest.mark.parametrize("method", [AUTH_NONE, None])
def test_a_document_without_a_method_is_a_public_clients(method: str | None) -> None:
    found = read(metadata(token_endpoint_auth_method=method, jwks=None, jwks_uri="https://k.test/"))

    assert found.document.auth_method == AUTH_NONE
    assert (found.keys.keys, found.jwks_uri) == ((), None)


@pytest.mark.requirement("NET-06", "CIMD-02")
@pytest.mark.parametrize(
    "client_id",
    [
        None,
        "",
        "https://c.test/App.json",
        "https://C.test/app.json",
        "https://c.test:443/app.json",
        "https://c.test/app.json/",
        "https://c.test/app%2Ejson",
        "https://c.test/%61pp.json",
        " https://c.test/app.json",
        "https://c.test/app.json#",
        "https://c.test//app.json",
        "http://c.test/app.json",
        "app",
        [URL],
        {"id": URL},
        1,
        True,
    ],
    ids=str,
)
def test_a_document_that_names_another_client_is_refused(client_id: Any) -> None:
    assert reason_of(metadata(client_id=client_id)) is Reason.CIMD_ID_MISMATCH


@pytest.mark.requirement("NET-06")
@pytest.mark.parametrize("other", [URL, "https://c.test/other.json"])
def test_a_document_that_names_its_client_twice_names_nobody(other: str) -> None:
    raw = json.dumps(metadata())[:-1] + f', "client_id": "{other}"}}'

    assert reason_of(raw.encode()) is Reason.CIMD_ID_MISMATCH


@pytest.mark.requirement("NET-07")
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'"https://c.test/app.json"',
        b"<!DOCTYPE html><html></html>",
        b"\xef\xbb\xbf" + json.dumps(metadata()).encode(),
        json.dumps(metadata()).encode("utf-16"),
        json.dumps(metadata()).encode().replace(b"App", b"\xff\xfe"),
        json.dumps(metadata()).encode() + b"{}",
        json.dumps(metadata()).encode()[:-1],
        json.dumps(metadata()).encode().replace(b'"App"', b"NaN"),
        json.dumps(metadata()).encode().replace(b'"App"', b"1" * 5000),
        json.dumps(metadata()).encode().replace(b'"App"', b'"\\ud800"'),
        json.dumps(metadata())[:-1].encode() + b', "client_name": "B"}',
    ],
    ids=lambda raw: ascii(raw[:24]),
)
def test_a_broken_document_is_refused(raw: bytes) -> None:
    assert reason_of(raw) is Reason.CIMD_INVALID


@pytest.mark.requirement("CLM-02", "NET-07")
@pytest.mark.parametrize("depth", [33, 900, 2000])
def test_a_nesting_bomb_is_refused(depth: int) -> None:
    bomb = b'{"client_id":' + b"[" * depth + b"]" * depth + b"}"

    assert reason_of(bomb) is Reason.CIMD_INVALID


@pytest.mark.requirement("NET-08", "CIMD-05")
@pytest.mark.parametrize(
    "changes",
    [
        {"token_endpoint_auth_method": "client_secret_basic"},
        {"token_endpoint_auth_method": "client_secret_post"},
        {"token_endpoint_auth_method": "client_secret_jwt"},
        {"token_endpoint_auth_method": "tls_client_auth"},
        {"token_endpoint_auth_method": "None"},
        {"client_secret": "hush"},
        {"client_secret": ""},
        {"client_secret_expires_at": 0},
        {"client_secret_expires_at": 0, "token_endpoint_auth_method": "none", "jwks": None},
    ],
    ids=str,
)
def test_a_shared_secret_is_refused(changes: dict[str, Any]) -> None:
    assert reason_of(metadata(**changes)) is Reason.CIMD_FORBIDDEN_AUTH


@pytest.mark.requirement("NET-12", "CIMD-05", "CIMD-10")
@pytest.mark.parametrize(
    "changes",
    [
        {"jwks": None},
        {"jwks_uri": "https://keys.test/jwks"},
        {"jwks_uri": "https://keys.test/jwks", "token_endpoint_auth_method": "none"},
        {"jwks": {}},
        {"jwks": []},
        {"jwks": {"keys": []}},
        {"jwks": {"keys": C1.jwk}},
        {"jwks": {"keys": [C1.jwk] * 33}},
        {"jwks": {"keys": [PRIVATE_JWK]}},
        {"jwks": {"keys": [C1.jwk, {**PRIVATE_JWK, "use": "enc"}]}},
        {"jwks": {"keys": [C1.jwk, SYMMETRIC_JWK]}},
        {"jwks": {"keys": [C1.jwk, {"kty": "oct"}]}},
        {"jwks": {"keys": [PRIVATE_JWK]}, "token_endpoint_auth_method": "none"},
        {"jwks": None, "jwks_uri": "http://keys.test/jwks"},
        {"jwks": None, "jwks_uri": "HTTPS://keys.test/jwks"},
        {"jwks": None, "jwks_uri": "file:///etc/passwd"},
        {"jwks": None, "jwks_uri": ""},
        {"jwks": None, "jwks_uri": ["https://keys.test/jwks"]},
        {"token_endpoint_auth_method": ["private_key_jwt"]},
        {"token_endpoint_auth_method": ""},
        {"token_endpoint_auth_signing_alg": 1},
        {"grant_types": "client_credentials"},
        {"grant_types": [1]},
        {"grant_types": {}},
        {"dpop_bound_access_tokens": "true"},
    ],
    ids=lambda _: None,
)
def test_a_document_whose_keys_or_members_are_unsound_is_refused(changes: dict[str, Any]) -> None:
    assert reason_of(metadata(**changes)) is Reason.CIMD_INVALID


@pytest.mark.parametrize("member", ["token_endpoint_auth_method", "jwks_uri", "grant_types"])
def test_null_is_not_absent(member: str) -> None:
    assert reason_of(metadata() | {member: None}) is Reason.CIMD_INVALID
    assert reason_of(metadata(jwks_uri="https://keys.test/jwks") | {"jwks": None}) is (
        Reason.CIMD_INVALID
    )


@pytest.mark.requirement("NET-12")
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"keys":[],"keys":[]}',
        json.dumps({"keys": [PRIVATE_JWK]}).encode(),
        json.dumps({"keys": [C1.jwk, SYMMETRIC_JWK]}).encode(),
    ],
    ids=lambda _: None,
)
def test_a_fetched_set_of_keys_is_read_as_strictly(raw: bytes) -> None:
    with pytest.raises(TokenRejected) as rejected:
        read_client_key_document(raw)

    assert rejected.value.reason is Reason.CIMD_INVALID
