"""The supervisor, with real processes: who lives, who dies, and in which order."""

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.supervisor import ChildSpec, Supervisor

PROGRAM = Path(__file__).with_name("program.py")
ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


_Judging = Callable[[dict[str, Any]], bool]


class Broker:
    """A running program, and what its processes tell on their shared standard output."""

    def __init__(self, scenario: str, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), scenario, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.pid = self.process.pid
        self._unread = b""
        self.told: list[dict[str, Any]] = []
        self._kept: list[dict[str, Any]] = []
        self._log: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._logged: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read_log)
        self._reader.start()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._log.put(line)
        self._log.put(None)

    def expect(self, worker: str, event: str) -> dict[str, Any]:
        """
        The next line in which this worker tells this, read past its others.

        What other workers tell meanwhile is kept for whoever asks for it: which of them is first is chance.
        """
        return self._expect(
            lambda line: (line["worker"], line["event"]) == (worker, event),
            passing=lambda line: line["worker"] == worker,
        )

    def expect_any(self, event: str) -> dict[str, Any]:
        """The next line in which any worker tells this."""
        return self._expect(lambda line: line["event"] == event, passing=lambda _: True)

    def _expect(self, is_it: _Judging, *, passing: _Judging) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for line in filter(passing, list(self._kept)):
                self._kept.remove(line)
                if is_it(line):
                    return line
            self._kept.append(self._line(deadline))
            self.told.append(self._kept[-1])
        pytest.fail(f"it was never told: {self.told}")

    def _line(self, deadline: float) -> dict[str, Any]:
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        while b"\n" not in self._unread:
            ready, _, _ = select.select([descriptor], [], [], max(0, deadline - time.monotonic()))
            read = os.read(descriptor, 65536) if ready else b""
            assert read, f"nothing more was told: {self.told}, {self.log()}"
            self._unread += read
        line, self._unread = self._unread.split(b"\n", 1)
        told: dict[str, Any] = json.loads(line)
        return told

    def rest(self) -> list[dict[str, Any]]:
        """Everything told until all processes that could tell are gone."""
        assert self.process.stdout is not None
        lines = (self._unread + self.process.stdout.read()).splitlines()
        return [json.loads(line) for line in lines]

    def send(self, signum: signal.Signals) -> None:
        os.kill(self.pid, signum)

    def end(self) -> int:
        return self.process.wait(PATIENCE)

    def log(self, until: str = "") -> list[dict[str, Any]]:
        """The operational log, up to this event, or until the last process is gone."""
        while line := self._log.get(timeout=PATIENCE):
            self._logged.append(json.loads(line))
            if self._logged[-1]["event"] == until:
                break
        return self._logged

    def close(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


Start = Callable[[str], Broker]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def begin(scenario: str) -> Broker:
            broker = Broker(scenario, tmp_path)
            stack.callback(broker.close)
            return broker

        yield begin


@contextlib.contextmanager
def watched(*pids: int) -> Iterator[Callable[[], bool]]:
    """A question whether all these processes are gone, waiting for it as long as is reasonable."""
    descriptors = [os.pidfd_open(pid) for pid in pids]

    def are_gone() -> bool:
        return all(select.select([one], [], [], PATIENCE)[0] for one in descriptors)

    try:
        yield are_gone
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


@pytest.mark.requirement("R-23")
def test_a_child_that_is_killed_is_started_again_and_the_others_live_on(start: Start) -> None:
    broker = start("steady")
    first = broker.expect("grpc", "up")
    other = broker.expect("control", "up")

    os.kill(first["pid"], signal.SIGKILL)
    second = broker.expect("grpc", "up")
    broker.send(signal.SIGTERM)

    assert second["pid"] != first["pid"]
    assert broker.expect("control", "asked")["pid"] == other["pid"]
    assert broker.end() == 0
    died = [entry for entry in broker.log() if entry["event"] == "worker_died"]
    assert [(entry["worker"], entry["end"]) for entry in died] == [("grpc", "SIGKILL")]


@pytest.mark.requirement("R-24")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_readiness_goes_down_first_and_the_process_that_tells_it_stops_last(
    start: Start, signum: signal.Signals
) -> None:
    broker = start("steady")
    broker.expect("control", "up")

    broker.send(signum)

    assert broker.end() == 0
    told = [line for line in broker.rest() if line["event"] == "asked"]
    assert [line["draining"] for line in told] == [True, True, True]
    assert {line["worker"] for line in told[:2]} == {"grpc", "http"}
    assert told[2]["worker"] == "control"


@pytest.mark.requirement("R-24")
def test_nothing_is_asked_to_stop_before_load_balancers_could_look_elsewhere(start: Start) -> None:
    broker = start("drain")
    broker.expect("grpc", "up")
    broker.expect("control", "up")

    broker.send(signal.SIGTERM)

    asked = broker.expect("grpc", "asked")
    assert asked["draining"]
    assert broker.end() == 0
    at = moments(broker.log())
    assert (at["worker_stopped"] - at["stopping"]).total_seconds() > 0.4


def moments(log: list[dict[str, Any]]) -> dict[str, datetime]:
    """When each event happened first."""
    return {entry["event"]: datetime.fromisoformat(entry["timestamp"]) for entry in reversed(log)}


def test_the_order_to_stop_reaches_whichever_thread_waits_for_it(start: Start) -> None:
    broker = start("thread")
    broker.expect("grpc", "up")

    broker.send(signal.SIGTERM)

    broker.expect("grpc", "asked")
    assert broker.end() == 0


@pytest.mark.requirement("R-25")
@pytest.mark.parametrize("scenario", ["hang", "all hang"])
def test_a_child_that_hangs_is_killed_when_the_grace_is_over(start: Start, scenario: str) -> None:
    broker = start(scenario)
    hung = broker.expect("grpc", "up")
    broker.expect("control", "up")

    with watched(hung["pid"]) as are_gone:
        broker.send(signal.SIGTERM)
        assert broker.end() == 0
        assert are_gone()

    # The grace is one second, by the clock of whoever waits for it; the rest is what a busy machine may take.
    at = moments(broker.log())
    assert 0.5 < (at["worker_killed"] - at["stopping"]).total_seconds() < 30


def test_a_second_ctrl_c_ends_the_waiting(start: Start) -> None:
    """The grace is ten minutes here."""
    broker = start("hang for long")
    broker.expect("grpc", "up")
    broker.expect("control", "up")

    broker.send(signal.SIGINT)
    broker.log(until="stopping")
    broker.send(signal.SIGINT)

    assert broker.end() == 0


def test_ctrl_c_in_a_terminal_reaches_the_supervisor_alone(start: Start) -> None:
    """A terminal signals the whole foreground group, which would upset the order of the stop."""
    broker = start("steady")

    up = broker.expect("grpc", "up")

    assert up["group"] == up["pid"] != os.getpgid(broker.pid)


@pytest.mark.requirement("R-23")
@pytest.mark.parametrize("scenario", ["steady", "pipe", "forking"])
def test_children_do_not_outlive_a_supervisor_that_is_killed(start: Start, scenario: str) -> None:
    broker = start(scenario)
    pids = [broker.expect_any("up")["pid"] for _ in range(3 if scenario == "steady" else 2)]

    with watched(*pids) as are_gone:
        broker.send(signal.SIGKILL)

        assert are_gone()


@pytest.mark.requirement("R-23")
def test_what_a_killed_child_had_forked_does_not_serve_on(start: Start) -> None:
    """A server's own worker would share the port with its successor, and nobody could stop it."""
    broker = start("forking")
    forked = broker.expect("http", "up")

    with watched(forked["pid"]) as are_gone:
        os.kill(forked["parent"], signal.SIGKILL)

        assert are_gone()
    assert broker.expect("http", "up")["parent"] != forked["parent"]


def test_a_child_that_never_comes_up_ends_the_broker_with_one_clear_line(start: Start) -> None:
    broker = start("crash")

    assert broker.end() == 1
    assert len([line for line in broker.rest() if line["worker"] == "grpc"]) == 4
    last = broker.log()[-1]
    assert last["level"] == "critical"
    assert last["reason"] == "The grpc process failed 4 times in a row at start."
    assert last["end"] == "exit status 3"


def test_a_child_that_ends_unasked_has_failed_even_without_an_error(start: Start) -> None:
    broker = start("return")

    assert broker.end() == 1
    assert broker.log()[-1]["end"] == "exit status 0"


@pytest.mark.requirement("LOG-01")
def test_an_error_in_a_child_is_logged_without_its_secrets(start: Start) -> None:
    broker = start("secret")

    assert broker.end() == 1
    failed = [entry for entry in broker.log() if entry["event"] == "worker_failed"]
    assert "RuntimeError: [vault token]" in failed[0]["exception"]


def test_a_child_that_was_steady_once_is_tried_for_ever(start: Start) -> None:
    broker = start("steady first")

    lives = [broker.expect("grpc", "up")["pid"] for _ in range(8)]
    broker.send(signal.SIGTERM)

    assert len(set(lives)) == 8
    assert broker.end() == 0


def test_as_first_process_of_a_container_it_reaps_what_falls_to_it(start: Start) -> None:
    broker = start("orphan")
    orphan = broker.expect("orphan", "up")
    assert broker.process.stdin is not None

    with watched(orphan["pid"]) as are_gone:
        broker.process.stdin.close()
        assert are_gone()
    broker.send(signal.SIGTERM)

    assert broker.end() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(orphan["pid"], 0)


@pytest.mark.requirement("R-27")
def test_after_a_storm_of_reload_orders_all_workers_stand_at_the_same(start: Start) -> None:
    """The kernel merges signals that come faster than they are taken; workers merge the orders."""
    broker = start("reload")
    for _ in range(3):
        broker.expect_any("up")

    for _ in range(100):
        broker.send(signal.SIGHUP)
    broker.send(signal.SIGTERM)

    assert broker.end() == 0
    told = broker.told + broker.rest()
    final = {line["worker"]: line["generation"] for line in told if line["event"] == "ended"}
    assert final.keys() == {"grpc", "http", "control"}
    assert len(set(final.values())) == 1
    assert 1 <= final["grpc"] <= 100
    for name in final:
        seen = [
            one["generation"] for one in told if (one["worker"], one["event"]) == (name, "reload")
        ]
        assert seen == sorted(set(seen))


@pytest.mark.requirement("R-27")
def test_a_worker_that_starts_after_a_reload_begins_with_what_was_accepted(start: Start) -> None:
    """It has nothing left to read, so it cannot be misled by what the files have become."""
    broker = start("reload")
    first = broker.expect("grpc", "starts")
    assert (first["loaded"], first["first"]) == ("at first", 0)
    broker.send(signal.SIGHUP)
    told = broker.expect("grpc", "reload")
    assert told["in_force"] == "load 1"

    os.kill(told["pid"], signal.SIGKILL)

    second = broker.expect("grpc", "starts")
    assert second["pid"] != told["pid"]
    assert (second["loaded"], second["first"]) == ("load 1", 1)
    broker.send(signal.SIGTERM)
    assert not [
        line for line in broker.rest() if (line["pid"], line["event"]) == (second["pid"], "reload")
    ]


@pytest.mark.requirement("R-27")
def test_a_reload_is_carried_out_for_those_who_are_served_while_the_broker_stops(
    start: Start,
) -> None:
    broker = start("drain for long")
    broker.expect("grpc", "up")
    broker.expect("control", "up")
    broker.send(signal.SIGTERM)
    broker.expect("grpc", "drain")

    broker.send(signal.SIGHUP)

    assert broker.expect("grpc", "reload")["in_force"] == "load 1"
    # Who waits no longer presses Ctrl-C.
    broker.send(signal.SIGINT)
    assert broker.end() == 0


def test_it_refuses_to_fork_beside_a_thread() -> None:
    """A fork copies one thread only, and whatever lock another held stays locked for ever."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()

    with pytest.raises(RuntimeError, match="before any thread"):
        Supervisor([ChildSpec("grpc", lambda _: None)], grace=timedelta(seconds=1)).run()

    done.set()
    thread.join()
