"""What an auditor does alone, on a copy and with a public key, by commands."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from broker.audit.chain import decode_link
from tests.audit.seal.sealed_logs import STAGES, SealedLog, real_run
from tests.audit.seal.signers import KeysInMemory, signer_of

Run = Callable[..., Result]

pytestmark = pytest.mark.requirement("LOG-05")
LOG_ID = "0123456789abcdef"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> SealedLog:
    directory = tmp_path_factory.mktemp("sealed") / "audit"
    directory.mkdir(mode=0o700)
    keys = KeysInMemory()
    real_run(directory, keys)
    return SealedLog(directory, signer_of(keys).keys()[0])


@pytest.fixture
def log(sound: SealedLog, tmp_path: Path) -> SealedLog:
    return sound.copy(tmp_path / "audit")


def lines_of(log: SealedLog, writer: str) -> list[bytes]:
    paths = sorted(log.directory.glob(f"{writer}.*.jsonl"))
    return [line for path in paths for line in path.read_bytes().split(b"\n") if decode_link(line)]


def test_a_whole_log_is_told_to_be_sealed_until_its_last_checkpoint(
    run: Run, sound: SealedLog
) -> None:
    last = sound.kept()[-1].checkpoint

    result = run("audit", "verify", str(sound.directory), "--key", sound.key.text)

    assert result.exit_code == 0, result.output
    first = result.stdout.splitlines()[0]
    assert first.startswith("✔ whole: ")
    assert first.endswith(f"{last.size} sealed until {last.time}")
    assert f"{STAGES} checkpoints of {sound.key.name} are signed by the key" in result.stdout
    assert "records came after the last checkpoint" in result.stdout
    assert "Undetectable by this:" in result.stdout


def test_the_same_is_told_to_programs(run: Run, sound: SealedLog, tmp_path: Path) -> None:
    anchor, key = tmp_path / "kept.note", tmp_path / "audit.pub"
    anchor.write_text(sound.kept()[1].note)
    key.write_text(f"{sound.key.text}\n")

    result = run(
        *("audit", "verify", str(sound.directory), "--key", str(key)),
        *("--anchor", str(anchor), "-o", "json"),
    )

    told = json.loads(result.stdout)
    last = sound.kept()[-1].checkpoint
    assert (told["is_intact"], told["verified_with"], told["faults"]) == (True, "anchored", [])
    assert told["sealed"] == {
        "origin": last.origin,
        "checkpoints": STAGES,
        "records": last.size,
        "until": last.time,
        "records_after": told["records"] - last.size,
        "anchors": 1,
        "time_stamps": 0,
        "time_stamped_until": "",
    }


def test_a_chain_written_anew_is_told_with_its_place_and_ends_with_1(
    run: Run, log: SealedLog
) -> None:
    log.forge("http-0", 2, lambda one: setattr(one, "subject", "\x1b[2Jsomebody"))

    assert run("audit", "verify", str(log.directory)).exit_code == 0
    result = run("audit", "verify", str(log.directory), "--key", log.key.text)
    told = run("audit", "verify", str(log.directory), "--key", log.key.text, "-o", "json")

    assert result.exit_code == told.exit_code == 1
    headline, fault = result.stdout.splitlines()[:2]
    assert headline == "✖ not whole: 1 fault, the first of each chain or list"
    assert "http-0.000001.jsonl:1: one of the records from here to" in fault
    assert "\x1b" not in result.stdout
    (found,) = json.loads(told.stdout)["faults"]
    assert (found["wrong"], found["line"]) == ("rewritten", 1)


def receipt(
    log: SealedLog, writer: str, seq: int, *, event_id: str = "", log_id: str = LOG_ID
) -> str:
    line = json.loads(lines_of(log, writer)[seq])
    return f"{event_id or line['event_id']}@{log_id}/{writer}/{max(seq - 2, 0)}"


def token(txn: str, issued_at: int) -> str:
    body = base64.urlsafe_b64encode(json.dumps({"txn": txn, "iat": issued_at}).encode())
    return f"e30.{body.decode().rstrip('=')}.sig"


def test_a_receipt_finds_its_record(run: Run, sound: SealedLog) -> None:
    told = receipt(sound, "http-0", 9)

    result = run(
        *("audit", "verify", str(sound.directory), "--key", sound.key.text, "--receipt", told)
    )

    assert result.exit_code == 0, result.output
    assert f"✔ receipt {told}: its record is there: http-0.0000" in result.stdout


def test_a_token_convicts_a_log_that_went_on_without_its_record(
    run: Run, sound: SealedLog, tmp_path: Path
) -> None:
    """Also one that was never sealed, and is missed by nobody else."""
    file = tmp_path / "token.jwt"
    missing = f"never-written@{LOG_ID}/http-0/3"
    file.write_text(token(missing, 1_799_990_000))

    for keys in (["--key", sound.key.text], []):
        result = run("audit", "verify", str(sound.directory), *keys, "--receipt", f"@{file}")
        assert result.exit_code == 1
        assert "the record never-written is missing" in result.stdout
        assert f"✖ receipt {missing}" in result.stdout


def test_a_receipt_that_nothing_can_be_told_of_yet_is_no_fault(
    run: Run, sound: SealedLog, tmp_path: Path
) -> None:
    file = tmp_path / "token.jwt"
    file.write_text(token(f"yet-to-come@{LOG_ID}/http-0/3", 1_999_990_000))
    other = receipt(sound, "http-0", 9, log_id="f" * 16)

    result = run(
        *("audit", "verify", str(sound.directory), "--key", sound.key.text),
        *("--receipt", f"@{file}", "--receipt", other),
    )

    assert result.exit_code == 0, result.output
    assert "may be younger than what is" in result.stdout
    assert f"it is of the log {'f' * 16}, and this is {LOG_ID}" in result.stdout


@pytest.mark.parametrize("taken", ["keys.*.jsonl", "keys.*"])
def test_a_chain_that_is_gone_has_a_row_of_its_own(run: Run, log: SealedLog, taken: str) -> None:
    for path in log.directory.glob(taken):
        path.unlink()

    result = run("audit", "verify", str(log.directory), "--key", log.key.text)
    told = json.loads(
        run("audit", "verify", str(log.directory), "--key", log.key.text, "-o", "json").stdout
    )

    assert result.exit_code == 1
    (row,) = [line for line in result.stdout.splitlines() if line.startswith("keys ")]
    assert row.split() == ["keys", "0", "0", "-", "-", "✖", "missing"]
    writers = [one["writer"] for one in told["chains"]]
    assert writers == ["grpc-0", "http-0", "keys"]
    assert [one["fault"] is None for one in told["chains"]] == [True, True, False]
    assert told["chains"][2]["fault"]["wrong"] == "missing"
    assert told["chains"][2]["fault"] in told["faults"]


def test_a_chain_is_told_to_be_looked_at_up_to_its_fault_alone(run: Run, log: SealedLog) -> None:
    name, line = log.place_of("http-0", 3)
    log.edit(name, lambda lines: lines.pop(line - 1))

    result = run("audit", "verify", str(log.directory))

    (row,) = [one for one in result.stdout.splitlines() if one.startswith("http-0 ")]
    assert " first 3 " in row
    assert "http-0: 3 records fit; what comes after the fault was not looked at." in result.stdout
    assert "the record with seq 3 is missing" in result.stdout


def test_a_chain_that_only_a_token_knows_of_has_a_row_as_well(
    run: Run, sound: SealedLog, tmp_path: Path
) -> None:
    file = tmp_path / "token.jwt"
    file.write_text(token(f"never-written@{LOG_ID}/http-7/3", 1_799_990_000))

    result = run(
        *("audit", "verify", str(sound.directory), "--key", sound.key.text),
        *("--receipt", f"@{file}"),
    )

    assert result.exit_code == 1
    (row,) = [line for line in result.stdout.splitlines() if line.startswith("http-7 ")]
    assert row.endswith("✖ missing")


def test_what_only_the_key_shows_of_a_chain_is_its_fault_for_programs_too(
    run: Run, log: SealedLog
) -> None:
    log.forge("http-0", 2, lambda one: setattr(one, "subject", "somebody"))

    result = run("audit", "verify", str(log.directory), "--key", log.key.text, "-o", "json")

    faults = {one["writer"]: one["fault"] for one in json.loads(result.stdout)["chains"]}
    assert faults["http-0"]["wrong"] == "rewritten"
    assert (faults["grpc-0"], faults["keys"]) == (None, None)


def test_the_list_of_checkpoints_is_no_chain(run: Run, log: SealedLog) -> None:
    log.edit("checkpoints/000001.jsonl", lambda lines: lines.pop(1))

    result = run("audit", "verify", str(log.directory), "--key", log.key.text, "-o", "json")

    told = json.loads(result.stdout)
    assert [one["wrong"] for one in told["faults"]] == ["missing"]
    assert [one["writer"] for one in told["chains"]] == ["grpc-0", "http-0", "keys"]


def test_the_key_is_told_by_its_fingerprint(run: Run, sound: SealedLog) -> None:
    stranger = signer_of(KeysInMemory()).keys()[0]

    result = run("audit", "verify", str(sound.directory), "--key", sound.key.text)
    others = run("audit", "verify", str(sound.directory), "--key", stranger.text, "-o", "json")

    assert f"By the key {sound.key.fingerprint} of {sound.key.name}." in result.stdout
    assert others.exit_code == 1
    told = json.loads(others.stdout)["keys"]
    assert told == [{"name": stranger.name, "fingerprint": stranger.fingerprint}]
    assert stranger.fingerprint != sound.key.fingerprint


FORMS = {
    "a key that is none": (("--key", "log+00000000+AAAA"), "broker.example/audit/"),
    "a key that was altered": (("--key", "altered.pub"), "do not belong together"),
    "a file that is not there": (("--key", "no-such-file"), "`broker audit key` prints"),
    "a file without a key": (("--key", "empty"), "there is no key"),
    "an anchor without a key": (("--anchor", "kept.note"), "--key audit.pub"),
    "an anchor that is no note": (
        ("--anchor", "kept.note", "--key", "KEY"),
        "`broker audit anchor`",
    ),
    "a receipt that is none": (("--receipt", "no receipt"), "/http-0/41"),
    "a receipt of another form": (("--receipt", "id@0123/http-0/1"), "@FILE"),
    "a token itself": (("--receipt", "a.b.c"), "which is secret"),
    "a token that is none": (("--receipt", "@empty"), "is not a token"),
    "roots that are none": (
        ("--tsa-ca", "kept.note", "--key", "KEY"),
        "-----BEGIN CERTIFICATE-----",
    ),
}


@pytest.mark.parametrize(("options", "form"), FORMS.values(), ids=list(FORMS))
def test_what_an_auditor_brings_along_and_is_none_is_told_with_the_form_that_it_has_to_have(
    run: Run, sound: SealedLog, tmp_path: Path, options: tuple[str, ...], form: str
) -> None:
    (tmp_path / "kept.note").write_text("no note")
    (tmp_path / "altered.pub").write_text(sound.key.text.replace("broker", "brokes"))
    (tmp_path / "empty").write_text("\n")
    words = [sound.key.text if word == "KEY" else word for word in options]

    result = run("audit", "verify", str(sound.directory), *words, COLUMNS="400")

    assert result.exit_code == 2
    told = " ".join(result.stderr.split())
    assert options[0] in told
    assert form in told


def test_a_word_that_is_no_public_key_is_not_repeated(run: Run, sound: SealedLog) -> None:
    secret = f"{sound.key.name}+0badcafe+bm90IHlvdXJzIHRvIHNlZQ=="

    result = run("audit", "verify", str(sound.directory), "--key", secret)

    assert result.exit_code == 2
    assert "bm90IHl" not in result.output


def test_a_note_that_the_key_has_not_signed_is_no_anchor(
    run: Run, sound: SealedLog, tmp_path: Path
) -> None:
    anchor = tmp_path / "kept.note"
    anchor.write_text(sound.kept()[1].note.replace("time 2", "time 3"))

    result = run(
        *("audit", "verify", str(sound.directory), "--key", sound.key.text),
        *("--anchor", str(anchor)),
    )

    assert result.exit_code == 2
    assert "no checkpoint by these keys" in result.stderr


def test_a_record_is_proved_to_whoever_has_the_key_alone(
    run: Run, log: SealedLog, tmp_path: Path
) -> None:
    event_id = json.loads(lines_of(log, "http-0")[5])["event_id"]

    proof = run("audit", "prove", event_id, str(log.directory), "--key", log.key.text)
    assert proof.exit_code == 0, proof.output
    elsewhere = tmp_path / "record.tlog-proof"
    elsewhere.write_text(proof.stdout)
    result = run("audit", "verify-proof", str(elsewhere), "--key", log.key.text)
    as_json = run("audit", "verify-proof", str(elsewhere), "--key", log.key.text, "-o", "json")

    assert result.exit_code == 0, result.output
    last = log.kept()[-1].checkpoint
    assert result.stdout.startswith(
        f"✔ Proved: this record was in the audit log {last.origin}, word for word, when the log was "
        f"sealed at {last.time}. It calls itself record 6 of the chain http-0."
    )
    assert "Not proved by this:" in result.stdout
    assert f"By the key {log.key.fingerprint} of {log.key.name}." in result.stdout
    assert json.loads(as_json.stdout)["record"]["event_id"] == event_id


def test_a_proof_of_another_log_proves_nothing(run: Run, log: SealedLog, tmp_path: Path) -> None:
    event_id = json.loads(lines_of(log, "http-0")[5])["event_id"]
    proof = tmp_path / "record.tlog-proof"
    proof.write_text(run("audit", "prove", event_id, str(log.directory)).stdout)
    stranger = signer_of(KeysInMemory()).keys()[0]

    for file, key in ((proof, stranger), (log.checkpoints, log.key)):
        result = run("audit", "verify-proof", str(file), "--key", key.text)
        assert result.exit_code == 1
        assert "✖ Nothing is proved" in result.stderr
        assert "Make sure that the file is whole" in result.stderr


def test_a_record_that_is_not_sealed_yet_is_proved_later(run: Run, log: SealedLog) -> None:
    event_id = json.loads(lines_of(log, "http-0")[-2])["event_id"]

    result = run("audit", "prove", event_id, str(log.directory))

    assert result.exit_code == 1
    assert "in no checkpoint yet" in result.stderr
    assert "audit.seal.every" in result.stderr


def test_a_record_that_was_changed_after_it_was_sealed_is_not_proved(
    run: Run, log: SealedLog
) -> None:
    log.forge("http-0", 5, lambda one: setattr(one, "subject", "somebody-else"))
    event_id = json.loads(lines_of(log, "http-0")[5])["event_id"]

    result = run("audit", "prove", event_id, str(log.directory))

    assert result.exit_code == 1
    assert result.stdout == ""


def test_what_nobody_knows_cannot_be_proved(run: Run, log: SealedLog) -> None:
    assert run("audit", "prove", "nobody-knows", str(log.directory)).exit_code == 1


def test_a_record_that_was_written_anew_is_not_shown_as_sealed(run: Run, log: SealedLog) -> None:
    event_id = json.loads(lines_of(log, "http-0")[5])["event_id"]
    assert "sealed as record" in run("audit", "show", event_id, str(log.directory)).stdout
    for path in log.directory.glob("index.sqlite*"):
        path.unlink()
    log.forge("http-0", 5, lambda one: setattr(one, "subject", "somebody-else"))

    result = run("audit", "show", event_id, str(log.directory))

    assert result.exit_code == 1
    assert "is not the one that was sealed" in result.stdout
    assert "sealed as record" not in result.stdout
