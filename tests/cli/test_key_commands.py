"""The commands about the lives of our own keys, with embedded keys and with keys in OpenBao."""

import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from broker.audit.log import FileAuditLog
from broker.keys.dev import DevKeyStore
from tests.e2e.running import read_records
from tests.openbao import Transit

pytestmark = pytest.mark.usefixtures("patience_with_vault")

Run = Callable[..., Result]

ISSUER = "issuer: http://127.0.0.1:8080\nkeys: {also: []}\n"
MINUTE = 60


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path) -> None:
    (tmp_path / "broker.yaml").write_text(ISSUER)


@pytest.fixture
def store(tmp_path: Path) -> DevKeyStore:
    """What a running broker would sign with."""
    return DevKeyStore(tmp_path / ".broker" / "keys")


def keys(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    listed: list[dict[str, Any]] = json.loads(result.stdout)["keys"]
    return listed


def states(run: Run) -> list[str]:
    return [key["state"] for key in keys(run("keys", "list", "-o", "json"))]


def test_a_key_that_nobody_rotated_is_listed_as_the_one_that_signs(
    run: Run, store: DevKeyStore, tmp_path: Path
) -> None:
    result = run("keys", "list")

    heading, line = (one.split() for one in result.stdout.splitlines())
    assert heading == ["alg", "state", "kid", "age", "next"]
    assert line[:3] == ["ES256", "active", store.signing_key("ES256").kid]
    assert not (tmp_path / ".broker" / "keys" / "record.json").exists()


def test_nothing_is_made_by_looking(run: Run, tmp_path: Path) -> None:
    assert keys(run("keys", "list", "-o", "json")) == []
    assert run("keys", "plan").stdout == "Nothing happens by itself.\n"
    assert list((tmp_path / ".broker" / "keys").iterdir()) == []


def test_a_rotation_tells_when_the_successor_signs_and_when_the_old_key_leaves(
    run: Run, store: DevKeyStore
) -> None:
    before = store.signing_key("ES256").kid
    now = time.time()

    spare, successor, active = keys(run("keys", "rotate", "-o", "json"))

    assert [key["state"] for key in (spare, successor, active)] == ["pending", "pending", "active"]
    assert spare["activates_at"] is None
    assert successor["activates_at"] == pytest.approx(now + 5 * MINUTE + 45, abs=10)
    assert active["kid"] == before
    assert active["leaves_at"] == successor["activates_at"] + 20 * MINUTE
    assert successor["next"] == {
        "at": successor["activates_at"],
        "change": "begins",
        "algorithm": "ES256",
        "kid": successor["kid"],
    }


def test_a_running_store_publishes_what_was_rotated_at_once_and_signs_on_with_the_old_key(
    run: Run, store: DevKeyStore
) -> None:
    before = store.signing_key("ES256").kid

    listed = keys(run("keys", "rotate", "-o", "json"))

    assert [key["kid"] for key in store.public_keys()] == [key["kid"] for key in listed]
    assert store.signing_key("ES256").kid == before


def test_rotating_again_before_the_successor_signs_is_refused(run: Run, store: DevKeyStore) -> None:
    assert store.public_keys()
    run("keys", "rotate")

    result = run("keys", "rotate")

    assert result.exit_code == 1
    assert re.search(
        r"is about to sign already, from 20\d\d-\d\d-\d\dT[\d:]+Z on \(in \d+ s\)", result.stderr
    )
    assert states(run) == ["pending", "pending", "active"]


def test_only_the_algorithm_that_was_named_is_rotated(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broker.yaml").write_text(ISSUER.replace("[]", "[RS256]"))
    DevKeyStore(tmp_path / ".broker" / "keys", algorithms=("ES256", "RS256"))

    listed = keys(run("keys", "rotate", "--algorithm", "RS256", "-o", "json"))

    set_to_sign = [
        key["algorithm"] for key in listed if (key["next"] or {}).get("change") == "begins"
    ]
    assert set_to_sign == ["RS256"]


@pytest.mark.parametrize("algorithm", ["PS256", "none", ""])
def test_an_algorithm_that_nothing_is_signed_with_is_not_rotated(run: Run, algorithm: str) -> None:
    assert run("keys", "rotate", "--algorithm", algorithm).exit_code == 2


def test_an_emergency_takes_effect_at_once_and_tells_what_remains(
    run: Run, store: DevKeyStore
) -> None:
    run("keys", "rotate")
    before = store.signing_key("ES256").kid

    result = run("keys", "revoke", before)

    assert result.exit_code == 0, result.output
    assert store.signing_key("ES256").kid != before
    assert before not in [key["kid"] for key in store.public_keys()]
    lines = result.stdout.splitlines()
    assert lines[0] == f"Revoked: ES256 key {before}."
    assert "may accept it, whoever signs with it, until" in lines[2]
    assert lines[4] == f"- Key {store.signing_key('ES256').kid} signs from now on."
    assert "do not fetch the key set for a key that they do not know" in lines[5]
    assert "if a broker cannot read the record, those that ask it may until" in lines[2]
    again = run("keys", "revoke", before).stdout.splitlines()
    assert re.fullmatch(f"Revoked already at 20[-0-9T:]+Z: ES256 key {before}\\.", again[0])
    told = re.compile(r"20\d\d-[-0-9T:]+Z")
    assert [told.findall(line) for line in again[1:]] == [told.findall(line) for line in lines[1:]]
    assert states(run) == ["pending", "active", "revoked"]


def test_what_remains_of_a_revoked_key_is_told_to_programs_in_seconds(
    run: Run, store: DevKeyStore
) -> None:
    before, now = store.signing_key("ES256").kid, time.time()

    told = json.loads(run("keys", "revoke", before, "-o", "json").stdout)

    assert told["revoked"] == before
    assert told["was_active"] is True
    assert told["signing"] == store.signing_key("ES256").kid
    assert told["stopped_at"] == pytest.approx(now + 45, abs=10)
    assert told["accepted_until"] == told["stopped_at"] + 5 * MINUTE
    assert told["expired_at"] == told["stopped_at"] + 5 * MINUTE + 30
    assert told["known_from"] == pytest.approx(now + 5 * MINUTE + 45, abs=10)


@pytest.mark.parametrize("kid", ["nonsense", "x" * 43, "--help-me", "\x1b[31m"])
def test_a_key_that_is_not_there_is_not_revoked(run: Run, store: DevKeyStore, kid: str) -> None:
    assert store.public_keys()

    result = run("keys", "revoke", "--", kid)

    assert result.exit_code == 1
    assert "No key on record has the id" in result.stderr
    assert "\x1b" not in result.output


def test_a_plan_tells_what_a_change_would_do_and_does_not_do_it(
    run: Run, store: DevKeyStore
) -> None:
    active = store.signing_key("ES256").kid

    rotated = json.loads(run("keys", "plan", "--rotate", "-o", "json").stdout)
    revoked = run("keys", "plan", "--revoke", active)

    changes = [event["change"] for event in rotated["events"]]
    assert sorted(changes) == ["begins", "closed", "known", "leaves", "succeeded"]
    assert revoked.stdout.startswith("Nothing is changed.")
    assert f"\nRevoked: ES256 key {active}.\n" in revoked.stdout
    assert "(new ES256 key 2)" in revoked.stdout
    assert states(run) == ["active"]
    assert store.signing_key("ES256").kid == active


def test_a_plan_names_each_moment_in_its_order(run: Run, store: DevKeyStore) -> None:
    assert store.public_keys()
    run("keys", "rotate")

    lines = run("keys", "plan").stdout.splitlines()

    assert {line.split("  ")[-1] for line in lines} == {
        "is known to every verifier, and could sign",
        "begins to sign",
        "is succeeded",
        "can be closed off: no broker signs with it any more",
        "leaves the key set",
    }
    moments = [line.split("  ")[0] for line in lines]
    assert moments == sorted(moments)
    assert "leaves" in lines[-1]


def test_a_plan_tells_when_a_key_is_replaced_by_itself(
    run: Run, store: DevKeyStore, tmp_path: Path
) -> None:
    (tmp_path / "broker.yaml").write_text(ISSUER.replace("[]", "[], rotate_every: 30d"))
    assert store.public_keys()

    (event,) = json.loads(run("keys", "plan", "-o", "json").stdout)["events"]

    assert event["change"] == "due"
    assert event["at"] == pytest.approx(time.time() + 30 * 86_400 - 345, abs=60)


def test_a_plan_of_both_at_once_is_refused(run: Run) -> None:
    assert run("keys", "plan", "--rotate", "--revoke", "x").exit_code == 2


def test_an_id_that_begins_with_a_dash_is_no_option(run: Run, store: DevKeyStore) -> None:
    assert store.signing_key("ES256").kid

    for arguments in (["-" + "o" * 42], ["--output", "json", "-" + "c" * 42]):
        result = run("keys", "revoke", *arguments)
        assert "No key on record has the id '-" in result.stderr


def test_commands_that_change_keys_leave_a_record_and_verify_finds_it_whole(
    run: Run, store: DevKeyStore, tmp_path: Path
) -> None:
    kid = store.signing_key("ES256").kid
    run("keys", "list")
    run("keys", "plan", "--rotate")
    run("config", "check")
    # Nothing was changed by whom the answer was no.
    assert run("keys", "rotate", "-a", "RS256").exit_code == 2
    assert run("keys", "revoke", "nobody").exit_code == 1
    assert not (tmp_path / ".broker" / "audit").exists()

    run("keys", "rotate")
    assert "about to sign already" in run("keys", "rotate").stderr
    run("keys", "revoke", kid)

    audit = tmp_path / ".broker" / "audit"
    (rotated,), (revoked,) = read_records(audit, "key.rotate"), read_records(audit, "key.revoke")
    assert rotated["operator"] == revoked["operator"] != ""
    assert revoked["kid"] == kid
    assert revoked["exposure"]["accepted_until"] > time.time()
    verified = run("audit", "verify")
    assert verified.exit_code == 0
    assert "operator" in verified.stdout
    # One for each of the two that changed something.
    assert len(list(audit.glob("operator.*.jsonl"))) == 2


def test_what_cannot_be_recorded_is_not_rotated_but_a_key_can_be_revoked(
    run: Run, store: DevKeyStore, tmp_path: Path
) -> None:
    kid = store.signing_key("ES256").kid
    (tmp_path / ".broker" / "audit").mkdir(mode=0o700)
    (tmp_path / ".broker" / "audit" / "operator.lock").symlink_to(tmp_path)

    rotated = run("keys", "rotate")
    told = run("keys", "revoke", kid, "-o", "json")

    assert rotated.exit_code == 1
    assert "Nothing was changed, because it cannot be recorded" in rotated.stderr
    assert rotated.stdout == ""
    assert json.loads(told.stdout)["is_recorded"] is False
    assert states(run) == ["pending", "active", "revoked"]
    assert "could not be recorded" in run("keys", "revoke", kid).stdout


def test_two_commands_at_once_take_turns_to_record(
    run: Run, store: DevKeyStore, tmp_path: Path
) -> None:
    assert store.public_keys()
    other = FileAuditLog(tmp_path / ".broker" / "audit", writer="operator", now=time.time)
    threading.Timer(0.3, other.close).start()

    assert run("keys", "rotate").exit_code == 0
    assert len(read_records(tmp_path / ".broker" / "audit", "key.rotate")) == 1


@pytest.mark.parametrize("verb", [("list",), ("plan",), ("rotate",), ("revoke", "x")])
def test_a_directory_that_is_not_safe_is_not_used(
    run: Run, store: DevKeyStore, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    assert store.public_keys()
    (tmp_path / ".broker" / "keys" / "es256.pem").chmod(0o640)

    result = run("keys", *verb)

    assert result.exit_code == 1
    assert "has mode 0640" in result.stderr


# Keys in Vault.


def vault_settings(transit: Transit, *, more: str = "") -> str:
    auth = transit.role.auth
    for file in (auth.role_id_file, auth.secret_id_file):
        file.chmod(0o600)
    return (
        "issuer: https://broker.example\n"
        "keys:\n  store: vault-transit\n  also: []\n  vault:\n"
        f"    url: {transit.bao.url}\n    keys: {{ES256: own-es256}}\n"
        f"    auth: {{method: approle, role_id_file: {auth.role_id_file}, "
        f"secret_id_file: {auth.secret_id_file}}}\n{more}"
    )


RECORD = "    record: {mount: kv, path: broker/keys}\n"


@pytest.fixture
def token_file(own_transit: Transit, tmp_path: Path) -> Path:
    """A token with which an operator may rotate."""
    role = own_transit.bao.rotator_role("rotator", may_rotate=("own-es256",))
    assert role.name == "rotator"
    made = own_transit.bao.call("POST", "auth/token/create", policies=["rotator"])
    file = tmp_path / "operator-token"
    file.touch(mode=0o600)
    file.write_text(made["auth"]["client_token"])
    return file


@pytest.mark.openbao
def test_keys_in_vault_are_listed_with_the_rights_of_the_broker(
    run: Run, own_transit: Transit, tmp_path: Path
) -> None:
    (tmp_path / "broker.yaml").write_text(vault_settings(own_transit, more=RECORD))

    (key,) = keys(run("keys", "list", "-o", "json"))

    assert key["state"] == "active"
    assert key["next"] is None


@pytest.mark.openbao
def test_an_operator_rotates_with_a_token_of_their_own(
    run: Run, own_transit: Transit, tmp_path: Path, token_file: Path
) -> None:
    (tmp_path / "broker.yaml").write_text(vault_settings(own_transit, more=RECORD))

    refused = run("keys", "rotate")
    listed = keys(run("keys", "rotate", "--token-file", str(token_file), "-o", "json"))
    revoked = run("keys", "revoke", listed[-1]["kid"], "--token-file", str(token_file))

    assert refused.exit_code == 1
    right = "create or update on kv/data/broker/keys/record"
    assert refused.stderr == f"The keys cannot be reached: vault: forbidden (needs {right}).\n"
    assert [key["state"] for key in listed] == ["pending", "pending", "active"]
    assert revoked.exit_code == 0, revoked.output
    assert states(run) == ["pending", "active", "revoked"]


@pytest.mark.openbao
def test_what_is_on_no_record_is_listed_and_not_rotated(
    run: Run, own_transit: Transit, tmp_path: Path, token_file: Path
) -> None:
    (tmp_path / "broker.yaml").write_text(vault_settings(own_transit))
    own_transit.bao.rotate_key("own-es256")

    result = run("keys", "rotate", "--token-file", str(token_file))

    assert result.exit_code == 1
    assert "set keys.vault.record" in result.stderr
    assert states(run) == ["pending", "pending"]


@pytest.mark.openbao
def test_a_vault_that_is_away_is_told_in_one_line(
    run: Run, own_transit: Transit, tmp_path: Path
) -> None:
    (tmp_path / "broker.yaml").write_text(vault_settings(own_transit, more=RECORD))
    own_transit.bao.seal()

    result = run("keys", "list")

    assert result.exit_code == 1
    assert result.stderr == "The keys cannot be reached: vault: sealed or not initialized.\n"


def test_a_token_that_others_can_read_is_not_used(run: Run, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hvs.token")
    (tmp_path / "token").chmod(0o644)

    result = run("keys", "list", "--token-file", "token")

    assert result.exit_code == 2
    assert "is open to others" in result.stderr


def test_no_secret_is_printed(run: Run, store: DevKeyStore) -> None:
    assert store.public_keys()
    for verb in (("rotate",), ("list",), ("plan", "--rotate"), ("list", "-o", "json")):
        assert "PRIVATE" not in run("keys", *verb).output


@pytest.mark.openbao
def test_keys_in_the_memory_of_replicas_are_listed_and_revoked(
    run: Run, own_transit: Transit, tmp_path: Path
) -> None:
    role = own_transit.bao.rotator_role("rotator", may_rotate=("own-es256", "certifier"))
    for file in (role.auth.role_id_file, role.auth.secret_id_file):
        file.chmod(0o600)
    text = vault_settings(own_transit, more=RECORD).replace("vault-transit", "vault-ephemeral")
    (tmp_path / "broker.yaml").write_text(
        text + "    ephemeral: {certifier: certifier}\n"
        f"    rotator: {{method: approle, role_id_file: {role.auth.role_id_file}, "
        f"secret_id_file: {role.auth.secret_id_file}}}\n"
    )
    with closing(own_transit.ephemeral_store()) as store:
        kids = {key["kid"] for key in store.public_keys()}
        listed = json.loads(run("keys", "list", "-o", "json").stdout)
        table = run("keys", "list").stdout
        planned = json.loads(run("keys", "plan", "-o", "json").stdout)["events"]
        (own,) = listed["in_memory"]

        result = run("keys", "revoke", own["kid"])
        after = json.loads(run("keys", "list", "-o", "json").stdout)

        assert {own["kid"], listed["keys"][0]["kid"]} == kids
        assert (own["state"], own["replica"]) == ("pending", "replica")
        assert "in the memory of replica" in table
        assert [one["change"] for one in planned if one["kid"] == own["kid"]] == [
            "begins",
            "succeeded",
            "leaves",
        ]
        assert result.exit_code == 0, result.output
        assert "signs in Vault until a key of its own may again" in result.stdout
        assert [one["state"] for one in after["in_memory"]] == ["revoked"]
