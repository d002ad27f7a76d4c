"""What a client authenticates by, and what becomes of it when that cannot be used."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest

from broker.client import CredentialUnusable, KeyFile, Secret, VaultKey, WorkloadTokenFile
from broker.client.failures import Unavailable
from broker.oauth import CLIENT_ASSERTION_JWT_BEARER, CLIENT_ASSERTION_JWT_SPIFFE
from tests.client.hands import WAYS, hand_of
from tests.client.scripted_server import Reply, ScriptedServer, scripted_server, told
from tests.client.whole_broker import NIGHTLY, whole_broker, write_jwk, write_key
from tests.e2e.setting import SERVER, TICKETS
from tests.harness import decode_claims, decode_header
from tests.idp import encode, signer
from tests.openbao import OpenBao

ISSUER = "https://broker.example"
NOW = 1_795_262_400


@pytest.fixture
def key_server() -> Iterator[ScriptedServer]:
    """Something in the place of Vault."""
    with scripted_server() as server:
        yield server


def vault_key(url: str, folder: Path) -> VaultKey:
    """A key that a server keeps."""
    token_file = folder / "vault-token"
    token_file.write_text("s.vault-token\n")
    return VaultKey(
        TICKETS,
        f"{url}/v1/transit/sign/agent",
        key_version=1,
        kid="agent-1",
        token_file=token_file,
        clock=lambda: NOW,
    )


def test_an_assertion_is_for_the_broker_alone_and_for_a_minute(tmp_path: Path) -> None:
    key = KeyFile("a", write_key(tmp_path / "k", signer("a")), kid="a", clock=lambda: NOW)

    presented = key.present(ISSUER)

    assertion = presented.form["client_assertion"]
    claims = jwt.decode(
        assertion,
        jwt.PyJWK(signer("a").jwk),
        audience=ISSUER,
        options={"verify_exp": False, "verify_iat": False},
    )
    assert presented.form["client_assertion_type"] == CLIENT_ASSERTION_JWT_BEARER
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("a", "a", ISSUER)
    assert (claims["iat"], claims["exp"]) == (NOW, NOW + 60)
    assert decode_header(assertion) == {
        "alg": "ES256",
        "kid": "a",
        "typ": "client-authentication+jwt",
    }


def test_no_two_assertions_are_alike(tmp_path: Path) -> None:
    key = KeyFile("a", write_key(tmp_path / "k", signer("a")), clock=lambda: NOW)

    ids = {decode_claims(key.present(ISSUER).form["client_assertion"])["jti"] for _ in range(20)}

    assert len(ids) == 20


@pytest.mark.parametrize("algorithm", ["ES384", "EdDSA", "RS256"])
def test_a_jwk_says_itself_how_it_signs(tmp_path: Path, algorithm: str) -> None:
    if algorithm != "ES384":
        path = write_key(tmp_path / "k", signer(algorithm, algorithm))
        key = KeyFile("a", path, algorithm=algorithm)
    else:
        key = KeyFile("a", write_jwk(tmp_path / "k", signer(algorithm, algorithm)))

    header = decode_header(key.present(ISSUER).form["client_assertion"])

    assert header["alg"] == algorithm


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a key",
        b"\xff\xfe",
        b'{"kty": "EC"}',
        b'{"kid": "secret-member", "d": "secret-member"}',
        b'{"kty": "oct", "k": "secret-member", "alg": "HS256"}',
        b"{" + b'"a":{' * 10_000,
        b"-----BEGIN PRIVATE KEY-----\n" * 10_000,
    ],
)
def test_a_file_that_holds_no_key_is_told_without_its_content(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)

    with pytest.raises(CredentialUnusable) as caught:
        KeyFile("a", path).present(ISSUER)

    assert str(path) in str(caught.value)
    assert "secret-member" not in str(caught.value)


def test_a_key_of_another_kind_signs_nothing(tmp_path: Path) -> None:
    path = write_key(tmp_path / "k", signer("rsa", "RS256"))

    with pytest.raises(CredentialUnusable):
        KeyFile("a", path, algorithm="ES256").present(ISSUER)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CredentialUnusable, match="No such file"):
        KeyFile("a", tmp_path / "nowhere").present(ISSUER)
    with pytest.raises(CredentialUnusable, match="No such file"):
        WorkloadTokenFile(tmp_path / "nowhere").present(ISSUER)


def test_both_parts_of_a_basic_credential_are_form_encoded() -> None:
    value = Secret("a:b c", "d%e").present(ISSUER).authorization

    assert value is not None
    assert base64.b64decode(value.removeprefix("Basic ")) == b"a%3Ab+c:d%25e"


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    secret = Secret("a", "s3cret")
    key = KeyFile("a", write_key(tmp_path / "k", signer("a")))

    assert "s3cret" not in repr(secret)
    assert "s3cret" not in repr(Secret("a", "s3cret", is_posted=True).present(ISSUER))
    assert "ey" not in repr(key.present(ISSUER))


def test_a_spiffe_token_is_an_assertion_and_any_other_is_a_grant(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(signer("t").sign({"sub": "spiffe://td.example/agent"}) + "\n")
    svid = WorkloadTokenFile(path).present(ISSUER)
    path.write_text(signer("t").sign({"sub": "system:serviceaccount:prod:agent"}))
    other = WorkloadTokenFile(path).present(ISSUER)

    assert svid.form["client_assertion_type"] == CLIENT_ASSERTION_JWT_SPIFFE
    assert not svid.form["client_assertion"].endswith("\n")
    assert svid.grant is None
    assert not other.form
    assert other.grant


@pytest.mark.parametrize(
    "content",
    ["", "opaque", "a.b", "a.!.c", "a.bm90IGpzb24.c", f"a.{encode(b'[' * 9000).decode()}.c"],
)
def test_a_workloads_token_that_is_none_is_not_sent(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content)

    with pytest.raises(CredentialUnusable):
        WorkloadTokenFile(path).present(ISSUER)


def test_a_key_server_is_asked_for_the_signature_alone(
    tmp_path: Path, key_server: ScriptedServer
) -> None:
    key_server.script.append(told({"data": {"signature": "vault:v1:c2lnbmF0dXJl"}}))

    presented = vault_key(key_server.origin, tmp_path).present(ISSUER)

    assertion = presented.form["client_assertion"]
    (asked,) = key_server.asked
    sent = json.loads(asked.body)
    assert asked.path == "/v1/transit/sign/agent"
    assert asked.headers["x-vault-token"] == "s.vault-token"
    assert (sent["key_version"], sent["marshaling_algorithm"]) == (1, "jws")
    assert sent["hash_algorithm"] == "sha2-256"
    assert assertion == base64.b64decode(sent["input"]).decode() + ".c2lnbmF0dXJl"
    assert decode_header(assertion)["kid"] == "agent-1"


@pytest.mark.parametrize(
    "reply",
    [
        told({"errors": ["permission denied"]}, 403),
        told({"data": {}}),
        told({"data": {"signature": 5}}),
        told(["no object"]),
        Reply(200, b"no JSON"),
        Reply(302, headers={"Location": "/elsewhere"}),
    ],
)
def test_a_key_server_that_does_not_sign_is_told_without_secrets(
    tmp_path: Path, key_server: ScriptedServer, reply: Reply
) -> None:
    key_server.script.append(reply)

    with pytest.raises(CredentialUnusable) as caught:
        vault_key(key_server.origin, tmp_path).present(ISSUER)

    assert "s.vault-token" not in str(caught.value)
    assert len(key_server.asked) == 1


def test_a_key_server_that_is_sealed_or_away_may_sign_later(
    tmp_path: Path, key_server: ScriptedServer
) -> None:
    key_server.script.append(told({"errors": ["Vault is sealed"]}, 503))

    with pytest.raises(Unavailable, match="503"):
        vault_key(key_server.origin, tmp_path).present(ISSUER)
    with pytest.raises(Unavailable, match="does not answer"):
        vault_key("http://127.0.0.1:9", tmp_path).present(ISSUER)


def test_an_answer_of_a_key_server_that_is_too_large_is_not_read(
    tmp_path: Path, key_server: ScriptedServer
) -> None:
    key_server.script.append(Reply(200, b" " * 2_000_000))

    with pytest.raises(Exception, match="too large"):
        vault_key(key_server.origin, tmp_path).present(ISSUER)


def test_a_key_server_off_this_machine_is_asked_over_tls_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be https"):
        vault_key("http://vault.example:8200", tmp_path)


@pytest.mark.openbao
def test_a_key_that_stays_in_openbao_authenticates_a_client(
    tmp_path: Path, openbao: OpenBao
) -> None:
    openbao.create_key("nightly")
    rule = 'path "transit/sign/nightly" { capabilities = ["update"] }'
    openbao.call("PUT", "sys/policies/acl/nightly", policy=rule)
    made = openbao.call("POST", "auth/token/create", policies=["nightly"], no_default_policy=True)
    token_file = tmp_path / "vault-token"
    token_file.write_text(made["auth"]["client_token"])
    pem = openbao.call("GET", "transit/keys/nightly")["data"]["keys"]["1"]["public_key"]
    public = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256).prepare_key(pem)
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(public)) | {"kid": "nightly-1", "use": "sig"}
    credential = VaultKey(
        NIGHTLY,
        f"{openbao.url}/v1/transit/sign/nightly",
        key_version=1,
        kid="nightly-1",
        token_file=token_file,
    )
    folder = tmp_path / "broker"
    folder.mkdir()
    with whole_broker(folder, nightly_keys={"keys": [jwk]}) as broker:
        for way in WAYS:
            hand = hand_of(way, broker.setting, credential)
            token = hand.do(lambda one: one.client_token(resource=SERVER, scopes=["tickets:read"]))
            hand.close()
            assert decode_claims(token.access_token)["sub"] == f"client:{NIGHTLY}"
