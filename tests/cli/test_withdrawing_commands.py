"""``broker token introspect``, ``broker token revoke`` and ``broker revoke`` against recording servers."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import grpc
import jwt
import pytest
from click.testing import Result
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.code_pb2 import PERMISSION_DENIED
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from broker.v1 import admin_service_pb2, token_service_pb2
from broker.v1.admin_service_pb2 import RevokedParty, RevokeIssuedTokensResponse
from broker.v1.token_service_pb2 import IntrospectTokenResponse, RevokeTokenResponse
from tests.cli.conftest import WebServer

Run = Callable[..., Result]

AS_CLIENT = ("--client", "mcp-tickets")
AS_OPERATOR = ("--client", "operator")
SECRET = {"BROKER_CLIENT_SECRET": "s"}
SERVER = "https://tickets.example/mcp"
DOCUMENT: dict[str, Any] = {
    "active": True,
    "token_type": "Bearer",
    "iss": "https://broker.example",
    "sub": "alice",
    "aud": "https://api.example/v2",
    "client_id": "mcp-tickets",
    "scope": "contacts.read",
    "exp": 9_999_999_999,
    "iat": 1,
    "jti": "jti-1",
    "act": {
        "iss": "https://broker.example",
        "sub": "mcp-tickets",
        "act": {"iss": "https://broker.example", "sub": "agent-desk"},
    },
    "https://broker.example/claims/mcp": {"client": "agent-desk", "server": SERVER},
}


@dataclass
class Recording:
    """The methods that remember their calls by name, and refuse or answer as told."""

    refusal: Status | None = None
    answers: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, Any, dict[str, str]]] = field(default_factory=list)

    def handlers(self, module: Any, service: str) -> grpc.GenericRpcHandler:
        """All methods of a service."""
        described = module.DESCRIPTOR.services_by_name[service]
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            method.name: grpc.unary_unary_rpc_method_handler(
                self._behaviour(method.name),
                getattr(module, method.input_type.name).FromString,
                lambda answer: answer.SerializeToString(),
            )
            for method in described.methods
        }
        return grpc.method_handlers_generic_handler(described.full_name, methods)

    def _behaviour(self, name: str) -> Callable[[Any, Any], Any]:
        def behave(request: Any, context: Any) -> Any:
            self.calls.append((name, request, dict(context.invocation_metadata())))
            if self.refusal is not None:
                context.abort_with_status(rpc_status.to_status(self.refusal))
            return self.answers[name]

        return behave


@pytest.fixture
def service() -> Iterator[tuple[Recording, str]]:
    """A gRPC server on a free port of loopback, and its address."""
    recording = Recording()
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    server.add_generic_rpc_handlers(
        (
            recording.handlers(token_service_pb2, "TokenService"),
            recording.handlers(admin_service_pb2, "AdminService"),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield recording, f"127.0.0.1:{port}"
    server.stop(0).wait()


def refused() -> Status:
    """A refusal as the broker gives it."""
    detail = AnyMessage()
    facts = {"error": "unauthorized_client", "decision_id": "d-1"}
    detail.Pack(ErrorInfo(reason="UNAUTHORIZED_CLIENT", domain="broker", metadata=facts))
    message = "The client may not use this operation."
    return Status(code=PERMISSION_DENIED, message=message, details=[detail])


def lines(text: str) -> list[str]:
    return [line.strip("│├└─ ").rstrip() for line in text.splitlines()]


def test_a_token_is_asked_about_over_http_and_its_chain_is_drawn(run: Run, web: WebServer) -> None:
    web.answer("/introspect", DOCUMENT)

    result = run("token", "introspect", "--issuer", web.url, *AS_CLIENT, stdin="t.t.t\n", **SECRET)

    assert result.exit_code == 0, result.stderr
    ((method, path, body, headers),) = web.requests
    assert (method, path) == ("POST", "/introspect")
    assert parse_qsl(body.decode()) == [("token", "t.t.t")]
    assert headers["authorization"].startswith("Basic ")
    drawn = lines(result.stdout)
    assert drawn[0].startswith("person     alice")
    assert drawn[1].startswith("MCP client agent-desk")
    assert drawn[2].startswith("MCP server mcp-tickets")
    assert "token_type Bearer" in drawn


def test_over_grpc_the_same_is_told(run: Run, service: tuple[Recording, str]) -> None:
    recording, address = service
    recording.answers["IntrospectToken"] = IntrospectTokenResponse(
        active=True, document_json=json.dumps(DOCUMENT)
    )

    result = run(
        *("token", "introspect", "--grpc", address, *AS_CLIENT, "-o", "json"), stdin="t", **SECRET
    )

    assert json.loads(result.stdout) == DOCUMENT
    ((name, request, metadata),) = recording.calls
    assert (name, request.token) == ("IntrospectToken", "t")
    assert metadata["authorization"].startswith("Basic ")


@pytest.mark.parametrize("face", ["http", "grpc"])
@pytest.mark.parametrize("output", ["tree", "json"])
def test_a_token_that_is_not_active_ends_the_command_with_one(
    run: Run, web: WebServer, service: tuple[Recording, str], face: str, output: str
) -> None:
    recording, address = service
    web.answer("/introspect", {"active": False})
    recording.answers["IntrospectToken"] = IntrospectTokenResponse()
    where = ("--issuer", web.url) if face == "http" else ("--grpc", address)

    result = run(*("token", "introspect", *where, *AS_CLIENT, "-o", output), stdin="t", **SECRET)

    assert result.exit_code == 1
    assert "not active" in result.stderr
    assert result.stdout == ("" if output == "tree" else '{\n  "active": false\n}\n')


@pytest.mark.parametrize("answer", [b"", b"[]", b"<html>", {}, {"active": "yes"}, {"sub": "alice"}])
def test_an_answer_that_does_not_say_whether_is_none(run: Run, web: WebServer, answer: Any) -> None:
    web.answer("/introspect", answer)

    result = run("token", "introspect", "--issuer", web.url, *AS_CLIENT, stdin="t", **SECRET)

    assert result.exit_code == 1
    assert "RFC 7662" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("document", ["", "[]", "{", '{"active": 1}', '{"sub": "a", "sub": "b"}'])
def test_over_grpc_such_an_answer_is_none_either(
    run: Run, service: tuple[Recording, str], document: str
) -> None:
    recording, address = service
    answer = IntrospectTokenResponse(active=True, document_json=document)
    recording.answers["IntrospectToken"] = answer

    result = run("token", "introspect", "--grpc", address, *AS_CLIENT, stdin="t", **SECRET)

    assert result.exit_code == 1
    assert "RFC 7662" in result.stderr


def test_what_is_told_of_a_token_cannot_steer_the_terminal(run: Run, web: WebServer) -> None:
    web.answer("/introspect", {**DOCUMENT, "sub": "a\x1b[2J", "jti": "\x1b]0;x\x07"})

    result = run("token", "introspect", "--issuer", web.url, *AS_CLIENT, stdin="t", **SECRET)

    assert result.exit_code == 0
    assert "\x1b" not in result.stdout


def test_a_token_is_withdrawn_over_http(run: Run, web: WebServer, tmp_path: Path) -> None:
    web.answer("/revoke", b"")
    (tmp_path / "token").write_text("t.t.t")

    result = run("token", "revoke", "@token", "--issuer", web.url, *AS_CLIENT, **SECRET)

    assert result.exit_code == 0, result.stderr
    ((_, path, body, _),) = web.requests
    assert (path, parse_qsl(body.decode())) == ("/revoke", [("token", "t.t.t")])


def test_a_token_is_withdrawn_over_grpc(run: Run, service: tuple[Recording, str]) -> None:
    recording, address = service
    recording.answers["RevokeToken"] = RevokeTokenResponse()

    result = run("token", "revoke", "--grpc", address, *AS_CLIENT, stdin="t", **SECRET)

    assert result.exit_code == 0, result.stderr
    assert [(name, request.token) for name, request, _ in recording.calls] == [("RevokeToken", "t")]


@pytest.mark.parametrize("verb", ["introspect", "revoke"])
def test_a_refusal_is_told_with_its_decision(
    run: Run, web: WebServer, service: tuple[Recording, str], verb: str
) -> None:
    recording, address = service
    recording.refusal = refused()
    body = {"error": "unauthorized_client", "error_description": "The client may not\x1b[2J."}
    web.answer(f"/{verb}", body, status=400, Broker_Decision_Id="d-1")

    over_http = run("token", verb, "--issuer", web.url, *AS_CLIENT, stdin="t", **SECRET)
    over_grpc = run("token", verb, "--grpc", address, *AS_CLIENT, stdin="t", **SECRET)

    for result in (over_http, over_grpc):
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.startswith("unauthorized_client: The client may not")
        assert result.stderr.endswith("(decision d-1)\n")
        assert "\x1b" not in result.stderr


@pytest.mark.requirement("CFG-04")
@pytest.mark.parametrize("verb", ["introspect", "revoke"])
def test_a_token_on_the_command_line_is_refused(run: Run, web: WebServer, verb: str) -> None:
    result = run("token", verb, "eyJhbGciOi.x.y", "--issuer", web.url, *AS_CLIENT, **SECRET)

    assert result.exit_code == 2
    assert "on the command line others can read it" in " ".join(
        result.stderr.replace("│", " ").split()
    )
    assert web.requests == []


@pytest.mark.requirement("REV-06")
@pytest.mark.parametrize(
    ("option", "name", "party"),
    [
        ("--subject", "alice", RevokedParty.REVOKED_PARTY_SUBJECT),
        ("--client-id", "agent-desk", RevokedParty.REVOKED_PARTY_CLIENT),
        ("--mcp-server", SERVER, RevokedParty.REVOKED_PARTY_MCP_SERVER),
        ("--issuer", "https://idp.example", RevokedParty.REVOKED_PARTY_ISSUER),
    ],
)
def test_everything_issued_for_a_party_is_withdrawn(
    run: Run,
    service: tuple[Recording, str],
    option: str,
    name: str,
    party: RevokedParty.ValueType,
) -> None:
    recording, address = service
    recording.answers["RevokeIssuedTokens"] = RevokeIssuedTokensResponse(issued_until=1_800_000_000)

    result = run("revoke", "--grpc", address, *AS_OPERATOR, option, name, **SECRET)

    assert result.exit_code == 0, result.stderr
    shown = f"{option.removeprefix('--')} {name}"
    assert result.stdout == (
        f"Withdrawn: {shown}, from the beginning through 2027-01-15T08:00:00Z.\n"
    )
    ((_, request, metadata),) = recording.calls
    assert (request.party, request.name, request.issued_since) == (party, name, 0)
    assert metadata["authorization"].startswith("Basic ")


def test_an_operator_may_have_a_key(run: Run, service: tuple[Recording, str]) -> None:
    recording, address = service
    recording.answers["RevokeIssuedTokens"] = RevokeIssuedTokensResponse(issued_until=1)
    asked = ("revoke", "--grpc", address, *AS_OPERATOR, "--issuer", "https://idp.example")
    run("client", "key", "key")

    without_issuer = run(*asked, "--key-file", "key")
    result = run(*asked, "--key-file", "key", "--broker-issuer", "https://broker.example")

    assert without_issuer.exit_code == 2
    assert result.exit_code == 0, result.stderr
    ((_, request, metadata),) = recording.calls
    assert request.name == "https://idp.example"
    assertion = request.client_authentication.client_assertion
    claims = jwt.decode(assertion, options={"verify_signature": False})
    assert (claims["sub"], claims["aud"]) == ("operator", "https://broker.example")
    assert "authorization" not in metadata


@pytest.mark.parametrize(
    ("since", "moment"),
    [
        ("2026-11-22T08:00:00Z", 1_795_334_400),
        ("2026-11-22T10:00:00+02:00", 1_795_334_400),
        ("2026-11-22T08:00:00.900Z", 1_795_334_400),
    ],
)
def test_since_may_be_a_moment(
    run: Run, service: tuple[Recording, str], since: str, moment: int
) -> None:
    recording, address = service
    recording.answers["RevokeIssuedTokens"] = RevokeIssuedTokensResponse(issued_until=moment + 60)

    result = run(
        *("revoke", "--grpc", address, *AS_OPERATOR, "--subject", "alice", "--since", since),
        *("-o", "json"),
        **SECRET,
    )

    assert recording.calls[0][1].issued_since == moment
    assert json.loads(result.stdout) == {
        "party": "subject",
        "name": "alice",
        "issued_since": moment,
        "issued_until": moment + 60,
    }


@pytest.mark.parametrize(("since", "seconds"), [("10m", 600), ("1h30m", 5_400), ("0s", 0)])
def test_since_may_be_so_long_ago(
    run: Run, service: tuple[Recording, str], since: str, seconds: int
) -> None:
    recording, address = service
    recording.answers["RevokeIssuedTokens"] = RevokeIssuedTokensResponse(issued_until=9)
    earliest = int(time.time()) - seconds

    run(
        *("revoke", "--grpc", address, *AS_OPERATOR, "--subject", "alice", "--since", since),
        **SECRET,
    )

    assert earliest <= recording.calls[0][1].issued_since <= int(time.time()) - seconds


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Name one party"),
        (["--subject", ""], "Name one party"),
        (["--subject", "a", "--client-id", "b"], "Name one party"),
        (["--subject", "a", "--since", "yesterday"], "--since takes a duration"),
        (["--subject", "a", "--since", "2026-11-22T08:00:00"], "--since takes a duration"),
        (["--subject", "a", "--since", "2026-11-22"], "--since takes a duration"),
        (["--subject", "a", "--since", ""], "--since takes a duration"),
    ],
)
def test_an_order_that_is_not_clear_is_not_sent(
    run: Run, service: tuple[Recording, str], arguments: list[str], sentence: str
) -> None:
    recording, address = service

    result = run("revoke", "--grpc", address, *AS_OPERATOR, *arguments, **SECRET)

    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.replace("│", " ").split())
    assert recording.calls == []


def test_the_issuer_in_the_environment_is_not_withdrawn(
    run: Run, service: tuple[Recording, str]
) -> None:
    """For other commands it names the broker; here it would name a victim."""
    recording, address = service

    result = run(
        *("revoke", "--grpc", address, *AS_OPERATOR), BROKER_ISSUER="https://idp.example", **SECRET
    )

    assert result.exit_code == 2
    assert recording.calls == []


def test_who_may_not_withdraw_is_told_so(run: Run, service: tuple[Recording, str]) -> None:
    recording, address = service
    recording.refusal = refused()

    result = run("revoke", "--grpc", address, *AS_OPERATOR, "--subject", "alice", **SECRET)

    assert result.exit_code == 1
    assert result.stderr == (
        "unauthorized_client: The client may not use this operation. (decision d-1)\n"
    )


def test_without_a_grpc_address_nobody_is_asked(run: Run) -> None:
    result = run("revoke", *AS_OPERATOR, "--subject", "alice", **SECRET)

    assert result.exit_code == 2
    assert "--grpc" in result.stderr
