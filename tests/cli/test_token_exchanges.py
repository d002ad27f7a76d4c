"""``broker token exchange`` against servers that record what it sends."""

import base64
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import grpc
import jwt
import pytest
import trustme
from click.testing import Result
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.code_pb2 import PERMISSION_DENIED
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from broker.v1.token_pb2 import IssuedToken, TokenType
from broker.v1.token_service_pb2 import ExchangeTokenRequest, ExchangeTokenResponse
from broker.v1.token_service_pb2_grpc import (
    TokenServiceServicer,
    add_TokenServiceServicer_to_server,
)
from tests.cli.conftest import WebServer
from tests.idp import signer

Run = Callable[..., Result]

API = "https://api.example/v2"
ISSUED = signer("k1").sign(
    {"iss": "x", "sub": "alice", "aud": API, "exp": 9_999_999_999}, typ="at+jwt"
)
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
ANSWER = {
    "access_token": ISSUED,
    "issued_token_type": ACCESS_TOKEN,
    "token_type": "Bearer",
    "expires_in": 120,
    "scope": "contacts.read",
}
AS_CLIENT = ("--client", "mcp tickets", "--resource", API)


@dataclass
class RecordingService(TokenServiceServicer):
    """A token service that remembers its calls, and refuses when told to."""

    refusal: Status | None = None
    calls: list[tuple[ExchangeTokenRequest, dict[str, str]]] = field(default_factory=list)

    IntrospectToken = IssueClientToken = RedeemAssertion = RevokeToken = None  # type: ignore[assignment] # not asked here
    ExchangeTokens = None  # type: ignore[assignment] # not asked here either

    def ExchangeToken(  # noqa: N802 - the generated base names it
        self, request: ExchangeTokenRequest, context: Any
    ) -> ExchangeTokenResponse:
        self.calls.append((request, dict(context.invocation_metadata())))
        if self.refusal is not None:
            context.abort_with_status(rpc_status.to_status(self.refusal))
        return ExchangeTokenResponse(
            issued_token=IssuedToken(
                access_token=ISSUED,
                issued_token_type=TokenType.TOKEN_TYPE_ACCESS_TOKEN,
                token_type="Bearer",
                expires_in=120,
                scopes=["contacts.read"],
            )
        )


