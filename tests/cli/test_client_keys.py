"""The keys that ``broker client key`` makes: what is in each half, and that nothing is replaced."""

import json
import stat
from pathlib import Path

import jwt
import pytest

from broker.client.credentials import KeyFile
from broker.config import load_settings
from tests.cli.conftest import Run

ISSUER = "https://broker.example"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.requirement("CA-07")
@pytest.mark.parametrize("form", [(), ("--pem",)], ids=["jwk", "pem"])
def test_what_the_private_half_signs_verifies_by_the_public_one(
    run: Run, tmp_path: Path, form: tuple[str, ...]
) -> None:
    result = run("client", "key", "agent.key", "--public", "agent.jwks.json", *form)

    assert result.exit_code == 0, result.output
    (public,) = json.loads((tmp_path / "agent.jwks.json").read_text())["keys"]
    shown = KeyFile("agent", tmp_path / "agent.key").present(ISSUER)
    assertion = shown.form["client_assertion"]
    claims = jwt.decode(assertion, jwt.PyJWK(public), algorithms=["ES256"], audience=ISSUER)
    assert claims["sub"] == "agent"
    if not form:
        assert jwt.get_unverified_header(assertion)["kid"] == public["kid"]


def test_the_private_half_is_its_owners_alone_and_is_never_printed(
    run: Run, tmp_path: Path
) -> None:
    result = run("client", "key", "keys/agent.json")

    private = json.loads((tmp_path / "keys" / "agent.json").read_text())
    (public,) = json.loads(result.stdout)["keys"]
    assert mode_of(tmp_path / "keys" / "agent.json") == 0o600
    assert mode_of(tmp_path / "keys") == 0o700
    assert {**public, "d": private["d"]} == private
    assert private["d"] not in result.output


def test_the_settings_take_the_public_half(run: Run, tmp_path: Path) -> None:
    run("client", "key", "agent.json", "--public", "agent.jwks.json")
    path = tmp_path / "broker.yaml"
    path.write_text(
        "issuer: http://127.0.0.1:1\nclients:\n  - id: agent\n"
        "    auth: { method: private_key_jwt, jwks_file: agent.jwks.json }\n"
    )

    (client,) = load_settings(path, {}).clients

    assert client.client_id == "agent"


@pytest.mark.parametrize("taken", ["agent.json", "agent.jwks.json"])
def test_no_file_is_replaced_and_none_is_left_half_made(
    run: Run, tmp_path: Path, taken: str
) -> None:
    (tmp_path / taken).write_text("mine")

    result = run("client", "key", "agent.json", "--public", "agent.jwks.json")

    assert result.exit_code == 2
    assert f"{taken} exists already." in result.output
    assert (tmp_path / taken).read_text() == "mine"
    assert [one.name for one in tmp_path.iterdir()] == [taken]


def test_a_link_is_not_followed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "agent.json").symlink_to(tmp_path / "elsewhere")

    assert run("client", "key", "agent.json").exit_code == 2
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("public", ["agent.json", "./agent.json", "file/agent.jwks.json"])
def test_no_half_is_written_where_the_other_cannot_be(
    run: Run, tmp_path: Path, public: str
) -> None:
    (tmp_path / "file").write_text("")

    assert run("client", "key", "agent.json", "--public", public).exit_code == 2
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_place_that_cannot_be_written_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    result = run("client", "key", "file/agent.json")

    assert result.exit_code == 2
    assert "file/agent.json cannot be written" in " ".join(result.output.split())
