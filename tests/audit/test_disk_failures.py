"""While the audit log cannot be written nothing is answered; when it can be, it goes on alone."""

import errno
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from broker.audit import commit
from broker.audit.diagnosis import Wrong
from broker.audit.log import FileAuditLog
from broker.audit.reader import read_records, verify_directory
from broker.errors import Reason, TemporarilyUnavailable
from tests.audit.disks import fill, remount, small_disk
from tests.audit.requests import (
    NOW,
    is_serving,
    open_log,
    recorded,
    try_to_write,
    wait_until_serving,
    write,
)
from tests.e2e.patience import until

ROOT = Path(__file__).parents[2]
FIRST, SECOND = "w1.000001.jsonl", "w1.000002.jsonl"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def log(directory: Path) -> Iterator[FileAuditLog]:
    log = open_log(directory)
    yield log
    log.close()


def refused(log: FileAuditLog) -> str:
    """The detail with which a request is refused, if it is."""
    with pytest.raises(TemporarilyUnavailable) as caught:
        write(log, "refused")
    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
    return caught.value.detail


@pytest.mark.requirement("R-30")
def test_on_a_full_disk_nothing_is_answered_until_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kibibytes=256) as disk:
        log = open_log(disk)
        answered = ["before"]
        write(log, "before")
        filler = fill(disk)
        during = [f"full-{number}" for number in range(200)]
        answered += [event_id for event_id in during if try_to_write(log, event_id)]
        assert not is_serving(log)
        assert refused(log) == "audit log: ENOSPC"

        filler.unlink()
        wait_until_serving(log)
        write(log, "after")
        log.close()

        assert recorded(disk) == [*answered, "after"]
        (chain,) = verify_directory(disk).chains
        assert chain.fault is None
        assert chain.torn_bytes == 0
        causes = [
            (one.cause, one.detail) for one in read_records(disk) if one.event == "chain.opened"
        ]
        assert causes[0] == ("start", None)
        assert causes[-1] == ("recovery", "ENOSPC")


@pytest.mark.requirement("R-30")
def test_a_disk_gone_read_only_is_waited_for(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kibibytes=256) as disk:
        log = open_log(disk)
        write(log, "before")
        log.close()
        remount(disk, "ro")

        log = open_log(disk)
        assert refused(log) == "audit log: EROFS"
        remount(disk, "rw")
        wait_until_serving(log)
        write(log, "after")
        log.close()

        assert recorded(disk) == ["before", "after"]
        assert verify_directory(disk).is_intact


LIMITED = """
import resource, sys
from pathlib import Path
from tests.audit.requests import is_serving, open_log, recorded, try_to_write, wait_until_serving

directory = Path(sys.argv[1])
log = open_log(directory)
answered = []
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, resource.RLIM_INFINITY))
answered += [name for name in map(str, range(20)) if try_to_write(log, name)]
assert 2 < len(answered) < 20 and not is_serving(log), answered
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
wait_until_serving(log)
assert try_to_write(log, "after")
log.close()
assert recorded(directory) == [*answered, "after"], (answered, recorded(directory))
"""


