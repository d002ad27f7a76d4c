import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]

DELIVERED = Path(__file__).parents[2] / "policies"
HASH = "sha256:" + "5" * 64
TICKETS = "https://tickets.mcp.example/mcp"
CRM = "https://api.crm.example/v2"
SETTINGS = f"""\
issuer: http://127.0.0.1:8080
clients:
  - id: mcp-tickets
    auth: {{method: client_secret_basic, secrets: [{{hash: "{HASH}"}}]}}
resources:
  - resource: {TICKETS}
    owner: mcp-tickets
    scopes: {{"tickets:read": {{}}, "tickets:comment": {{}}}}
  - resource: {CRM}
    scopes:
      crm.contacts.read: {{from: ["tickets:read"]}}
      crm.contacts.write: {{from: ["tickets:comment"]}}
issuers:
  - {{issuer: https://idp.example, purposes: [user], algorithms: [ES256]}}
"""
ASK = ("policy", "explain", "--client", "mcp-tickets", "--resource", CRM, "--subject", "ann")


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A copy of the delivered policies that a test may spoil."""
    return shutil.copytree(DELIVERED, tmp_path / "policies")


@pytest.fixture
def settings(tmp_path: Path, policies: Path) -> None:
    """Settings in the working directory that use these policies."""
    (tmp_path / "broker.yaml").write_text(f"{SETTINGS}policies: {policies}\n")


def test_delivered_policies_are_good(run: Run) -> None:
    assert run("policy", "check", str(DELIVERED)).exit_code == 0
    result = run("policy", "test", str(DELIVERED))
    assert result.exit_code == 0
    assert "✖" not in result.stdout


def test_the_policies_of_the_examples_are_good_under_the_same_schema(run: Run) -> None:
    for directory in (DELIVERED.parent / "examples").glob("*/policies"):
        assert run("policy", "check", str(directory)).exit_code == 0
        schema = (directory / "broker.cedarschema").read_bytes()
        assert schema == (DELIVERED / "broker.cedarschema").read_bytes()


def test_a_policy_that_does_not_parse_is_named_by_file_and_line(run: Run, policies: Path) -> None:
    (policies / "exchange.cedar").write_text("permit (\n")

    checked = run("policy", "check", str(policies))
    tested = run("policy", "test", str(policies))

    assert (checked.exit_code, tested.exit_code) == (1, 1)
    assert f"{policies}/exchange.cedar" in checked.stdout
    assert f"{policies}/exchange.cedar" in tested.stderr
    as_json = json.loads(run("policy", "check", str(policies), "-o", "json").stdout)
    assert as_json["problems"][0]["file"] == "exchange.cedar"


def test_a_row_that_fails_is_marked(run: Run, policies: Path) -> None:
    table = policies / "decisions" / "agents.yaml"
    text = table.read_text()
    assert "expect: permit" in text
    table.write_text(text.replace("expect: permit", "expect: forbidden", 1))

    result = run("policy", "test", str(policies))

    assert result.exit_code == 1
    assert result.stdout.count("✖") == 1
    report = json.loads(run("policy", "test", str(policies), "-o", "json").stdout)
    assert not report["is_passing"]
    assert sum(not row["is_passing"] for row in report["rows"]) == 1


@pytest.mark.usefixtures("settings")
def test_the_policies_of_the_settings_are_taken_by_default(run: Run) -> None:
    assert run("policy", "check").exit_code == 0
    assert run("policy", "test").exit_code == 0


def test_a_policy_without_a_row_may_be_put_in_force_and_does_not_pass_the_test(
    run: Run, policies: Path, tmp_path: Path
) -> None:
    (policies / "new.cedar").write_text(
        '@id("new") forbid (principal, action, resource)\nwhen { false };'
    )
    (tmp_path / "broker.yaml").write_text(f"{SETTINGS}policies: {policies}\n")

    for checked in (run("policy", "check", str(policies)), run("config", "check")):
        assert checked.exit_code == 0, checked.stderr
        assert "new.cedar:1: No row of a decision table is decided by new." in checked.stderr
        assert "can be put in force" in checked.stderr
    assert run("policy", "test", str(policies)).exit_code == 1


def test_a_folder_that_is_not_there_is_a_mistake_of_the_command_line(run: Run) -> None:
    for verb in ("check", "test"):
        assert run("policy", verb, "nowhere").exit_code == 2


@pytest.mark.usefixtures("settings")
def test_a_request_that_would_be_permitted_is_explained(run: Run) -> None:
    result = run(*ASK, "--scope", "crm.contacts.read", "--subject-scope", "tickets:read")

    assert result.exit_code == 0, result.output
    assert "crm.contacts.read  permit" in result.stdout
    assert "by tickets-reads-contacts  exchange.cedar:" in result.stdout


@pytest.mark.usefixtures("settings")
def test_a_request_that_would_be_refused_says_what_is_missing(run: Run) -> None:
    result = run(
        *ASK, "--scope", "crm.contacts.write", "--subject-scope", "tickets:comment", "--acr", "pwd"
    )

    assert result.exit_code == 1
    assert "crm.contacts.write  forbidden" in result.stdout
    assert "contacts-written-after-strong-login" in result.stdout
    assert "Nothing would be granted." in result.stderr


@pytest.mark.usefixtures("settings")
def test_a_stronger_login_changes_the_answer(run: Run) -> None:
    login = ("--acr", "phr", "--auth-age", "60")

    result = run(
        *ASK, "--scope", "crm.contacts.write", "--subject-scope", "tickets:comment", *login
    )

    assert result.exit_code == 0


@pytest.mark.usefixtures("settings")
def test_a_scope_that_the_registry_rules_out_is_told_as_such(run: Run) -> None:
    """Policy is never asked about it in earnest, so its permit would mislead."""
    result = run(*ASK, "--scope", "crm.contacts.read", "--subject-scope", "tickets:comment")

    assert result.exit_code == 1
    assert "not derivable: the subject token has none of tickets:read" in result.stdout


@pytest.mark.usefixtures("settings")
def test_all_scopes_are_explained_as_json(run: Run) -> None:
    result = run(*ASK, "--subject-scope", "tickets:read", "-o", "json")

    scopes = {one["scope"]: one for one in json.loads(result.stdout)["scopes"]}
    assert scopes["crm.contacts.read"]["verdict"] == "permit"
    assert scopes["crm.contacts.write"]["missing_any_of"] == ["tickets:comment"]


def test_other_policies_can_be_asked_instead(run: Run, tmp_path: Path, policies: Path) -> None:
    other = policies.rename(tmp_path / "other")
    (tmp_path / "broker.yaml").write_text(SETTINGS)
    (other / "exchange.cedar").write_text("permit (")

    result = run(*ASK, "--policies", "other")

    assert result.exit_code == 1
    assert "exchange.cedar" in result.stderr


@pytest.mark.usefixtures("settings")
def test_a_client_acts_on_what_was_issued_to_it_through_earlier_actors(run: Run) -> None:
    asked = ("--relation", "issued_to", "--subject-audience", CRM, "--chain-depth", "5")

    result = run(
        *ASK, *asked, "--subject-scope", "crm.contacts.read", "--scope", "crm.contacts.read"
    )

    assert result.exit_code == 0
    assert "by narrow-own-token" in result.stdout


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"--client": "mcp-ticket"}, "did you mean 'mcp-tickets'?"),
        ({"--resource": "https://api.crm.example/v3"}, f"did you mean '{CRM}'?"),
        ({"--scope": "crm.contacts.reda"}, "did you mean 'crm.contacts.read'?"),
        ({"--resource": "crm"}, "'crm' is not registered"),
        ({"--relation": "friendship"}, "friendship"),
    ],
)
def test_a_question_about_what_is_not_registered_is_refused(
    run: Run, changed: dict[str, str], sentence: str
) -> None:
    asked = {"--client": "mcp-tickets", "--resource": CRM, "--subject": "ann"} | changed
    arguments = [part for pair in asked.items() for part in pair]

    result = run("policy", "explain", *arguments)

    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.replace("│", " ").split())


def test_nobody_is_asked_about_unless_named(run: Run) -> None:
    result = run(*ASK[:-2])

    assert result.exit_code == 2
    assert "--subject" in result.stderr
