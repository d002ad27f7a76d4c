"""The commands that tell a record, draw what came of a token, and hand records over."""

import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.audit.notes import NoteKey
from broker.audit.seal.sealer import Sealer
from broker.config import load_settings
from broker.signing import open_audit_signer
from tests.audit.telling import logs, records
from tests.cli.conftest import Run

ORIGIN = "127.0.0.1:1/audit/0123456789abcdef"
SETTINGS = "issuer: http://127.0.0.1:1\ndata_dir: .\n"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with settings, and with a sealed record of some requests."""
    place = tmp_path_factory.mktemp("broker")
    (place / "broker.yaml").write_text(SETTINGS)
    directory = logs.write_usual(place / "audit")
    (directory / "log.id").write_text("0123456789abcdef\n")
    (directory / "log.id").chmod(0o600)
    settings = load_settings(place / "broker.yaml", {})
    sealer = Sealer(
        directory,
        open_audit_signer(settings, origin=ORIGIN),
        origin=ORIGIN,
        now=lambda: float(records.NOW),
    )
    sealer.step()
    sealer.close()
    return place


@pytest.fixture
def place(written: Path, tmp_path: Path) -> Path:
    """The same once more, in the directory that ``run`` is in."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.usefixtures("place")
def test_a_record_is_told_in_words_with_its_chain_and_its_grounds(run: Run) -> None:
    result = run("audit", "show", "01a2-exchange")

    assert result.exit_code == 0, result.output
    head, told, *_ = result.stdout.splitlines()
    assert head.startswith("✔ permit 2027-01-15T08:00:00.000000Z  token.issue  mcp-tickets")
    assert told.startswith("MCP server mcp-tickets")
    for part in (
        "client     agent-desk",
        "↑ token token-1 tickets:read tickets:write, not tickets:delete · 4 minutes left",
        "by tickets-reads-contacts",
        "record 3 of 6 in chain http-0 (seq 2); http-0.000001.jsonl, byte ",
        "sealed as record 3 of 6 under the checkpoint of 2027-01-15T08:00:00.000000Z",
        "01a2-login",
    ):
        assert part in result.stdout


@pytest.mark.usefixtures("place")
def test_a_record_is_found_by_the_token_that_it_is_the_issue_of(run: Run) -> None:
    by_token = run("audit", "show", "token-2")

    assert by_token.stdout == run("audit", "show", "01a2-exchange").stdout


@pytest.mark.usefixtures("place")
def test_a_record_as_json_has_the_line_that_was_hashed(run: Run) -> None:
    result = run("audit", "show", "01a2-refused", "-o", "json")

    told = json.loads(result.stdout)
    assert json.loads(told["line"])["event_id"] == told["record"]["event_id"] == "01a2-refused"
    assert told["why"]["reason"] == "a policy forbids it (parameter resource)"
    assert told["why"]["is_in_force"] is False
    assert told["place"] == "record 4 of 6 in chain http-0 (seq 3)"
    assert told["proof"]["sealed"]["index"] == 3
    assert told["parents"] == ["01a2-login"]
    assert told["unread"] == {}


def test_a_copy_is_read_without_any_settings(run: Run, place: Path) -> None:
    (place / "broker.yaml").unlink()
    shutil.rmtree(place / "audit" / "checkpoints")

    result = run("audit", "show", "01a2-login", "audit")

    assert result.exit_code == 0, result.output
    assert "not sealed yet" in result.stdout
    assert "01a2-exchange" in result.stdout


@pytest.mark.usefixtures("place")
def test_a_token_that_is_asked_about_has_its_whole_chain(run: Run) -> None:
    result = run("audit", "show", "01a2-asked")

    assert "MCP server mcp-tickets" in result.stdout
    assert "parents" in result.stdout


@pytest.mark.parametrize("command", ["show", "lineage"])
@pytest.mark.usefixtures("place")
def test_what_nobody_knows_is_told_as_that(command: str, run: Run) -> None:
    result = run("audit", command, "nothing-like-this")

    assert result.exit_code == 1
    assert "known" in result.stderr


@pytest.mark.usefixtures("place")
def test_a_directory_that_is_none_is_a_wrong_command_line(run: Run) -> None:
    assert run("audit", "show", "x", "nowhere").exit_code == 2


@pytest.mark.usefixtures("place")
def test_what_came_of_a_token_is_drawn_as_a_tree(run: Run) -> None:
    result = run("audit", "lineage", "token-1")

    root, login, exchange = result.stdout.splitlines()
    assert root == "token token-1"
    assert login.startswith("└── ✔ permit")
    assert login.endswith("→ token token-1")
    assert exchange.startswith("    └── ✔ permit")
    assert exchange.endswith("→ token token-2")


@pytest.mark.usefixtures("place")
def test_what_came_of_a_token_as_json_is_nested(run: Run) -> None:
    told = json.loads(run("audit", "lineage", "token-1", "-o", "json").stdout)

    assert told["derived"][0]["derived"][0]["event_id"] == "01a2-exchange"


@pytest.mark.requirement("LOG-02")
def test_nothing_in_a_record_steers_the_terminal(run: Run, tmp_path: Path) -> None:
    told = [
        records.poisoned(records.exchange(), text)
        for text in records.HOSTILE
        if text.isprintable() is False and text != "\ud800"
    ]
    for number, one in enumerate(told):
        one.event_id, one.jti = f"e{number}", f"t{number}"
    logs.write(tmp_path / "audit", *told)

    for number in range(len(told)):
        for command in ("show", "lineage"):
            result = run("audit", command, f"t{number}", "audit")

            assert result.exit_code == 0, result.output
            assert all(line.isprintable() for line in result.stdout.split("\n"))


