"""What the control process does for auditors: from the settings to files, measures and commands."""

import stat
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry
from structlog.testing import capture_logs

from broker.audit.checkpoints import Checkpoint
from broker.audit.disk import DiskChain
from broker.audit.notes import NoteKey, open_note
from broker.audit.query import Query, RecordChanged
from broker.audit.seal.integrity import NotSealed
from broker.audit.seal.proof import Proof
from broker.audit.seal.rounds import Rounds
from broker.audit.seal.store import CheckpointStore, Kept
from broker.audit.seal.verifying import MEMORY
from broker.audit.segments import AuditLogRefused, WriterBusy, WriterLock
from broker.audit.telling.handover import NotSigned
from broker.auditing import Auditing
from broker.cli import main
from broker.config import Settings, load_settings
from broker.web.review.evidence import standing
from tests.audit.chains import NOW, record
from tests.audit.seal.authority import TimeStampAuthority
from tests.audit.sinks.collecting import CollectorServer, closing, hang, seconds_for
from tests.e2e.patience import until
from tests.openbao import OpenBao, Transit

PLAIN = "issuer: http://127.0.0.1:8080\nlisten: {http: 127.0.0.1:8080, admin: 127.0.0.1:9443}\n"


def settings_of(
    folder: Path, text: str = PLAIN, *, seal: str = "every: 1s", more: str = "verify: {}"
) -> Settings:
    path = folder / "broker.yaml"
    path.write_text(f"{text}audit: {{seal: {{{seal}}}, {more}}}\n")
    return load_settings(path, {})


pytestmark = pytest.mark.usefixtures("patience_with_vault")


