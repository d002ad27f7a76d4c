"""The audit files: who may read them, where they begin and end, and how one follows another."""

import itertools
import json
import os
import stat
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from broker.audit import commit
from broker.audit.chain import MAX_LINE_BYTES
from broker.audit.diagnosis import Wrong
from broker.audit.disk import DiskChain
from broker.audit.log import FileAuditLog
from broker.audit.log_id import read_log_id
from broker.audit.reader import read_records, verify_directory
from broker.audit.segments import AuditLogRefused
from tests.audit.requests import (
    NOW,
    is_serving,
    open_log,
    recorded,
    try_to_write,
    wait_until_serving,
    write,
)

FIRST, SECOND, THIRD = (f"w1.00000{number}.jsonl" for number in (1, 2, 3))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.jsonl"))


def crash(directory: Path, *event_ids: str) -> None:
    """Leave a chain as a killed process leaves it: without a closing record, and unlocked."""
    log = open_log(directory)
    write(log, *event_ids)
    log.close()
    last = directory / names(directory)[-1]
    last.write_bytes(b"".join(last.read_bytes().splitlines(keepends=True)[:-1]))


def test_a_segment_opens_and_closes_with_records_of_its_own(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    write(log, "req-1")
    log.close()

    opening, request, closing = lines(tmp_path / FIRST)
    assert (opening["event"], opening["cause"], opening["decision"]) == (
        "chain.opened",
        "start",
        "info",
    )
    assert request["event_id"] == "req-1"
    assert (closing["event"], closing["cause"]) == ("chain.closed", "stop")
    assert opening["boot_id"] == closing["boot_id"]
    assert opening["log_id"] == read_log_id(tmp_path)
    assert opening["event_id"] != closing["event_id"]
    assert [one["seq"] for one in (opening, request, closing)] == [0, 1, 2]


def test_the_files_and_their_directory_are_their_owners_alone(tmp_path: Path) -> None:
    log = open_log(tmp_path / "deep" / "audit")
    log.close()

    directory = tmp_path / "deep" / "audit"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert {path.name for path in directory.iterdir()} == {FIRST, "log.id", "w1.head", "w1.lock"}


def test_a_restart_begins_a_segment_that_continues_the_chain(tmp_path: Path) -> None:
    for event_id in ("req-1", "req-2", "req-3"):
        log = open_log(tmp_path)
        write(log, event_id)
        log.close()

    assert names(tmp_path) == [FIRST, SECOND, THIRD]
    report = verify_directory(tmp_path)
    assert report.is_intact
    assert report.records == 9
    assert recorded(tmp_path) == ["req-1", "req-2", "req-3"]
    boot_ids = {lines(tmp_path / name)[0]["boot_id"] for name in names(tmp_path)}
    assert len(boot_ids) == 3


@pytest.mark.parametrize(
    "tail",
    [
        b'{"client_id":"agent',
        b"\x00" * 5_000,
        b"\x00" * 5_000 + b'{"event":"token.issue"}\n{"event":"token.issue"}\n',
        b'{"event_id":"' + b"x" * 300_000,
    ],
)
@pytest.mark.requirement("R-15")
def test_what_a_crash_left_unfinished_is_declared_by_the_next_segment(
    tmp_path: Path, tail: bytes
) -> None:
    crash(tmp_path, "req-1")
    with (tmp_path / FIRST).open("ab") as file:
        file.write(tail)
    (chain,) = verify_directory(tmp_path).chains
    assert chain.records == 2
    if b"\n" in tail or len(tail) > MAX_LINE_BYTES:
        # More than the beginning of a line: nothing accounts for it before the writer is back.
        assert chain.fault is not None
        assert (chain.fault.place.file.name, chain.fault.place.line) == (FIRST, 3)
    else:
        assert (chain.fault, chain.unended_bytes) == (None, len(tail))

    log = open_log(tmp_path)
    write(log, "req-2")
    log.close()

    assert lines(tmp_path / SECOND)[0]["torn_bytes"] == len(tail)
    (chain,) = verify_directory(tmp_path).chains
    assert chain.fault is None
    assert chain.torn_bytes == len(tail)
    assert recorded(tmp_path) == ["req-1", "req-2"]


def test_a_declared_tail_that_grows_or_shrinks_later_is_found(tmp_path: Path) -> None:
    crash(tmp_path, "req-1")
    with (tmp_path / FIRST).open("ab") as file:
        file.write(b'{"client_id":"agent')
    open_log(tmp_path).close()
    content = (tmp_path / FIRST).read_bytes()

    for changed in (content[:-1], content + b"x", content[:-19]):
        (tmp_path / FIRST).write_bytes(changed)
        fault = verify_directory(tmp_path).chains[0].fault
        assert fault is not None
        assert fault.place.file.name == FIRST
        assert fault.wrong in {Wrong.TORN, Wrong.CHANGED}


@pytest.mark.parametrize("content", [b"", b'{"boot_id":"half an opening'])
def test_a_segment_that_never_came_to_be_is_passed_over(tmp_path: Path, content: bytes) -> None:
    crash(tmp_path, "req-1")
    (tmp_path / SECOND).write_bytes(content)

    log = open_log(tmp_path)
    write(log, "req-2")
    log.close()

    assert names(tmp_path) == [FIRST, SECOND, THIRD]
    assert verify_directory(tmp_path).is_intact
    assert recorded(tmp_path) == ["req-1", "req-2"]


@pytest.mark.parametrize("line", [b"not ours\n", b"x" * 5_000_000, b"{}\n"])
def test_a_chain_whose_end_is_no_record_is_not_continued(tmp_path: Path, line: bytes) -> None:
    crash(tmp_path, "req-1")
    with (tmp_path / FIRST).open("ab") as file:
        file.write(line)

    with pytest.raises(AuditLogRefused, match=FIRST):
        open_log(tmp_path)

    (tmp_path / FIRST).rename(tmp_path / "aside")
    open_log(tmp_path).close()


@pytest.mark.parametrize("writer", ["", "a.b", "../w1", "w 1", "-w", "é", "w" * 65, "w1\n"])
def test_a_writer_id_that_is_no_plain_name_is_refused(tmp_path: Path, writer: str) -> None:
    with pytest.raises(AuditLogRefused, match="cannot name an audit writer"):
        open_log(tmp_path, writer=writer)


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_directory_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)

    with pytest.raises(AuditLogRefused, match="can be written by others"):
        open_log(tmp_path)


