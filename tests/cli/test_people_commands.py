"""The commands about people in the audit record: who can be found, and forgetting them."""

import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result

from broker.audit.log import FileAuditLog
from broker.audit.people.periods import period_of
from broker.audit.reader import read_records, verify_directory
from broker.keys.people_files import PeopleKeyFiles
from tests.openbao import Transit

pytestmark = pytest.mark.usefixtures("patience_with_vault")

Run = Callable[..., Result]

ALICE = "alice@example.com"
NOW = period_of(time.time(), "month").name


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path) -> None:
    (tmp_path / "broker.yaml").write_text("issuer: http://127.0.0.1:8080\n")


@pytest.fixture
def keys(tmp_path: Path) -> PeopleKeyFiles:
    """The keys of two periods, as a broker left them."""
    files = PeopleKeyFiles(tmp_path / ".broker" / "people")
    files.obtain("2025-03")
    files.obtain(NOW)
    return files


def told(tmp_path: Path) -> list[tuple[str, str | None]]:
    """What the commands recorded, and about what."""
    records = read_records(tmp_path / ".broker" / "audit")
    return [(one.event, one.about) for one in records if one.event.startswith("people.")]


@pytest.mark.usefixtures("keys")
def test_the_periods_with_a_key_are_listed(run: Run) -> None:
    result = run("audit", "people", "-o", "json")

    assert json.loads(result.stdout)["periods"] == [
        {"period": NOW, "is_current": True, "pseudonyms": []},
        {"period": "2025-03", "is_current": False, "pseudonyms": []},
    ]


@pytest.mark.usefixtures("keys")
def test_somebody_is_told_by_name_in_every_period(run: Run) -> None:
    found = json.loads(run("audit", "people", "--name", ALICE, "-o", "json").stdout)["periods"]

    assert [len(one["pseudonyms"]) for one in found] == [1, 1]
    for one in found:
        assert one["pseudonyms"][0] in run("audit", "people", "--name", ALICE).stdout


@pytest.mark.usefixtures("keys")
def test_a_long_name_has_a_row_for_each_of_its_pseudonyms(run: Run) -> None:
    name = "a" * 600
    periods = json.loads(run("audit", "people", "--name", name, "-o", "json").stdout)["periods"]
    rows = run("audit", "people", "--name", name).stdout.splitlines()[1:]

    expected = [one for period in periods for one in period["pseudonyms"]]
    assert [row.split()[-1] for row in rows] == expected
    assert len(rows) > len(periods)


def test_without_a_key_nobody_can_be_found_and_nothing_is_made(run: Run, tmp_path: Path) -> None:
    result = run("audit", "people", "--name", ALICE)

    assert result.stdout == "There is no key of pseudonyms: nobody can be found by name.\n"
    assert not (tmp_path / ".broker").exists()


def test_a_period_is_forgotten_on_record(run: Run, keys: PeopleKeyFiles, tmp_path: Path) -> None:
    result = run("audit", "forget", "2025-03", "--yes")

    assert result.exit_code == 0, result.output
    assert set(keys.held()) == {NOW}
    assert told(tmp_path) == [("people.forget", "2025-03")]
    [record] = [
        one for one in read_records(tmp_path / ".broker" / "audit") if one.event == "people.forget"
    ]
    assert record.operator
    assert (record.writer, record.decision, record.face) == ("operator", "info", "command")
    assert verify_directory(tmp_path / ".broker" / "audit").is_intact


def test_who_is_not_sure_destroys_nothing(run: Run, keys: PeopleKeyFiles, tmp_path: Path) -> None:
    assert run("audit", "forget", "2025-03", stdin="n\n").exit_code == 1
    assert run("audit", "forget", "2025-03").exit_code == 1

    assert set(keys.held()) == {"2025-03", NOW}
    assert not (tmp_path / ".broker" / "audit").exists()


def test_the_period_of_today_is_forgotten_by_force_alone(run: Run, keys: PeopleKeyFiles) -> None:
    refused = run("audit", "forget", NOW, "--yes")

    assert refused.exit_code == 1
    assert "is not over" in refused.stderr
    assert NOW in keys.held()

    assert run("audit", "forget", NOW, "--yes", "--force").exit_code == 0
    assert NOW not in keys.held()


@pytest.mark.parametrize("name", ["2026", f"{time.gmtime().tm_year}"])
def test_a_longer_period_that_is_not_over_is_not_either(run: Run, name: str) -> None:
    refused = run("audit", "forget", f"{time.gmtime().tm_year}", "--yes")

    assert refused.exit_code == 1
    assert "is not over" in refused.stderr, name


@pytest.mark.parametrize("name", ["", "..", "2025-3", "2025-13", "../keys/es256", "november"])
def test_what_is_no_period_is_refused(run: Run, keys: PeopleKeyFiles, name: str) -> None:
    assert run("audit", "forget", "--yes", "--force", "--", name).exit_code == 2
    assert len(keys.held()) == 2


