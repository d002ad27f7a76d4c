"""Whatever becomes of a sink or of the shipper, every record of the files arrives there."""

import threading
import time
from pathlib import Path

import pytest
import structlog

from broker.audit.sinks import shipper as shipper_module
from broker.audit.sinks.collector import Collector
from broker.audit.sinks.destination import Sink, SinkFailed
from broker.audit.sinks.positions import ReachedFile, reached_path, read_reached
from broker.audit.sinks.shipper import Shipped, Shipper
from tests.audit.chains import write_chain
from tests.audit.requests import open_log, wait_until_serving, write
from tests.audit.sinks.collecting import (
    CollectorServer,
    Memory,
    closing,
    hang,
    lines_of,
    refuse,
    reset,
    seconds_for,
    shipping,
    take_and_reset,
)
from tests.e2e.patience import until


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipper_module, "_LONGEST_WAIT", 0.05)
    monkeypatch.setattr(shipper_module, "_LONGEST_PAUSE", 0.1)


def has_all(memory: Memory, directory: Path, *writers: str) -> bool:
    every = [line for writer in writers or ("w1",) for line in lines_of(directory, writer)]
    return set(every) <= set(memory.lines)


def test_a_new_sink_gets_all_that_there_is_and_then_what_comes(directory: Path) -> None:
    write_chain(directory, count=40)
    write_chain(directory, writer="w2", count=5)
    memory = Memory()
    log = open_log(directory, writer="w3")
    with shipping(directory, Shipped(memory.sink())) as shipper:
        until(lambda: has_all(memory, directory, "w1", "w2", "w3"), seconds=30, what="all shipped")
        write(log, "now")
        until(lambda: b'"now"' in memory.lines[-1], seconds=30, what="the next shipped")
        until(lambda: shipper.backlogs() == {"memory": 0}, seconds=30, what="none are left")
        shipper.check()
    log.close()
    assert len(memory.lines) == len(set(memory.lines))
    for writer in ("w1", "w2"):
        own = [line for line in memory.lines if f'"writer":"{writer}"'.encode() in line]
        assert own == lines_of(directory, writer), "in order"


@pytest.mark.requirement("R-33")
def test_a_shipper_that_starts_again_goes_on_where_it_was(directory: Path) -> None:
    memory = Memory()
    for number in range(3):
        write_chain(directory, writer=f"w{number}", count=20)
        with shipping(directory, Shipped(memory.sink())):
            until(
                lambda: has_all(memory, directory, *(f"w{one}" for one in range(number + 1))),  # noqa: B023 - asked at once.
                seconds=30,
                what="all shipped",
            )

    assert len(memory.lines) == len(set(memory.lines))


@pytest.mark.requirement("R-33")
@pytest.mark.parametrize("content", [b"", b"garbage", b"0" * 156])
def test_a_position_that_is_lost_or_damaged_means_twice_and_never_less(
    directory: Path, content: bytes
) -> None:
    write_chain(directory, count=20)
    memory = Memory()
    with shipping(directory, Shipped(memory.sink())):
        until(lambda: has_all(memory, directory), seconds=30, what="all shipped")
    reached_path(directory, sink="memory", writer="w1", by="shipper").write_bytes(content)
    memory.lines.clear()

    with shipping(directory, Shipped(memory.sink())):
        until(lambda: has_all(memory, directory), seconds=30, what="all shipped again")


@pytest.mark.requirement("R-33")
def test_after_any_outage_of_the_collector_nothing_is_missing(directory: Path) -> None:
    server, gate = CollectorServer(), threading.Event()
    gate.set()
    faults = [
        refuse(500), reset, take_and_reset, refuse(429, Retry_After="9"), hang(gate), refuse(413),
        refuse(307, Location="http://127.0.0.1:1/"), refuse(503),
    ]  # fmt: skip
    log = open_log(directory)
    with closing(server, log):
        server.scripts += [one for _ in range(3) for one in faults]
        with shipping(directory, Shipped(Sink("http", Collector(server.url)))) as shipper:
            for number in range(60):
                write(log, f"req-{number}")
                time.sleep(0.005)
            until(
                lambda: set(lines_of(directory)) <= set(server.lines),
                seconds=30,
                what="all arrived",
            )
            until(lambda: shipper.backlogs() == {"http": 0}, seconds=30, what="none are left")


@pytest.mark.requirement("R-33")
def test_while_a_sink_is_away_the_backlog_is_told_and_memory_does_not_grow(
    directory: Path,
) -> None:
    memory = Memory()
    memory.failure = SinkFailed("fetch_failed: ConnectionRefusedError")
    with structlog.testing.capture_logs() as told:
        log = open_log(directory)
        with shipping(directory, Shipped(memory.sink())) as shipper:
            write(log, *map(str, range(300)))
            until(lambda: memory.attempts > 3, seconds=30, what="it is tried")
            assert shipper.backlogs() == {"memory": 301}
            shipper.check()
            memory.failure = None
            until(lambda: has_all(memory, directory), seconds=30, what="all shipped")
        log.close()

    events = [one["event"] for one in told]
    assert events == ["audit_sink_failed", "audit_sink_works_again"]
    assert told[0]["reason"] == "fetch_failed: ConnectionRefusedError"