@pytest.mark.requirement("R-30")
def test_a_batch_that_fits_in_part_is_taken_back_whole(directory: Path) -> None:
    """The limit on file sizes lets the first bytes of a line through, and then no more."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY

    subprocess.run([sys.executable, "-c", LIMITED, str(directory)], cwd=ROOT, check=True)

    (chain,) = verify_directory(directory).chains
    assert chain.fault is None
    assert chain.torn_bytes == 0


@pytest.mark.requirement("R-30")
def test_a_group_that_fits_in_part_is_taken_back_whole(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kibibytes=256) as disk:
        log = open_log(disk / "audit")
        write(log, "before")
        filler = fill(disk)

        assert not try_to_write(log, "group", parts=16)
        filler.unlink()
        wait_until_serving(log)
        write(log, "after")
        log.close()

        (chain,) = verify_directory(disk / "audit").chains
        assert (chain.fault, chain.unfinished_groups) == (None, ())
        assert recorded(disk / "audit") == ["before", "after"]


@pytest.mark.requirement("R-32")
@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_segment_lost_underneath_closes_the_log_and_is_told_by_the_verifier(
    log: FileAuditLog, directory: Path, how: str
) -> None:
    write(log, "lost")
    content = (directory / FIRST).read_bytes()
    (directory / FIRST).unlink()
    if how == "replaced":
        (directory / FIRST).write_bytes(content[:-7])

    assert refused(log) in {"audit log: ENOENT", "audit log: ESTALE"}
    wait_until_serving(log)
    write(log, "after")

    fault = verify_directory(directory).chains[0].fault
    assert fault is not None
    assert fault.wrong in {Wrong.MISSING, Wrong.TRUNCATED, Wrong.TORN}
    assert recorded(directory)[-1] == "after"

    (directory / FIRST).write_bytes(content)
    assert verify_directory(directory).is_intact


@pytest.mark.requirement("R-32")
def test_a_segment_renamed_by_log_rotation_verifies_when_it_is_back(
    log: FileAuditLog, directory: Path
) -> None:
    write(log, "before")
    (directory / FIRST).rename(directory / f"{FIRST}.1")

    assert not try_to_write(log, "during")
    wait_until_serving(log)
    write(log, "after")

    assert not verify_directory(directory).is_intact
    (directory / f"{FIRST}.1").rename(directory / FIRST)
    assert verify_directory(directory).is_intact
    assert recorded(directory) == ["before", "after"]


@pytest.mark.requirement("R-32")
@pytest.mark.parametrize("left", [0, 100])
def test_a_segment_copied_and_truncated_verifies_when_the_copy_is_back(
    log: FileAuditLog, directory: Path, left: int
) -> None:
    write(log, "before")
    copy = (directory / FIRST).read_bytes()
    os.truncate(directory / FIRST, left)

    assert refused(log) == "audit log: ESTALE"
    wait_until_serving(log)
    write(log, "after")

    assert not verify_directory(directory).is_intact
    assert (directory / FIRST).read_bytes() == copy[:left], "nothing unanswered is left in it"
    (directory / FIRST).write_bytes(copy)
    assert verify_directory(directory).is_intact
    assert recorded(directory) == ["before", "after"]


@pytest.mark.requirement("R-30")
def test_a_directory_that_is_gone_is_made_again(log: FileAuditLog, directory: Path) -> None:
    write(log, "lost")
    shutil.rmtree(directory)

    assert not try_to_write(log, "during")
    wait_until_serving(log)
    write(log, "after")

    assert recorded(directory) == ["after"]
    fault = verify_directory(directory).chains[0].fault
    assert fault is not None
    assert fault.wrong is Wrong.MISSING


@pytest.mark.requirement("R-30")
def test_a_log_whose_place_is_not_there_yet_starts_closed_and_opens_alone(
    directory: Path,
) -> None:
    directory.write_bytes(b"a file is in the way")
    log = open_log(directory)
    assert not is_serving(log)
    assert not try_to_write(log, "early")

    directory.unlink()
    wait_until_serving(log)
    write(log, "after")
    log.close()

    assert recorded(directory) == ["after"]
    assert verify_directory(directory).is_intact


def test_a_log_that_closes_while_its_disk_is_away_just_stops(directory: Path) -> None:
    directory.write_bytes(b"a file is in the way")
    log = open_log(directory)

    log.close()

    assert not is_serving(log)
    assert not log._commit._thread.is_alive()


def failing(number: int) -> Callable[..., None]:
    def fail(*_arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.requirement("R-30")
def test_after_a_failed_sync_nothing_is_added_to_the_file(
    log: FileAuditLog, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel forgets what a failed sync did not write, so a later success proves nothing."""
    write(log, "before")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing(errno.EIO))
        assert refused(log) == "audit log: EIO"
        assert not is_serving(log)

    wait_until_serving(log)
    write(log, "after")

    assert b"after" not in (directory / FIRST).read_bytes()
    assert recorded(directory) == ["before", "after"]
    assert verify_directory(directory).is_intact


@pytest.mark.requirement("R-30")
def test_what_the_disk_does_not_let_go_is_declared_no_part_of_the_chain(
    log: FileAuditLog, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(log, "before")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing(errno.EIO))
        patch.setattr(os, "ftruncate", failing(errno.EIO))
        assert not try_to_write(log, "refused")
        assert b"refused" in (directory / FIRST).read_bytes()
        wait_until_probed(log)

    wait_until_serving(log)
    write(log, "after")
    log.close()

    (chain,) = verify_directory(directory).chains
    assert chain.fault is None
    assert chain.torn_bytes > 100
    assert recorded(directory) == ["before", "after"]