def test_the_operator_and_the_auditor_see_one_fingerprint(run: Run, place: Path) -> None:
    printed = run("audit", "key")
    told = json.loads(run("audit", "key", "-o", "json").stdout)
    (place / "audit.pub").write_text(printed.stdout)

    (fingerprint,) = told["fingerprints"]
    assert printed.stdout.split() == told["keys"]
    assert printed.stderr == f"Fingerprint: {fingerprint}\n"
    assert fingerprint == NoteKey.read(printed.stdout).fingerprint
    assert f"By the key {fingerprint} of " in run("audit", "verify", "--key", "audit.pub").stdout
    run("audit", "export", "--to", "out")
    verified = run("audit", "verify-export", "out.manifest", "--key", "audit.pub")
    assert f"By the key {fingerprint} of " in verified.stdout


def test_of_one_there_are_not_several(run: Run, place: Path) -> None:
    (place / "audit.pub").write_text(run("audit", "key").stdout)

    verified = run("audit", "verify", "--key", "audit.pub").stdout
    exported = run("audit", "export", "--to", "out", "--decision", "deny").stdout

    assert "1 checkpoint of 127.0.0.1:1/audit/" in verified
    assert "is signed by the key, and seals 6 records" in verified
    assert exported.startswith("1 record written to out, ")


@pytest.mark.parametrize("name", ["ndjson", "csv", "ocsf", "cef"])
def test_an_export_is_verified_by_the_public_key_alone(name: str, run: Run, place: Path) -> None:
    key = run("audit", "key").stdout.strip()

    made = run("audit", "export", "--format", name, "--to", "out", "--decision", "permit")
    (place / "broker.yaml").unlink()
    shutil.rmtree(place / "audit")
    result = run("audit", "verify-export", "out.manifest", "--key", key, "-o", "json")

    assert made.exit_code == 0, made.output
    assert made.stdout == "3 records written to out, and the manifest to out.manifest\n"
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["is_whole"]
    assert (told["origin"], told["count"], told["format"]) == (ORIGIN, 3, name)
    assert told["query"] == '{"decisions": ["permit"]}'
    assert told["checkpoint"]["size"] == 6


def test_a_directory_to_export_to_gets_a_file_named_after_the_moment(run: Run, place: Path) -> None:
    (place / "there").mkdir()

    assert run("audit", "export", "--to", "there", "--format", "csv").exit_code == 0

    manifest, _ = sorted((place / "there").iterdir(), reverse=True)
    assert manifest.name.startswith("audit-2")
    key = run("audit", "key").stdout.strip()
    result = run("audit", "verify-export", str(manifest), "--key", key)
    assert "✔ the export is what its manifest says" in result.stdout


@pytest.mark.requirement("LOG-05")
def test_an_export_that_was_changed_is_refused(run: Run, place: Path) -> None:
    key = run("audit", "key").stdout.strip()
    run("audit", "export", "--to", "out", "--format", "csv")
    lines = (place / "out").read_bytes().splitlines(keepends=True)
    (place / "out").write_bytes(b"".join(lines[:-1]))

    result = run("audit", "verify-export", "out.manifest", "--key", key)

    assert result.exit_code == 1
    assert "its manifest says" in result.stderr


@pytest.mark.usefixtures("place")
def test_an_export_is_refused_by_the_key_of_another_log(run: Run) -> None:
    stranger = NoteKey(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"\x02" * 32).public_key())
    run("audit", "export", "--to", "out")

    result = run("audit", "verify-export", "out.manifest", "--key", stranger.text)

    assert result.exit_code == 1
    assert "nobody known has signed it" in result.stderr


def test_nothing_is_written_over(run: Run, place: Path) -> None:
    (place / "out").write_text("mine")

    result = run("audit", "export", "--to", "out")

    assert result.exit_code == 1
    assert (place / "out").read_text() == "mine"


def test_without_a_key_an_export_has_to_be_asked_for_as_such(run: Run, place: Path) -> None:
    (place / "broker.yaml").unlink()

    assert run("audit", "export", "audit", "--to", "out").exit_code == 2
    assert run("audit", "export", "audit", "--to", "out", "--unsigned").exit_code == 0
    assert "\u2014" not in (place / "out.manifest").read_text()


def test_what_of_the_record_cannot_be_read_is_told_in_the_manifest(run: Run, place: Path) -> None:
    (segment,) = (place / "audit").glob("*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b"contacts.write", b"contacts.wrote"))

    result = run("audit", "export", "--to", "out")

    assert "the record was changed" in result.stderr
    assert result.exit_code == 1
    key = run("audit", "key").stdout.strip()
    told = run("audit", "verify-export", "out.manifest", "--key", key, "-o", "json")
    assert "http-0" in json.loads(told.stdout)["unread"]
    assert json.loads(told.stdout)["is_complete"] is False
    plainly = run("audit", "verify-export", "out.manifest", "--key", key)
    assert plainly.exit_code == 0
    assert plainly.stdout.splitlines()[0].endswith("it is not all that was asked for")