@pytest.mark.requirement("R-31")
def test_one_sink_that_hangs_holds_up_no_other_and_not_the_end(directory: Path) -> None:
    write_chain(directory, count=10)
    server, gate, memory = CollectorServer(), threading.Event(), Memory()
    server.scripts += [hang(gate)] * 50
    with closing(server):
        shipper = Shipper(
            directory,
            [Shipped(Sink("http", Collector(server.url))), Shipped(memory.sink())],
            timeout=0.3,
            interval=0.02,
        )
        shipper.begin()
        until(lambda: has_all(memory, directory), seconds=30, what="the other has all")
        assert shipper.backlogs()["http"] > 0
        assert seconds_for(shipper.close) < 20
        gate.set()


def test_what_is_written_last_is_shipped_at_the_end(directory: Path) -> None:
    memory = Memory()
    log = open_log(directory)
    shipper = Shipper(directory, [Shipped(memory.sink())], interval=60)
    shipper.begin()
    write(log, "last")
    log.close()

    shipper.close(within=60)

    assert memory.lines == lines_of(directory)


@pytest.mark.requirement("R-32")
@pytest.mark.parametrize("how", ["deleted", "renamed", "cut", "changed"])
def test_after_a_gap_in_a_chain_what_comes_later_is_shipped(directory: Path, how: str) -> None:
    memory = Memory()
    log = open_log(directory)
    with structlog.testing.capture_logs() as told, shipping(directory, Shipped(memory.sink())):
        write(log, "before")
        until(lambda: has_all(memory, directory), seconds=30, what="what was before is shipped")
        segment = directory / "w1.000001.jsonl"
        if how == "deleted":
            segment.unlink()
        elif how == "renamed":
            segment.rename(directory / "w1.000001.jsonl.1")
        elif how == "cut":
            segment.write_bytes(b"")
        else:
            segment.write_bytes(segment.read_bytes() + b"not ours\n")
        with pytest.raises(Exception, match="audit"):
            write(log, "during")
        wait_until_serving(log)
        write(log, "after")
        until(lambda: b'"after"' in memory.lines[-1], seconds=30, what="what is after is shipped")
    log.close()

    ids = [line for line in memory.lines if b"during" in line]
    assert ids == [], "what nobody was answered for is in no file, and in no sink"
    assert len([one for one in told if one["event"] == "audit_sink_gap"]) <= 1


def test_segments_that_were_taken_away_before_are_passed_over_once(directory: Path) -> None:
    write_chain(directory, count=40)
    first, *_, last = sorted(directory.glob("w1.*.jsonl"))
    first.unlink()
    memory = Memory()
    with structlog.testing.capture_logs() as told, shipping(directory, Shipped(memory.sink())):
        until(lambda: has_all(memory, directory), seconds=30, what="the rest is shipped")

    assert memory.lines == lines_of(directory)
    assert [one["event"] for one in told] == ["audit_sink_gap"]
    assert (told[0]["from_seq"], told[0]["chain"]) == (0, "w1")
    assert last.exists()


def test_a_directory_that_is_not_there_yet_is_waited_for(directory: Path) -> None:
    memory = Memory()
    with shipping(directory, Shipped(memory.sink())) as shipper:
        assert shipper.backlogs() == {"memory": 0}
        write_chain(directory, count=3)
        until(lambda: has_all(memory, directory), seconds=30, what="all shipped")


def test_a_fault_of_ours_does_not_end_the_shipping(directory: Path) -> None:
    class Broken(Memory):
        def take(self, lines: object, deadline: object) -> None:
            if self.attempts < 2:
                self.attempts += 1
                raise ZeroDivisionError
            super().take(lines, deadline)  # type: ignore[arg-type] # As they came.

    write_chain(directory, count=10)
    memory = Broken()
    with structlog.testing.capture_logs() as told, shipping(directory, Shipped(memory.sink())):
        until(lambda: has_all(memory, directory), seconds=30, what="all shipped")

    assert [one["event"] for one in told] == ["audit_sink_route_failed"] * 2


def test_parts_are_bounded_in_lines_and_bytes(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.audit.sinks.delivery.MOST_BYTES", 5_000)
    write_chain(directory, count=200, segment_bytes=1 << 20)
    memory = Memory()
    with shipping(directory, Shipped(memory.sink())):
        until(lambda: has_all(memory, directory), seconds=30, what="all shipped")

    assert max(memory.sizes) < 25
    assert memory.lines == lines_of(directory)


def test_a_shipper_whose_thread_is_gone_says_so(directory: Path) -> None:
    shipper = Shipper(directory, [Shipped(Memory().sink())])

    with pytest.raises(Exception, match="temporarily_unavailable"):
        shipper.check()

    shipper.close()
    assert not (directory / "sinks").exists()


def test_a_position_is_read_as_it_was_told(directory: Path) -> None:
    write_chain(directory, count=10)
    memory = Memory()
    with shipping(directory, Shipped(memory.sink())):
        until(lambda: has_all(memory, directory), seconds=30, what="all shipped")
    path = reached_path(directory, sink="memory", writer="w1", by="shipper")
    found = read_reached(path)
    assert found is not None

    file = ReachedFile(directory / "other")
    file.tell(found)
    file.close()
    file.close()

    assert read_reached(directory / "other") == found
    assert (directory / "other").stat().st_mode & 0o777 == 0o600
    assert found.position.head.seq == len(lines_of(directory))