def test_a_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    somebody_else = tmp_path.stat().st_uid + 1
    monkeypatch.setattr(os, "geteuid", lambda: somebody_else)

    with pytest.raises(AuditLogRefused, match="belongs to another user"):
        open_log(tmp_path)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["nothing", "another"])
def test_a_lock_that_is_a_symbolic_link_is_not_followed(tmp_path: Path, target: str) -> None:
    directory = tmp_path / "audit"
    directory.mkdir(mode=0o700)
    (tmp_path / "another").write_text("untouched")
    (directory / "w1.lock").symlink_to(tmp_path / target)

    with pytest.raises(AuditLogRefused, match="is a symbolic link"):
        open_log(directory)

    assert not (tmp_path / "nothing").exists()
    assert names(directory) == []


def test_a_writer_id_is_free_again_once_its_log_is_closed(tmp_path: Path) -> None:
    first = open_log(tmp_path)
    with pytest.raises(AuditLogRefused, match="another process holds"):
        open_log(tmp_path)
    first.close()
    first.close()

    open_log(tmp_path).close()


def test_several_writers_keep_chains_of_their_own(tmp_path: Path) -> None:
    logs = [open_log(tmp_path, writer=f"w{number}") for number in range(3)]
    for number in range(5):
        for log in logs:
            write(log, f"req-{id(log)}-{number}")
    for log in logs:
        log.close()

    report = verify_directory(tmp_path)
    assert report.is_intact
    assert [(chain.writer, chain.records) for chain in report.chains] == [
        ("w0", 7),
        ("w1", 7),
        ("w2", 7),
    ]


