import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.cli.conftest import WebServer
from tests.idp import encode, signer

Run = Callable[..., Result]


def claims(issuer: str, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    return {
        "iss": issuer,
        "sub": "alice",
        "aud": "https://api.example/v2",
        "client_id": "mcp-tickets",
        "scope": "contacts.read",
        "iat": now,
        "exp": now + 1000,
        "jti": "one",
        "acr": "phr",
        "act": {
            "sub": "mcp-tickets",
            "sub_profile": "service",
            "act": {"sub": "agent-desk", "sub_profile": "ai_agent"},
        },
        f"{issuer}/claims/mcp": {
            "client": "agent-desk",
            "server": "https://tickets.example/mcp",
            "resource": "https://api.example/v2",
        },
        **changes,
    }


def token(issuer: str, **changes: Any) -> str:
    return signer("k1").sign(claims(issuer, **changes), typ="at+jwt")


def test_a_good_token_is_drawn_with_its_whole_delegation(run: Run, web: WebServer) -> None:
    issuer = web.be_issuer(signer("k1").jwks)

    result = run("token", "inspect", "--issuer", issuer, stdin=token(issuer))

    assert result.exit_code == 0, result.output
    lines = [line.strip("│├└─ ") for line in result.stdout.splitlines()]
    assert [line.split() for line in lines[:6]] == [
        ["person", "alice"],
        ["MCP", "client", "agent-desk"],
        ["MCP", "server", "mcp-tickets", "https://tickets.example/mcp"],
        ["resource", "https://api.example/v2"],
        ["scopes", "contacts.read"],
        ["lifetime", lines[5].split()[1], "left"],
    ]
    assert "server https://tickets.example/mcp" in lines
    assert "acr phr" in lines
    assert "✔ signature ES256, kid k1" in lines


def test_a_token_is_read_from_a_file_and_drawn_as_json(
    run: Run, web: WebServer, tmp_path: Path
) -> None:
    issuer = web.be_issuer(signer("k1").jwks)
    (tmp_path / "token").write_text(token(issuer) + "\n")

    result = run("token", "inspect", "@token", "-o", "json", "--issuer", issuer)

    shown = json.loads(result.stdout)
    assert shown["is_verified"]
    assert shown["claims"]["sub"] == "alice"
    assert {check["name"] for check in shown["checks"]} == {"signature", "time", "issuer"}


def test_keys_in_a_file_serve_as_well(run: Run, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(json.dumps(signer("k1").jwks))

    result = run("token", "inspect", "--jwks", "keys.json", stdin=token("https://b.example"))

    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"exp": 1}, "✖ time expired"),
        ({"exp": "soon"}, "✖ time exp or nbf is missing"),
        ({"exp": True}, "✖ time exp or nbf is missing"),
        ({"nbf": 99_999_999_999}, "✖ time valid in"),
        ({"iss": "https://other.example"}, "✖ issuer https://other.example"),
        ({"aud": "https://other.example"}, "✖ audience https://other.example"),
        ({"aud": ["https://other.example", 1]}, "✖ audience https://other.example, 1"),
    ],
)
def test_each_check_that_fails_is_named(
    run: Run, web: WebServer, changes: dict[str, Any], check: str
) -> None:
    issuer = web.be_issuer(signer("k1").jwks)
    options = ("--issuer", issuer, "--audience", "https://api.example/v2")

    result = run("token", "inspect", *options, stdin=token(issuer, **changes))

    assert result.exit_code == 1
    assert check in result.stdout
    assert "not acceptable" in result.stderr


def test_a_token_of_another_key_is_not_verified(run: Run, web: WebServer) -> None:
    issuer = web.be_issuer(signer("k2").jwks)

    result = run("token", "inspect", "--issuer", issuer, stdin=token(issuer))

    assert result.exit_code == 1
    assert "✖ signature ES256, kid k1" in result.stdout


def test_a_changed_token_is_not_verified(run: Run, web: WebServer) -> None:
    issuer = web.be_issuer(signer("k1").jwks)
    header, _, signature = token(issuer).split(".")
    _, payload, _ = token(issuer, sub="mallory").split(".")

    result = run("token", "inspect", "--issuer", issuer, stdin=f"{header}.{payload}.{signature}")

    assert result.exit_code == 1
    assert "✖ signature" in result.stdout


def test_the_issuer_that_a_token_names_is_not_trusted_for_that(run: Run, web: WebServer) -> None:
    """Otherwise everybody could vouch for their own tokens."""
    issuer = web.be_issuer(signer("k1").jwks)

    result = run("token", "inspect", stdin=token(issuer))

    assert result.exit_code == 2
    assert "whom you trust" in result.stderr
    assert web.requests == []


def test_an_unverified_token_comes_under_a_banner(run: Run) -> None:
    result = run("token", "inspect", "--unverified", stdin=token("https://b.example"))

    assert result.exit_code == 0
    assert result.stdout.startswith("UNVERIFIED")
    shown = run("token", "inspect", "--unverified", "-o", "json", stdin=token("https://b.example"))
    assert json.loads(shown.stdout)["is_verified"] is False


@pytest.mark.requirement("CFG-04")
def test_a_token_on_the_command_line_is_refused_and_not_repeated(run: Run) -> None:
    given = token("https://b.example")

    result = run("token", "inspect", given, "--unverified")

    assert result.exit_code == 2
    assert given[:20] not in result.output