@pytest.fixture(autouse=True)
def _time_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done at the end gets done, however slow the machine is."""
    monkeypatch.setattr("broker.auditing._CLOSING_SECONDS", 60.0)
    monkeypatch.setitem(Rounds.close.__kwdefaults__, "within", 60.0)  # type: ignore[arg-type] # It has some.


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[DiskChain]:
    """A chain in the directory that the settings name by default."""
    made = DiskChain(tmp_path / ".broker" / "audit", writer="http-0", now=lambda: float(NOW))
    made.open("start")
    made.append([record(1)])
    yield made
    made.close()


def page(auditing: Auditing) -> str:
    class Measures(Collector):
        def collect(self) -> "list[Metric]":
            return list(auditing.measures())

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Measures())
    return generate_latest(registry).decode()


@pytest.mark.usefixtures("chain")
def test_what_is_handed_over_is_signed_once_there_is_a_seal(tmp_path: Path) -> None:
    auditing = Auditing(settings_of(tmp_path))
    with capture_logs() as logs, pytest.raises(NotSigned, match="nothing was sealed yet"):
        auditing.signing_terms()
    assert [one["event"] for one in logs] == ["audit_download_not_signed"]
    with auditing.under_way():
        until(lambda: auditing.integrity().records == 2, seconds=30, what="it is sealed")
        terms = auditing.signing_terms()
        assert [terms.key.text] == list(auditing.integrity().keys)
        assert terms.checkpoint is not None
        assert terms.checkpoint.size == 2


@pytest.mark.usefixtures("chain")
def test_nothing_is_handed_over_by_a_key_file_that_others_may_read(tmp_path: Path) -> None:
    auditing = Auditing(settings_of(tmp_path))
    with auditing.under_way():
        until(lambda: auditing.integrity().records == 2, seconds=30, what="it is sealed")
        (key,) = tmp_path.rglob("audit-key.pem")
        key.chmod(0o644)
        with capture_logs() as logs, pytest.raises(NotSigned) as caught:
            auditing.signing_terms()
    (told,) = logs
    assert told["event"] == "audit_download_not_signed"
    assert str(key) in told["reason"], "the operator is told which file it is"
    assert str(tmp_path) not in str(caught.value)


def test_what_is_recorded_is_sealed_measured_and_proved(tmp_path: Path, chain: DiskChain) -> None:
    auditing = Auditing(settings_of(tmp_path))
    assert auditing.integrity().sealed_until is None
    with pytest.raises(NotSealed):
        auditing.prove("http-0", 0)
    with auditing.under_way():
        until(lambda: auditing.integrity().records == 2, seconds=30, what="it is sealed")
        found = auditing.integrity()
        assert (dict(found.faults), found.failure, found.anchor_failure) == ({}, "", "")
        keys = [NoteKey.read(text) for text in found.keys]
        assert Proof.read(auditing.prove("http-0", 1)).verify(keys).link.seq == 1
        assert "broker_audit_sealed_records 2.0" in page(auditing)
        assert "broker_audit_broken_chains 0.0" in page(auditing)
        assert "broker_audit_anchor_conflict" in page(auditing)
        assert 'broker_audit_alerts_total{rule="damage"} 0.0' in page(auditing)
        assert "broker_audit_sink_backlog_records" in page(auditing)
        chain.append([record(2)])
    assert auditing.integrity().records == 3


def tampered(directory: Path, *, was: bytes = b"1", by: bytes = b"x") -> None:
    """One letter of a record that was sealed in an earlier life."""
    segment = directory / "http-0.000001.jsonl"
    # In its place: a file that is empty for a moment is other damage.
    with segment.open("r+b") as file:
        file.seek(file.read().index(b'"req-%b"' % was) + len(b'"req-'))
        file.write(by)


def to_be_verified(directory: Path) -> None:
    """It is time for that, and no longer than a minute."""
    (directory / MEMORY).write_text(f'{{"due": 0, "since": {time.time() - 60}}}')


@pytest.fixture
def sealed_before(tmp_path: Path, chain: DiskChain) -> Path:
    """The directory of a record that was sealed, indexed and watched before; nobody reads it again."""
    auditing = Auditing(settings_of(tmp_path))
    auditing.begin()
    chain.append([record(2)])
    until(lambda: auditing.integrity().records == 3, seconds=30, what="it is sealed")
    auditing.reader.catch_up()
    auditing.close()
    return tmp_path / ".broker" / "audit"


def test_an_old_record_that_was_changed_is_found_though_nobody_asks(
    tmp_path: Path, sealed_before: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tampered(sealed_before)
    to_be_verified(sealed_before)
    monkeypatch.setattr("broker.auditing._SETTLED_SECONDS", 0.0)
    auditing = Auditing(settings_of(tmp_path))
    with capture_logs() as told, auditing.under_way():
        until(lambda: auditing.integrity().verified, seconds=300, what="it is looked through")
        found = auditing.integrity()
        assert (dict(found.faults), found.failure, found.unverified) == ({}, "", "")
        assert "broker_audit_verification_faults 1.0" in page(auditing)
        assert "broker_audit_broken_chains 0.0" in page(auditing)
        # A question that meets the same tells nothing more.
        assert auditing.reader.find(Query(events=("token.issue",))).changed
        (wrong,) = standing(auditing, auditing.reader.extent()).faults
        alert = 'broker_audit_alerts_total{rule="damage"} 1.0'
        until(lambda: alert in page(auditing), seconds=30, what="it is an alert")
    assert wrong.startswith("http-0.000001.jsonl:2: the record was changed after it was written")
    (alerted,) = [one for one in told if one["event"] == "audit_alert"]
    assert (alerted["rule"], alerted["place"]) == ("damage", "http-0.000001.jsonl:2")
    assert alerted["wrong"].startswith("changed: ")
    assert {one["event"] for one in told if one["log_level"] == "critical"} == {
        "audit_not_whole",
        "audit_alert",
    }


def test_what_a_question_or_a_proof_finds_changed_is_an_alert_once_and_not_verified_unasked(
    tmp_path: Path, sealed_before: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.auditing._SETTLED_SECONDS", 0.0)
    to_be_verified(sealed_before)
    auditing = Auditing(settings_of(tmp_path, more="verify: {enabled: false}"))
    assert auditing._verifying is None
    with capture_logs() as told, auditing.under_way():
        until(lambda: auditing.integrity().records > 2, seconds=30, what="it is sealed")
        event_id = auditing.reader.find(Query(events=("token.issue",))).found[-1].record.event_id
        tampered(sealed_before)
        for _ in range(3):
            assert auditing.reader.find(Query(events=("token.issue",))).changed
            with pytest.raises(RecordChanged):
                auditing.reader.get(event_id)
            with pytest.raises(AuditLogRefused, match="not the one that was sealed"):
                auditing.prove("http-0", 1)
        alert = 'broker_audit_alerts_total{rule="damage"} 1.0'
        until(lambda: alert in page(auditing), seconds=30, what="it is an alert")
        assert dict(auditing.integrity().changed).keys() == auditing.reader.changed().keys()
        faults = standing(auditing, auditing.reader.extent()).faults
        assert "broker_audit_verification_faults 1" not in page(auditing)
        tampered(sealed_before, was=b"x", by=b"1")
        auditing.prove("http-0", 1)
        monkeypatch.setattr("broker.audit.index.reader._LOOK_AGAIN", 0.0)
        assert not standing(auditing, auditing.reader.extent()).faults
    (alerted,) = [one for one in told if one["event"] == "audit_alert"]
    assert alerted["place"] == "http-0.000001.jsonl:2"
    assert [one.partition(": ")[0] for one in faults] == ["http-0.000001.jsonl:2"]
    assert "audit_verified" not in {one["event"] for one in told}


def test_a_verifier_that_cannot_be_started_is_an_alert_of_its_own_kind(
    tmp_path: Path, sealed_before: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.auditing._SETTLED_SECONDS", 0.0)
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    to_be_verified(sealed_before)
    auditing = Auditing(settings_of(tmp_path))
    with capture_logs() as told, auditing.under_way():
        alert = 'broker_audit_alerts_total{rule="unverified"} 1.0'
        until(lambda: alert in page(auditing), seconds=30, what="it is an alert")
        assert "broker_audit_verification_failures_total 1.0" in page(auditing)
        assert 'rule="damage"} 0.0' in page(auditing)
        (trouble,) = standing(auditing, auditing.reader.extent()).troubles
        assert trouble.startswith("The whole record could not be verified: FileNotFoundError")
    (alerted,) = [one for one in told if one["event"] == "audit_alert"]
    assert alerted["rule"] == "unverified"
    assert "audit_verification_failed" in {one["event"] for one in told}


def test_the_last_records_are_sealed_when_it_closes(tmp_path: Path, chain: DiskChain) -> None:
    auditing = Auditing(settings_of(tmp_path, seal="every: 5m"))
    auditing.begin()
    until(lambda: auditing.integrity().records == 2, seconds=30, what="it is sealed")
    chain.close()
    auditing.close()
    last = CheckpointStore(tmp_path / ".broker" / "audit").last()
    assert last is not None
    assert last.checkpoint.size == 3


def test_nobody_else_seals_while_the_last_round_is_not_over(
    tmp_path: Path, chain: DiskChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    auditing = Auditing(settings_of(tmp_path))
    auditing.begin()
    until(lambda: auditing.integrity().records == 2, seconds=30, what="it is sealed")
    begun, gate, append = threading.Event(), threading.Event(), CheckpointStore.append

    def held(store: CheckpointStore, note: str, checkpoint: Checkpoint) -> Kept:
        begun.set()
        assert gate.wait(60)
        return append(store, note, checkpoint)

    monkeypatch.setattr(CheckpointStore, "append", held)
    monkeypatch.setitem(Rounds.close.__kwdefaults__, "within", 0.1)  # type: ignore[arg-type] # It has some.
    chain.append([record(2)])
    assert begun.wait(60)
    auditing.close()
    lock = WriterLock(CheckpointStore(tmp_path / ".broker" / "audit").directory, writer="sealer")
    with pytest.raises(WriterBusy):
        lock.hold()
    gate.set()

    until(lambda: auditing._sealing.has_ended, seconds=30, what="the last round is over")
    assert (auditing.integrity().records, auditing.integrity().failure) == (3, "")
    assert auditing._evidence is not None
    auditing._evidence.sealer.close()
    lock.hold()
    lock.release()


def test_a_second_sink_that_hangs_keeps_nobody_from_ending_nor_the_end_from_being_sealed(
    tmp_path: Path, chain: DiskChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, gate = CollectorServer(), threading.Event()
    server.scripts += [hang(gate)] * 8
    url = server.url.partition("?")[0]
    file = tmp_path / "broker.yaml"
    sink = f"{{type: http, url: '{url}'}}"
    file.write_text(f"{PLAIN}audit: {{seal: {{every: 5m}}, sinks: [{sink}]}}\n")
    auditing = Auditing(load_settings(file, {}))
    with closing(server):
        auditing.begin()
        until(lambda: bool(server.requests), seconds=30, what="it is shipped")
        until(lambda: auditing.integrity().records == 2, seconds=30, what="it is sealed")
        chain.close()
        monkeypatch.setattr("broker.auditing._CLOSING_SECONDS", 0.5)
        took = seconds_for(auditing.close)
        gate.set()

    assert took < 9
    assert auditing.integrity().records == 3


def test_a_directory_that_cannot_be_used_is_told_and_tried_again(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    directory = settings.audit.directory
    directory.parent.mkdir(mode=0o700)
    directory.write_text("in the way")
    auditing = Auditing(settings)
    with capture_logs() as told, auditing.under_way():
        until(lambda: bool(auditing.integrity().failure), seconds=30, what="it is told")
        assert "broker_audit_sealing_failures_total" in page(auditing)
    assert [one["event"] for one in told][:1] == ["audit_sealing_failed"]
    directory.unlink()
    again = Auditing(settings)
    with again.under_way():
        until(lambda: again._evidence is not None, seconds=30, what="it begins")
    assert again.integrity().failure == ""


def test_rounds_go_on_after_failures_and_tell_each_once() -> None:
    outcomes = iter([ValueError("one"), ValueError("one"), ValueError("two"), None])
    done = 0

    def work() -> None:
        nonlocal done
        done += 1
        outcome = next(outcomes, None)
        if outcome is not None:
            raise outcome

    rounds = Rounds("audit_sealing", work, interval=0.001)
    with capture_logs() as told:
        rounds.begin()
        until(lambda: done > 4, seconds=30, what="it goes on")
        rounds.close()
    assert [one["event"] for one in told] == [
        "audit_sealing_failed",
        "audit_sealing_failed",
        "audit_sealing_works_again",
    ]
    assert (rounds.failure, rounds.failures) == ("", 3)


def broker(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments, prog_name="broker")
    return f"{result.exit_code} {(result.stdout or result.stderr).strip()}"


@pytest.mark.usefixtures("chain")
def test_the_key_is_printed_in_a_word_that_the_checkpoints_are_verified_with(
    tmp_path: Path,
) -> None:
    settings = settings_of(tmp_path)
    told = broker("audit", "key", "--config", str(tmp_path / "broker.yaml"))
    assert told.startswith("0 127.0.0.1:8080/audit/")
    auditing = Auditing(settings)
    auditing.begin()
    auditing.close()
    last = CheckpointStore(settings.audit.directory).last()
    assert last is not None
    open_note(last.note, [NoteKey.read(told.removeprefix("0 "))])


def test_commands_about_the_seal_say_what_is_missing(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    config = str(tmp_path / "broker.yaml")
    assert broker("audit", "anchor", "--config", config).startswith("1 ")
    broker("audit", "key", "--config", config)
    assert "Nothing is anchored" in broker("audit", "anchor", "--config", config)
    path = settings.keys.directory / "audit-key.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("damaged")
    assert "audit-key.pem" in broker("audit", "key", "--config", config)
    (settings.audit.directory / "log.id").write_text("x")
    for verb in ("key", "anchor"):
        assert broker("audit", verb, "--config", config).startswith("1 ")


@pytest.fixture
def vault(openbao: OpenBao, transit: Transit) -> str:
    """Settings with keys and an anchor in Vault."""
    files = transit.role.auth
    for file in (files.role_id_file, files.secret_id_file):
        file.chmod(0o600)
    return f"""\