@pytest.mark.usefixtures("keys")
def test_a_period_without_a_key_is_told_before_anybody_is_asked(run: Run, tmp_path: Path) -> None:
    result = run("audit", "forget", "2025-02")

    assert result.exit_code == 1
    assert "Destroy its key?" not in result.output
    assert result.stderr.startswith("There is no key of 2025-02: it was forgotten before, or")
    assert not (tmp_path / ".broker" / "audit").exists()


def test_names_in_clear_cannot_be_forgotten(run: Run, keys: PeopleKeyFiles, tmp_path: Path) -> None:
    """A key that is left from before can still be destroyed."""
    with (tmp_path / "broker.yaml").open("a") as settings:
        settings.write("audit: {people: {names: clear}}\n")

    result = run("audit", "forget", "2025-02")

    assert result.exit_code == 1
    assert "have their names in the record" in result.stderr
    assert not (tmp_path / ".broker" / "audit").exists()
    assert run("audit", "forget", "2025-03", "--yes").exit_code == 0
    assert "2025-03" not in keys.held()


def failed_in(tmp_path: Path) -> str:
    """The id of the record that says that nobody was forgotten."""
    records = read_records(tmp_path / ".broker" / "audit")
    (failed,) = [one.event_id for one in records if one.event == "people.failed"]
    return failed


def test_a_key_that_was_not_destroyed_is_told_with_its_record_and_what_to_do(
    run: Run, keys: PeopleKeyFiles, tmp_path: Path
) -> None:
    directory = tmp_path / ".broker" / "people"
    directory.chmod(0o755)
    result = run("audit", "forget", "2025-03", "--yes")
    directory.chmod(0o700)

    assert result.exit_code == 1
    told = result.stderr.splitlines()
    assert told[0].startswith("The key of 2025-03 was not destroyed: ")
    assert "Put that right first." in told
    assert f"  broker audit show {failed_in(tmp_path)} --config broker.yaml" in told
    shown = run("audit", "show", failed_in(tmp_path))
    assert shown.exit_code == 0, shown.output
    assert "people.failed" in shown.stdout
    assert "2025-03" in keys.held()


def test_what_cannot_be_recorded_is_not_destroyed(
    run: Run, keys: PeopleKeyFiles, tmp_path: Path
) -> None:
    audit = tmp_path / ".broker" / "audit"
    with closing(FileAuditLog(audit, writer="operator", now=time.time, write_timeout=30.0)):
        audit.chmod(0o777)
        result = run("audit", "forget", "2025-03", "--yes")
        audit.chmod(0o700)

    assert result.exit_code == (1 if "destroyed" in result.stderr else 3), result.output
    assert "2025-03" in keys.held()


def test_a_damaged_key_is_named_and_can_be_destroyed(
    run: Run, keys: PeopleKeyFiles, tmp_path: Path
) -> None:
    (tmp_path / ".broker" / "people" / "2025-03.key").write_text("damaged")

    listed = run("audit", "people")

    assert listed.exit_code == 1
    assert "2025-03.key does not hold a key" in listed.stderr
    assert run("audit", "forget", "2025-03", "--yes").exit_code == 0
    assert set(keys.held()) == {NOW}


@pytest.mark.openbao
def test_a_key_in_vault_is_destroyed_with_a_token_of_the_operator(
    run: Run, transit: Transit, tmp_path: Path
) -> None:
    folder, bao = "broker/forgotten", transit.bao
    for period in ("2025-03", "2025-04"):
        bao.call("POST", f"kv/data/{folder}/people/{period}", data={"key": "A" * 43})
    role = transit.role.auth
    for file in (role.role_id_file, role.secret_id_file):
        file.chmod(0o600)
    vault = {
        "url": bao.url,
        "keys": transit.keys,
        "auth": {
            "method": "approle",
            "role_id_file": str(role.role_id_file),
            "secret_id_file": str(role.secret_id_file),
        },
        "record": {"mount": "kv", "path": folder},
    }
    settings = {
        "issuer": "http://127.0.0.1:8080",
        "keys": {"store": "vault-transit", "also": ["RS256"], "vault": vault},
    }
    (tmp_path / "broker.yaml").write_text(json.dumps(settings))
    token_file = tmp_path / "token"
    token_file.write_text(bao.root_token)
    token_file.chmod(0o600)

    refused = run("audit", "forget", "2025-03", "--yes")
    done = run("audit", "forget", "2025-03", "--yes", "--token-file", str(token_file))
    listed = run("audit", "people", "-o", "json")

    assert refused.exit_code == 1
    right = f"delete on kv/metadata/{folder}/people/2025-03"
    assert f"Vault's policy lacks the right to {right}" in refused.stderr
    assert "--token-file FILE" in refused.stderr
    assert f"broker audit show {failed_in(tmp_path)}" in refused.stderr
    assert done.exit_code == 0, done.output
    assert [one["period"] for one in json.loads(listed.stdout)["periods"]] == ["2025-04"]
    events = [event for event, _ in told(tmp_path)]
    assert events == ["people.forget", "people.failed", "people.forget"]