@pytest.fixture
def service() -> Iterator[tuple[RecordingService, str]]:
    """A gRPC server on a free port of loopback, and its address."""
    recording = RecordingService()
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    add_TokenServiceServicer_to_server(recording, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield recording, f"127.0.0.1:{port}"
    server.stop(0).wait()


def test_an_exchange_over_http_is_the_form_of_rfc_8693(
    run: Run, web: WebServer, tmp_path: Path
) -> None:
    web.answer("/token", ANSWER)
    (tmp_path / "secret").write_text("s:cr+t\n")
    (tmp_path / "actor").write_text("actor.jwt.x")

    result = run(
        *("token", "exchange", "--issuer", web.url, *AS_CLIENT, "--secret-file", "secret"),
        *("--actor-token", "@actor", "--scope", "a b", "--scope", "c", "-o", "token"),
        stdin="subject.jwt.x\n",
    )

    assert result.exit_code == 0, result.stderr
    assert result.stdout == ISSUED + "\n"
    ((method, path, body, headers),) = web.requests
    assert (method, path) == ("POST", "/token")
    assert parse_qsl(body.decode()) == [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", "subject.jwt.x"),
        ("subject_token_type", ACCESS_TOKEN),
        ("actor_token", "actor.jwt.x"),
        ("actor_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("resource", API),
        ("scope", "a b c"),
    ]
    credential = headers["authorization"].removeprefix("Basic ")
    assert base64.b64decode(credential) == b"mcp+tickets:s%3Acr%2Bt"


def test_an_exchange_over_grpc_carries_the_same(
    run: Run, service: tuple[RecordingService, str], tmp_path: Path
) -> None:
    recording, address = service
    (tmp_path / "subject").write_text("subject.jwt.x")

    result = run(
        *("token", "exchange", "--grpc", address, *AS_CLIENT, "--subject-token", "@subject"),
        *("--subject-token-type", "id_token", "--scope", "a", "-o", "json"),
        BROKER_CLIENT_SECRET="s:cr+t",
    )

    assert json.loads(result.stdout) == ANSWER
    ((request, metadata),) = recording.calls
    assert request.subject_token == "subject.jwt.x"
    assert request.subject_token_type == TokenType.TOKEN_TYPE_ID_TOKEN
    assert list(request.resources) == [API]
    assert list(request.scopes) == ["a"]
    assert request.actor_token_type == TokenType.TOKEN_TYPE_UNSPECIFIED
    assert base64.b64decode(metadata["authorization"].removeprefix("Basic ")) == (
        b"mcp+tickets:s%3Acr%2Bt"
    )


@pytest.fixture
def key(run: Run) -> dict[str, Any]:
    """The public half of a key whose private half is in the file ``key``."""
    made = run("client", "key", "key")
    jwk: dict[str, Any] = json.loads(made.stdout)["keys"][0]
    return jwk


def asserted(assertion: str, key: dict[str, Any], issuer: str) -> Any:
    """Whom an assertion by this key, for this issuer, is about."""
    public = jwt.PyJWK(key)
    return jwt.decode(assertion, public, algorithms=["ES256"], audience=issuer)["sub"]


@pytest.mark.requirement("CA-07")
def test_a_client_with_a_key_asserts_itself_over_http(
    run: Run, web: WebServer, key: dict[str, Any]
) -> None:
    web.answer("/token", ANSWER)

    result = run(
        *("token", "exchange", "--issuer", web.url, *AS_CLIENT, "--key-file", "key"),
        stdin="subject.jwt.x\n",
    )

    assert result.exit_code == 0, result.stderr
    ((_, _, body, headers),) = web.requests
    form = dict(parse_qsl(body.decode()))
    assert "authorization" not in headers
    assert form["client_assertion_type"].endswith(":jwt-bearer")
    assert asserted(form["client_assertion"], key, web.url) == "mcp tickets"


def test_a_client_with_a_key_asserts_itself_over_grpc(
    run: Run, service: tuple[RecordingService, str], key: dict[str, Any]
) -> None:
    recording, address = service

    result = run(
        *("token", "exchange", "--grpc", address, "--issuer", "https://broker.example"),
        *(*AS_CLIENT, "--key-file", "key"),
        stdin="subject.jwt.x\n",
    )

    assert result.exit_code == 0, result.stderr
    ((request, metadata),) = recording.calls
    assertion = request.client_authentication.client_assertion
    assert "authorization" not in metadata
    assert asserted(assertion, key, "https://broker.example") == "mcp tickets"


def test_a_key_without_the_issuer_that_it_is_for_is_of_no_use(
    run: Run, key: dict[str, Any]
) -> None:
    assert key["kid"]

    result = run("token", "exchange", "--grpc", "127.0.0.1:1", *AS_CLIENT, "--key-file", "key")

    assert result.exit_code == 2
    assert "what a key signs is for one broker" in " ".join(result.output.replace("│", "").split())


@pytest.mark.parametrize("content", [None, "", "no key", '{"kty":"oct","k":"c2VjcmV0"}'])
def test_a_file_without_a_key_ends_the_command_and_is_not_shown(
    run: Run, web: WebServer, tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "key").write_text(content)

    result = run(
        *("token", "exchange", "--issuer", web.url, *AS_CLIENT, "--key-file", "key"),
        stdin="subject.jwt.x\n",
    )

    assert result.exit_code == 1
    assert result.stderr.startswith(("key ", "The key in key "))
    assert "c2VjcmV0" not in result.output
    assert not web.requests


def test_the_issued_token_is_drawn_by_default(run: Run, web: WebServer) -> None:
    web.answer("/token", ANSWER)

    result = run(
        *("token", "exchange", *AS_CLIENT),
        stdin="subject",
        BROKER_HTTP=web.url,
        BROKER_CLIENT_SECRET="s",
    )

    assert result.stdout.startswith("person     alice\n")


def test_a_refusal_over_http_is_told_with_its_decision(run: Run, web: WebServer) -> None:
    refusal = {"error": "invalid_target", "error_description": "The target is\x1b[2J unknown."}
    web.answer("/token", refusal, status=400, Broker_Decision_Id="d-1")

    result = run(
        *("token", "exchange", "--issuer", web.url, *AS_CLIENT), stdin="t", BROKER_CLIENT_SECRET="s"
    )

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "invalid_target: The target is\\u001b[2J unknown. (decision d-1)\n"


def test_a_refusal_over_grpc_is_told_likewise(
    run: Run, service: tuple[RecordingService, str]
) -> None:
    recording, address = service
    detail = AnyMessage()
    facts = {"error": "invalid_target", "decision_id": "d-1"}
    detail.Pack(ErrorInfo(reason="INVALID_TARGET", domain="broker", metadata=facts))
    recording.refusal = Status(
        code=PERMISSION_DENIED, message="The target is unknown.", details=[detail]
    )

    result = run(
        *("token", "exchange", "--grpc", address, *AS_CLIENT), stdin="t", BROKER_CLIENT_SECRET="s"
    )

    assert result.exit_code == 1
    assert result.stderr == "invalid_target: The target is unknown. (decision d-1)\n"


@pytest.mark.parametrize("face", ["--issuer", "--grpc"])
def test_a_broker_that_does_not_answer_is_no_traceback(run: Run, face: str) -> None:
    address = "http://127.0.0.1:1" if face == "--issuer" else "127.0.0.1:1"

    result = run(
        "token", "exchange", face, address, *AS_CLIENT, stdin="t", BROKER_CLIENT_SECRET="s"
    )

    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)


@pytest.mark.requirement("CFG-04")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--subject-token", "eyJhbGciOi.x.y"], "on the command line others can read it"),
        (["--actor-token", "eyJhbGciOi.x.y"], "on the command line others can read it"),
        (["--secret", "s"], "No such option"),
        (["--actor-token", "-"], "Only one of the two tokens"),
        (["--subject-token", "@missing"], "cannot be read"),
        (["--subject-token-type", "saml2"], "saml2"),
    ],
)
def test_what_would_show_a_secret_or_is_ambiguous_is_refused(
    run: Run, arguments: list[str], sentence: str
) -> None:
    result = run(
        *("token", "exchange", "--issuer", "http://127.0.0.1:1", *AS_CLIENT, *arguments),
        stdin="t",
        BROKER_CLIENT_SECRET="s",
    )

    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.replace("│", " ").split())
    assert "eyJhbGciOi" not in result.output