def wait_until_probed(
    log: FileAuditLog, look: Callable[[], Sequence[str]] = tuple
) -> Sequence[str]:
    """What there is to see right after a recovery was tried, in vain."""
    probed, seen = threading.Event(), []
    attempt = log._commit._reopen

    def watched(cause: str) -> None:
        attempt(cause)
        seen.append(look())
        probed.set()

    log._commit._reopen = watched  # type: ignore[method-assign] # The test only listens.
    assert probed.wait(60)
    log._commit._reopen = attempt  # type: ignore[method-assign] # As it was before.
    return seen[0]


def names_in(directory: Path) -> list[str]:
    """The segments that are there."""
    return sorted(path.name for path in directory.glob("*.jsonl"))


def test_a_beginning_that_fails_leaves_no_file_behind(
    log: FileAuditLog, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing(errno.ENOSPC))
        assert not try_to_write(log, "refused")
        wait_until_probed(log)
        # Looked at by the thread that tries: it may be at the next attempt at any moment after.
        assert wait_until_probed(log, lambda: names_in(directory)) == [FIRST]

    wait_until_serving(log)
    assert names_in(directory) == [FIRST, SECOND]


def test_a_failure_that_is_no_disk_error_closes_the_log_too(
    log: FileAuditLog, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("broker.audit.disk.link", failing_with_memory_error)
        assert refused(log) == "audit log: MemoryError"
        wait_until_probed(log)

    wait_until_serving(log)
    write(log, "after")
    assert recorded(directory) == ["after"]
    assert verify_directory(directory).is_intact


def failing_with_memory_error(*_arguments: object, **_more: object) -> None:
    raise MemoryError


@pytest.mark.requirement("R-31")
def test_a_sync_that_hangs_refuses_in_time_and_then_at_once(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(directory, write_timeout=0.5)
    gate, sync = threading.Event(), os.fdatasync

    def hanging_sync(descriptor: int) -> None:
        gate.wait(60)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", hanging_sync)
    assert refused(log) == "audit log: the write takes too long"
    # The thread that writes may have begun a moment after the one that waits.
    until(lambda: not is_serving(log), seconds=30, what="it serves nobody")
    started = time.monotonic()
    for _ in range(20):
        assert refused(log) == "audit log: the write takes too long"
    assert time.monotonic() - started < 0.5 * 10, "those who come later do not wait again"

    log._commit._timeout = 30.0
    gate.set()
    wait_until_serving(log)
    write(log, "after")
    log.close()

    assert recorded(directory) == ["refused", "after"], "the record came late; no token left"
    assert verify_directory(directory).is_intact


@pytest.mark.requirement("R-31")
def test_only_so_many_records_wait(log: FileAuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, begun, sync = threading.Event(), threading.Event(), os.fdatasync

    def held_sync(descriptor: int) -> None:
        begun.set()
        gate.wait(60)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", held_sync)
    monkeypatch.setattr(commit, "_MOST_WAITING", 3)
    threads = [threading.Thread(target=write, args=(log, f"req-{number}")) for number in range(4)]
    threads[0].start()
    assert begun.wait(60)
    for thread in threads[1:]:
        thread.start()
    while log._commit._queue.qsize() < 3:
        threading.Event().wait(0.001)

    assert refused(log) == "audit log: too many records are waiting"

    gate.set()
    for thread in threads:
        thread.join()
    write(log, "after")


def test_all_who_wait_are_refused_together(
    log: FileAuditLog, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, begun = threading.Event(), threading.Event()

    def sync_that_fails(_descriptor: int) -> None:
        begun.set()
        gate.wait(60)
        raise OSError(errno.EIO, "input/output error")

    answered: list[bool] = []

    def request(number: int) -> None:
        answered.append(try_to_write(log, f"req-{number}"))

    threads = [threading.Thread(target=request, args=(number,)) for number in range(8)]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", sync_that_fails)
        threads[0].start()
        assert begun.wait(60)
        for thread in threads[1:]:
            thread.start()
        while log._commit._queue.qsize() < 7:
            threading.Event().wait(0.001)
        gate.set()
        for thread in threads:
            thread.join()

    assert answered == [False] * 8
    wait_until_serving(log)
    assert recorded(directory) == []
    assert NOW > 0