@pytest.mark.parametrize(
    "given", ["", "\n", "no.token", "a.b.c", "\u00e4", "e30.e30.", "x" * 70_000]
)
def test_what_is_no_token_is_refused(run: Run, given: str) -> None:
    result = run("token", "inspect", "--unverified", stdin=given)

    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.output


def test_claims_cannot_write_on_the_terminal(run: Run) -> None:
    """Cursor movements could draw a check that passed, and direction marks could turn a name around."""
    evil = "alice\x1b[2A\x1b[32m✔ signature\x07\r\u202egnp\n├── ✔ issuer [bold]x[/bold]"
    given = token(
        "https://b.example",
        sub=evil,
        act={"sub": evil, "sub_profile": evil},
        scope=evil,
        **{"https://b.example/claims/mcp": {"client": evil}},
    )

    result = run("token", "inspect", "--unverified", stdin=given)

    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(result.stdout)
    assert not [line for line in result.stdout.splitlines() if line.startswith("├── ✔")]


@pytest.mark.parametrize(
    "changes",
    [
        {"act": "alice"},
        {"act": {"act": {"act": 1}}},
        {"act": {"sub": ["x"]}, "scope": 1, "aud": {"a": 1}},
        {"exp": 10**30},
        {"exp": -(10**30)},
        {"exp": 1e300},
        {"sub": "x" * 8000},
        {"https://b.example/claims/mcp": "x"},
        {"iss": None},
    ],
)
def test_claims_of_any_shape_are_drawn(run: Run, changes: dict[str, Any]) -> None:
    result = run("token", "inspect", "--unverified", stdin=token("https://b.example", **changes))

    assert result.exit_code == 0, result.output
    assert all(len(line) < 2000 for line in result.stdout.splitlines())


@pytest.mark.parametrize("act", ["x", {"act": {"sub": "a"}}, {"sub": "a", "act": 1}, {"sub": 1}])
def test_a_chain_that_cannot_be_read_is_said_to_be_so(run: Run, act: Any) -> None:
    result = run("token", "inspect", "--unverified", stdin=token("https://b.example", act=act))

    assert "the chain of actors cannot be read" in result.stdout


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/.well-known/oauth-authorization-server", {"issuer": "https://other.example"}, 200),
        ("/.well-known/oauth-authorization-server", b"not json", 200),
        ("/.well-known/oauth-authorization-server", b"", 500),
        ("/jwks", {"keys": []}, 200),
        ("/jwks", b"[]", 200),
        ("/jwks", {}, 404),
        ("/jwks", b"x" * 1_100_000, 200),
        ("/jwks", b'{"keys": [], "keys": []}', 200),
    ],
)
def test_an_issuer_that_publishes_no_keys_verifies_nothing(
    run: Run, web: WebServer, path: str, body: Any, status: int
) -> None:
    issuer = web.be_issuer(signer("k1").jwks)
    web.answer(path, body, status=status)

    result = run("token", "inspect", "--issuer", issuer, stdin=token(issuer))

    assert result.exit_code == 1
    assert "Traceback" not in result.output


def test_a_redirect_of_the_issuer_is_not_followed(run: Run, web: WebServer) -> None:
    issuer = web.be_issuer(signer("k1").jwks)
    web.answer("/jwks", b"", status=302, location=f"{issuer}/elsewhere")
    web.answer("/elsewhere", signer("k1").jwks)

    result = run("token", "inspect", "--issuer", issuer, stdin=token(issuer))

    assert result.exit_code == 1
    assert all(path != "/elsewhere" for _, path, _, _ in web.requests)


@pytest.mark.parametrize(
    "issuer", ["http://idp.example", "ftp://x", "file:///etc", "https://u@x.example"]
)
def test_an_issuer_is_only_asked_where_its_answer_can_be_trusted(run: Run, issuer: str) -> None:
    result = run("token", "inspect", "--issuer", issuer, stdin=token(issuer))

    assert result.exit_code == 1
    assert "must be" in result.stderr


def test_keys_are_listed(run: Run, web: WebServer) -> None:
    issuer = web.be_issuer({"keys": [signer("k1").jwk, signer("r1", "RS256").jwk]})

    result = run("keys", "list", "--issuer", issuer)

    assert [line.split() for line in result.stdout.splitlines()] == [
        ["kid", "alg", "kty", "crv", "use"],
        ["k1", "ES256", "EC", "P-256", "sig"],
        ["r1", "RS256", "RSA", "sig"],
    ]


def test_what_is_no_key_set_is_not_listed(run: Run, web: WebServer, tmp_path: Path) -> None:
    issuer = web.be_issuer({"keys": ["x"]})
    (tmp_path / "keys.json").write_text("{}")

    assert run("keys", "list", "--issuer", issuer).exit_code == 1
    assert run("keys", "list", "--jwks", "keys.json").exit_code == 2


def test_an_algorithm_that_anybody_could_sign_with_is_never_verified(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "keys.json").write_text(json.dumps(signer("k1").jwks))
    header = b'{"alg":"none","kid":"k1"}'
    unsigned = b".".join(
        [encode(header), encode(json.dumps(claims("https://b.example")).encode()), b""]
    )

    result = run("token", "inspect", "--jwks", "keys.json", stdin=unsigned.decode())

    assert result.exit_code == 1
    assert "✖ signature none, kid k1: the algorithm is not accepted" in result.stdout