@pytest.mark.parametrize("address", ["broker.example:443", "127.0.0.1:1", "not an address"])
def test_over_grpc_there_is_tls_unless_the_broker_is_here(
    run: Run, tmp_path: Path, address: str
) -> None:
    missing = str(tmp_path / "missing.pem")

    result = run(
        *("token", "exchange", "--grpc", address, "--ca-file", missing, *AS_CLIENT),
        stdin="t",
        BROKER_CLIENT_SECRET="s",
    )

    assert result.exit_code == 2
    assert "--ca-file" in result.stderr


def test_a_grpc_broker_without_tls_is_not_spoken_to_with_authorities(
    run: Run, service: tuple[RecordingService, str], tmp_path: Path
) -> None:
    recording, address = service
    authorities = trustme.CA()
    authorities.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    result = run(
        *("token", "exchange", "--grpc", address, "--ca-file", "ca.pem", *AS_CLIENT),
        stdin="t",
        BROKER_CLIENT_SECRET="s",
    )

    assert result.exit_code == 1
    assert recording.calls == []


def test_without_an_address_nothing_is_asked(run: Run) -> None:
    result = run("token", "exchange", *AS_CLIENT, stdin="t", BROKER_CLIENT_SECRET="s")

    assert result.exit_code == 2
    assert "--issuer URL or --grpc" in result.stderr


def test_without_a_secret_nothing_is_sent(run: Run, web: WebServer) -> None:
    result = run("token", "exchange", "--issuer", web.url, *AS_CLIENT, stdin="t")

    assert result.exit_code == 2
    assert web.requests == []


def test_tokens_are_not_sent_in_the_clear(run: Run) -> None:
    result = run(
        *("token", "exchange", "--issuer", "http://broker.example", *AS_CLIENT),
        stdin="t",
        BROKER_CLIENT_SECRET="s",
    )

    assert result.exit_code == 1
    assert "must be https" in result.stderr


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"<html>", {}, {**ANSWER, "expires_in": "soon"}, {"access_token": ISSUED}],
)
def test_an_answer_that_is_none_is_refused(run: Run, web: WebServer, answer: Any) -> None:
    web.answer("/token", answer)

    result = run(
        *("token", "exchange", "--issuer", web.url, *AS_CLIENT), stdin="t", BROKER_CLIENT_SECRET="s"
    )

    assert result.exit_code == 1
    assert "Traceback" not in result.output


def test_what_the_broker_issues_is_taken_for_a_token_only_if_it_is_one(
    run: Run, web: WebServer
) -> None:
    web.answer("/token", {**ANSWER, "access_token": "x\x1b[2J"})

    result = run(
        *("token", "exchange", "--issuer", web.url, *AS_CLIENT), stdin="t", BROKER_CLIENT_SECRET="s"
    )

    assert result.exit_code == 1
    assert "\x1b" not in result.output