issuer: https://broker.example
listen: {{http: 127.0.0.1:8080, admin: 127.0.0.1:9443}}
keys:
  store: vault-transit
  vault:
    url: {openbao.url}
    keys: {{ES256: {transit.keys["ES256"]}, RS256: {transit.keys["RS256"]}}}
    auth: {{method: approle, role_id_file: {files.role_id_file}, secret_id_file: {files.secret_id_file}}}
    record: {{mount: kv, path: broker/keys}}
"""


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[TimeStampAuthority]:
    made = TimeStampAuthority(tmp_path / "authority")
    yield made
    made.close()


@pytest.mark.usefixtures("chain")
def test_with_vault_the_checkpoint_is_anchored_and_printed_for_an_auditor(
    tmp_path: Path, vault: str
) -> None:
    settings = settings_of(tmp_path, vault)
    auditing = Auditing(settings)
    with auditing.under_way():
        until(lambda: auditing.integrity().anchored_records == 2, seconds=30, what="it is anchored")
        assert "broker_audit_anchor_conflict 0.0" in page(auditing)
        assert auditing._evidence is not None
        asked = auditing._evidence.question(within=9)
        assert [open_note(asked.anchor, [NoteKey.read(key)]) for key in asked.keys]
    config = str(tmp_path / "broker.yaml")
    status, _, note = broker("audit", "anchor", "--config", config).partition(" ")
    assert status == "0"
    key = NoteKey.read(broker("audit", "key", "--config", config).removeprefix("0 "))
    assert open_note(note + "\n", [key]).startswith("broker.example/audit/")
    assert not (settings.keys.directory / "audit-key.pem").exists()


@pytest.mark.usefixtures("chain")
def test_a_time_stamp_is_kept_beside_the_checkpoints(
    tmp_path: Path, authority: TimeStampAuthority
) -> None:
    seal = f"every: 1s, timestamp_url: '{authority.url}', timestamp_ca_file: {authority.roots}"
    auditing = Auditing(settings_of(tmp_path, seal=seal))
    with auditing.under_way():
        until(lambda: auditing.integrity().stamped_at is not None, seconds=30, what="it is stamped")
        assert "broker_audit_time_stamp_age_seconds" in page(auditing)
    assert (tmp_path / ".broker" / "audit" / "checkpoints" / "time-stamps.jsonl").stat().st_size


@pytest.mark.parametrize(
    ("seal", "told"),
    [
        ("every: 900ms", "every"),
        ("every: 6m", "cut off unseen"),
        ("timestamp_url: 'https://tsa.example'", "timestamp_ca_file: is required"),
        ("timestamp_ca_file: broker.yaml", "no effect"),
        ("timestamp_url: 'https://tsa.example', timestamp_ca_file: nowhere.pem", "nowhere.pem"),
        ("timestamp_url: 'http://tsa.example', timestamp_ca_file: broker.yaml", "https"),
    ],
)
def test_settings_that_would_show_less_than_they_promise_are_refused(
    tmp_path: Path, seal: str, told: str
) -> None:
    with pytest.raises(Exception, match=told):
        settings_of(tmp_path, seal=seal)


@pytest.mark.parametrize(
    "verify", ["every: 59s", "every: 31d", "within: 59s", "within: 8d", "enabled: 1d", "often: 1d"]
)
def test_a_verification_that_would_be_a_burden_or_come_too_late_is_refused(
    tmp_path: Path, verify: str
) -> None:
    with pytest.raises(Exception, match=r"audit\.verify"):
        settings_of(tmp_path, more=f"verify: {{{verify}}}")


def test_the_whole_record_is_verified_each_day_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    verify = settings_of(tmp_path).audit.verify
    assert verify is not None
    assert (verify.every, verify.within) == (timedelta(days=1), timedelta(hours=6))
    assert settings_of(tmp_path, more="verify: {enabled: false}").audit.verify is None


def test_the_key_that_seals_is_none_that_signs(tmp_path: Path, vault: str) -> None:
    text = vault.replace("    record:", "    audit_key: shared-es256\n    record:")
    with pytest.raises(Exception, match="signs no tokens"):
        settings_of(tmp_path, text)