@pytest.mark.requirement("LOG-04")
def test_rotation_under_load_loses_and_tears_nothing(tmp_path: Path) -> None:
    log = FileAuditLog(
        tmp_path, writer="w1", now=lambda: NOW, segment_bytes=4_000, write_timeout=30.0
    )

    def requests(thread: int) -> None:
        write(log, *(f"req-{thread}-{number}" for number in range(40)))

    threads = [threading.Thread(target=requests, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()

    assert verify_directory(tmp_path).is_intact
    assert sorted(recorded(tmp_path)) == sorted(
        f"req-{thread}-{number}" for thread in range(8) for number in range(40)
    )
    segments = [lines(path) for path in sorted(tmp_path.glob("*.jsonl"))]
    assert len(segments) > 8
    for before, after in itertools.pairwise(segments):
        assert (before[-1]["event"], before[-1]["cause"]) == ("chain.closed", "rotation")
        assert (after[0]["event"], after[0]["cause"]) == ("chain.opened", "rotation")


def test_one_sync_serves_all_who_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(tmp_path)
    syncs, gate, waiting = [], threading.Event(), threading.Event()
    sync = os.fdatasync

    def slow_sync(descriptor: int) -> None:
        syncs.append(descriptor)
        waiting.set()
        gate.wait(60)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow_sync)
    threads = [threading.Thread(target=write, args=(log, "req-0"))]
    threads[0].start()
    assert waiting.wait(60)
    for number in range(1, 21):
        threads.append(threading.Thread(target=write, args=(log, f"req-{number}")))
        threads[-1].start()
    while log._commit._queue.qsize() < 20:
        threading.Event().wait(0.001)
    gate.set()
    for thread in threads:
        thread.join()

    assert len(syncs) == 2
    assert len(recorded(tmp_path)) == 21
    log.close()


def test_a_batch_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "_LARGEST_BATCH", 2)
    log = open_log(tmp_path)
    threads = [threading.Thread(target=write, args=(log, f"req-{number}")) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()

    assert len(recorded(tmp_path)) == 16
    assert verify_directory(tmp_path).is_intact


def test_a_log_from_another_process_refuses_and_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        assert not try_to_write(log, "req-1")
        log.close()

    write(log, "req-2")
    log.close()
    assert recorded(tmp_path) == ["req-2"]


def test_a_chain_that_is_not_open_accepts_nothing(tmp_path: Path) -> None:
    chain = DiskChain(tmp_path, writer="w1", now=lambda: NOW)

    with pytest.raises(OSError, match="not open"):
        chain.append([])

    chain.close()
    assert list(tmp_path.iterdir()) == []


def test_failure_and_recovery_are_told_to_the_operator_once(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as told:
        log = open_log(tmp_path / "audit")
        (tmp_path / "audit").rename(tmp_path / "gone")
        (tmp_path / "audit").write_bytes(b"in the way")
        for _ in range(5):
            assert not try_to_write(log, "req-1")
        (tmp_path / "audit").unlink()
        wait_until_serving(log)
        log.close()

    events = [one["event"] for one in told]
    assert events[0] == "audit_log_closed"
    assert events[-1] == "audit_log_open_again"
    assert events.count("audit_log_open_again") == 1


def test_a_verifier_gives_a_writer_a_moment_to_end_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash(tmp_path, "req-1")
    whole = (tmp_path / FIRST).read_bytes()
    (tmp_path / FIRST).write_bytes(whole[:-9])

    def end_line(_seconds: float) -> None:
        (tmp_path / FIRST).write_bytes(whole)

    monkeypatch.setattr(time, "sleep", end_line)

    assert verify_directory(tmp_path).is_intact


def test_an_observer_sees_a_record_once_it_is_on_disk(tmp_path: Path) -> None:
    seen: list[tuple[Mapping[str, Any], list[str]]] = []

    def observe(record: Mapping[str, Any]) -> None:
        seen.append((record, recorded(tmp_path)))

    log = FileAuditLog(tmp_path, writer="w1", now=lambda: NOW, observe=observe, write_timeout=30.0)
    write(log, "req-1", "req-2")
    log.close()
    assert not try_to_write(log, "req-3")

    assert [(record["event_id"], on_disk) for record, on_disk in seen] == [
        ("req-1", ["req-1"]),
        ("req-2", ["req-1", "req-2"]),
    ]
    assert seen[0][0]["decision"] == "permit"
    assert "jti" not in seen[0][0]


def test_an_observer_that_fails_changes_nothing(tmp_path: Path) -> None:
    def observe(_record: Mapping[str, Any]) -> None:
        raise ZeroDivisionError

    log = FileAuditLog(tmp_path, writer="w1", now=lambda: NOW, observe=observe, write_timeout=30.0)
    with structlog.testing.capture_logs() as told:
        write(log, "req-1")

    assert is_serving(log)
    assert [one["event"] for one in told] == ["audit_observer_failed"]
    assert recorded(tmp_path) == ["req-1"]
    log.close()


def test_records_are_read_by_time_across_writers_in_both_directions(tmp_path: Path) -> None:
    at = [float(NOW)]
    logs = [
        FileAuditLog(tmp_path, writer=name, now=lambda: at[0], write_timeout=30.0)
        for name in ("a", "b")
    ]
    expected = []
    for number in range(400):
        at[0] += 0.5
        write(logs[number % 2], f"req-{number}")
        expected.append(f"req-{number}")
    for log in logs:
        log.close()

    assert recorded(tmp_path) == expected
    newest = [one.event_id for one in read_records(tmp_path, newest_first=True)]
    assert [event_id for event_id in newest if event_id.startswith("req-")] == expected[::-1]


def test_what_is_no_record_is_passed_over_in_reading(tmp_path: Path) -> None:
    crash(tmp_path, "req-1")
    with (tmp_path / FIRST).open("ab") as file:
        file.write(b"not ours\n\n" + b"x" * 400_000 + b"\n{}\n")
    for stranger in ("notes.txt", "w1.jsonl", "w1.0000001.jsonl", "w1.000001.jsonl.gz", "a.b.lock"):
        (tmp_path / stranger).write_bytes(b"not a segment")

    for newest_first in (False, True):
        records = list(read_records(tmp_path, newest_first=newest_first))
        assert sorted(record.event for record in records) == ["chain.opened", "token.issue"]
