"""Where a sink is required, nothing is answered before it has the record too."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.audit.log import FileAuditLog
from broker.audit.reader import verify_directory
from broker.audit.sinks.collector import Collector
from broker.audit.sinks.destination import Sink, SinkFailed
from broker.audit.sinks.positions import reached_path, read_reached
from broker.audit.sinks.shipper import Shipped
from broker.errors import Reason, TemporarilyUnavailable
from tests.audit.disks import fill, small_disk
from tests.audit.requests import (
    NOW,
    is_serving,
    try_to_write,
    wait_until_serving,
    write,
    write_group,
)
from tests.audit.sinks.collecting import (
    CollectorServer,
    Memory,
    accept,
    closing,
    hang,
    lines_of,
    refuse,
    seconds_for,
    shipping,
    take_and_reset,
)
from tests.e2e.patience import until

Open = Callable[..., FileAuditLog]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.audit.commit._PROBE_INTERVAL", 0.02)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def open_log(directory: Path) -> Iterator[Open]:
    opened = []

    def open_with(
        *sinks: Sink, timeout: float = 30.0, segment_bytes: int = 1 << 26
    ) -> FileAuditLog:
        log = FileAuditLog(
            directory,
            writer="w1",
            now=lambda: NOW,
            write_timeout=timeout,
            segment_bytes=segment_bytes,
            required=sinks,
        )
        opened.append(log)
        return log

    yield open_with
    for log in opened:
        log.close()


def refused(log: FileAuditLog, event_id: str = "refused") -> str:
    """The detail with which a request is refused, if it is."""
    with pytest.raises(TemporarilyUnavailable) as caught:
        write(log, event_id)
    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
    return caught.value.detail


def have_seconds(log: FileAuditLog, seconds: float) -> None:
    """Let every write, and what the sinks take of it, last so long from now on."""
    log._commit._timeout = log._commit._sinks._timeout = seconds  # type: ignore[union-attr] # There are some.


@pytest.mark.requirement("P-A")
def test_a_sink_has_each_line_of_the_files_once_and_in_order(
    open_log: Open, memory: Memory, directory: Path
) -> None:
    log = open_log(memory.sink(), segment_bytes=3_000)
    for number in range(20):
        write(log, f"req-{number}")
        assert f'"req-{number}"'.encode() in b"".join(memory.lines[-3:])
    write_group(log, "group", parts=16)
    log.close()

    assert memory.lines == lines_of(directory)
    assert len(list(directory.glob("w1.*.jsonl"))) > 2
    assert verify_directory(directory).is_intact


def test_nothing_is_given_to_a_sink_that_the_disk_does_not_have(
    tmp_path: Path, memory: Memory
) -> None:
    with small_disk(tmp_path / "disk", kibibytes=256) as disk:
        log = FileAuditLog(
            disk / "a", writer="w1", now=lambda: NOW, required=[memory.sink()], write_timeout=30.0
        )
        write(log, "before")
        filler = fill(disk)
        while try_to_write(log, "during"):
            pass
        assert not is_serving(log)
        assert memory.lines == lines_of(disk / "a")
        filler.unlink()
        wait_until_serving(log)
        write(log, "after")
        log.close()

        assert memory.lines == lines_of(disk / "a")


@pytest.mark.requirement("P-A")
def test_while_a_sink_fails_nothing_is_answered_and_then_it_has_everything(
    open_log: Open, memory: Memory, directory: Path
) -> None:
    log = open_log(memory.sink())
    write(log, "before")
    memory.failure = SinkFailed("status 500")

    assert refused(log, "first") == "audit log: sink memory: status 500"
    assert not is_serving(log)
    for number in range(100):
        assert refused(log, f"later-{number}") == "audit log: sink memory: status 500"
    assert len(lines_of(directory)) == 3, "what comes later is not even written"
    until(lambda: memory.attempts > 5, seconds=30, what="it is tried again by itself")

    memory.failure = None
    wait_until_serving(log)
    write(log, "after")

    assert memory.lines == lines_of(directory)
    assert b"first" in memory.lines[2]
    assert verify_directory(directory).is_intact


def test_a_sink_that_is_away_at_the_start_keeps_the_log_closed_until_it_is_there(
    open_log: Open, memory: Memory, directory: Path
) -> None:
    memory.failure = SinkFailed("fetch_failed")
    log = open_log(memory.sink())

    assert not is_serving(log)
    assert not try_to_write(log, "early")
    memory.failure = None
    wait_until_serving(log)
    write(log, "after")

    assert memory.lines == lines_of(directory)


def test_all_sinks_must_take_a_record_and_each_gets_it_once(
    open_log: Open, directory: Path
) -> None:
    good, bad = Memory(), Memory()
    log = open_log(good.sink("good"), bad.sink("bad"))
    write(log, "before")
    bad.failure = SinkFailed("status 503")

    assert refused(log, "first") == "audit log: sink bad: status 503"
    bad.failure = None
    wait_until_serving(log)

    assert good.lines == bad.lines == lines_of(directory)


@pytest.mark.requirement("R-31")
def test_a_collector_that_hangs_refuses_in_time_and_then_at_once(
    open_log: Open, directory: Path
) -> None:
    server, gate = CollectorServer(), threading.Event()
    with closing(server):
        log = open_log(Sink("http", Collector(server.url)))
        write(log, "before")
        server.scripts += [hang(gate)] * 1000
        have_seconds(log, 0.5)

        assert seconds_for(lambda: refused(log)) < 20
        assert seconds_for(lambda: [refused(log) for _ in range(20)]) < 5
        until(lambda: log._commit._failure, seconds=30, what="what hung has failed")
        have_seconds(log, 30.0)
        server.scripts.clear()
        gate.set()
        wait_until_serving(log)
        write(log, "after")

        # What was under way when there was more time may have been taken and not heard of.
        assert list(dict.fromkeys(server.lines)) == lines_of(directory)
        log.close()


def test_a_lost_answer_means_twice_and_never_less(open_log: Open, directory: Path) -> None:
    server = CollectorServer()
    with closing(server):
        log = open_log(Sink("http", Collector(server.url)))
        server.scripts += [accept, take_and_reset, accept]
        write(log, "before", "again")
        assert try_to_write(log, "next") in {True, False}
        wait_until_serving(log)
        log.close()

        assert list(dict.fromkeys(server.lines)) == lines_of(directory)
        assert len(server.lines) > len(lines_of(directory))


def test_a_collector_that_wants_to_be_left_alone_is_and_yet_not_for_long(
    open_log: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.audit.sinks.required._LONGEST_PAUSE", 0.5)
    server = CollectorServer()
    with closing(server):
        log = open_log(Sink("http", Collector(server.url)))
        write(log, "before")
        count = len(server.requests)
        server.scripts.append(refuse(429, Retry_After="3600"))

        started = time.monotonic()
        assert refused(log) == "audit log: sink http: status 429"
        wait_until_serving(log)
        assert 0.4 < time.monotonic() - started < 60
        assert len(server.requests) == count + 2
        log.close()


def test_a_batch_that_is_too_large_is_given_in_parts(open_log: Open, directory: Path) -> None:
    server = CollectorServer()
    with closing(server):
        log = open_log(Sink("http", Collector(server.url)))
        server.scripts += [refuse(413), refuse(413)]
        assert not try_to_write(log, "group", parts=16)
        wait_until_serving(log)
        log.close()

        assert server.lines == lines_of(directory)


def test_one_batch_serves_all_who_wait(open_log: Open, memory: Memory) -> None:
    gate, begun = threading.Event(), threading.Event()
    take = memory.take

    def held(lines: list[bytes], deadline: object) -> None:
        begun.set()
        gate.wait(60)
        take(lines, deadline)  # type: ignore[arg-type] # It is passed on as it came.

    log = open_log(memory.sink())
    memory.take = held  # type: ignore[method-assign,assignment] # The test holds it up.
    threads = [threading.Thread(target=write, args=(log, f"req-{n}")) for n in range(20)]
    threads[0].start()
    assert begun.wait(60)
    for thread in threads[1:]:
        thread.start()
    until(lambda: log._commit._queue.qsize() == 19, seconds=30, what="all wait")
    gate.set()
    for thread in threads:
        thread.join()

    assert memory.sizes == [1, 1, 19]


@pytest.mark.requirement("R-31")
def test_what_waits_for_a_sink_does_not_grow(open_log: Open, memory: Memory) -> None:
    log = open_log(memory.sink())
    memory.failure = SinkFailed("away")
    for number in range(500):
        assert not try_to_write(log, f"req-{number}")

    (way,) = log._commit._sinks._ways  # type: ignore[union-attr] # There is one.
    assert len(way._waiting) == 1


@pytest.mark.requirement("R-33")
def test_what_a_writer_that_was_killed_could_not_deliver_is_shipped(
    open_log: Open, memory: Memory, directory: Path
) -> None:
    log = open_log(memory.sink())
    write(log, "before")
    memory.failure = SinkFailed("away")
    assert not try_to_write(log, "left behind")
    log.close()
    delivered = read_reached(reached_path(directory, sink="memory", writer="w1", by="writer"))
    assert delivered is not None
    assert (delivered.since, delivered.position.head.seq) == (0, 2)
    memory.failure = None
    write(open_log(memory.sink()), "of another run")

    with shipping(directory, Shipped(memory.sink(), is_required=True)) as shipper:
        until(lambda: set(lines_of(directory)) <= set(memory.lines), seconds=30, what="shipped")
        until(lambda: not any(shipper.backlogs().values()), seconds=30, what="nothing is left")


def test_what_its_writer_delivers_is_not_shipped_again(
    open_log: Open, memory: Memory, directory: Path
) -> None:
    log = open_log(memory.sink())
    with shipping(directory, Shipped(memory.sink(), is_required=True), patience=30) as shipper:
        for number in range(50):
            write(log, f"req-{number}")
        until(lambda: shipper.backlogs() == {"memory": 0}, seconds=30, what="all is seen")
    log.close()

    assert memory.lines == lines_of(directory)
    assert (directory / "sinks" / "memory.w1.shipper").exists()
