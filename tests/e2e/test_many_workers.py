"""Two workers of each face: one of each dies, all are told, and one page answers for all of them."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.load import Call, unserved
from tests.e2e.patience import until
from tests.e2e.reloading import Operator, groups, reloadable
from tests.e2e.rotating import SHORT, TOKENS, keys
from tests.e2e.running import RunningBroker
from tests.e2e.setting import exchange
from tests.e2e.wires import NoAnswer, Wire, decision_id, settled, wire
from tests.harness import Answer, decode_header

WORKERS: Final = frozenset({"grpc-0", "grpc-1", "http-0", "http-1"})
KILLED: Final = frozenset({"grpc-0", "http-0"})
MOST_WIRES: Final = 64
SECONDS: Final = 30.0

_COUNTED: Final = re.compile(
    r'^broker_requests_total\{[^}]*event="token\.issue"[^}]*\} (\S+)$', re.MULTILINE
)

Wires = Mapping[str, Wire]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """A ready broker of four workers, whose policies and keys are its own."""
    directory = tmp_path_factory.mktemp("many")
    store = {"store": "dev", "dev": {"directory": str(directory / "keys")}, **SHORT}
    workers = {"grpc": 2, "http": 2}
    with reloadable(directory, workers=workers, tokens=TOKENS, keys=store) as broker:
        yield broker


@pytest.fixture
def wires(broker: RunningBroker) -> Iterator[Wires]:
    """A connection to each worker. The kernel spreads them, so some are opened until all have one."""
    with ExitStack() as stack:
        found: dict[str, Wire] = {}
        for number in range(MOST_WIRES):
            one = stack.enter_context(wire(("http", "grpc")[number % 2], broker.setting))
            found.setdefault(writer_of(broker, ask(broker, one)), one)
            if len(found) == len(WORKERS):
                break
        assert found.keys() == WORKERS
        yield found


def ask(broker: RunningBroker, one: Wire) -> Answer:
    """An exchange on this connection."""
    return settled(one, lambda: exchange(broker.setting))


def is_told(broker: RunningBroker, one: Wire, is_permitted: bool) -> bool:  # noqa: FBT001
    """Whether an exchange on this connection ends as it should by now."""
    return ask(broker, one).is_granted is is_permitted


def writer_of(broker: RunningBroker, answer: Answer) -> str:
    """The worker that gave an answer, by its record."""
    decision = decision_id(answer)
    (record,) = (one for one in broker.records() if one["event_id"] == decision)
    return str(record["writer"])


class Caller:
    """Calls on one connection until it is told to stop, and counts what comes of it."""

    def __init__(self, broker: RunningBroker, one: Wire) -> None:
        self.granted = 0
        self.broken = 0
        self.calls: list[Call] = []
        self._broker = broker
        self._wire = one

    def run(self, stopping: threading.Event) -> None:
        while not stopping.wait(0.02):
            parameters, begun = exchange(self._broker.setting), time.monotonic()
            try:
                answer = self._wire.exchange(parameters)
            except NoAnswer:
                self.broken += 1
                continue
            took = time.monotonic() - begun
            self.calls.append(Call(self._wire.name, parameters, begun, took, answer))
            self.granted += answer.is_granted


@contextmanager
def calling(callers: Mapping[str, Caller]) -> Iterator[None]:
    """Have all of them call until the end of the block."""
    stopping = threading.Event()
    threads = [
        threading.Thread(target=caller.run, args=(stopping,), daemon=True)
        for caller in callers.values()
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join(120)


def counted(broker: RunningBroker) -> float:
    """How many requests for a token all workers together have counted."""
    return sum(map(float, _COUNTED.findall(broker.page("/metrics"))))


def agree(broker: RunningBroker) -> bool:
    """Whether the page of measures counts as many requests as there are on record."""
    return counted(broker) == len(broker.records())


@pytest.mark.requirement("R-23")
def test_workers_that_die_take_no_request_of_another_along_and_are_replaced(
    broker: RunningBroker, wires: Wires
) -> None:
    until(lambda: agree(broker), seconds=SECONDS, what="the measures are those of all workers")
    callers = {worker: Caller(broker, one) for worker, one in wires.items()}
    before = {worker: broker.worker_process(worker) for worker in WORKERS}
    counts: list[float] = []
    with calling(callers):
        until(lambda: min(one.granted for one in callers.values()) > 5, seconds=60, what="a load")
        for worker in KILLED:
            os.kill(broker.serving_process(worker), signal.SIGKILL)
        so_far = {worker: one.granted for worker, one in callers.items()}

        def are_back() -> bool:
            counts.append(counted(broker))
            after = {worker: broker.worker_process(worker) for worker in KILLED}
            return all(pid not in {0, before[worker]} for worker, pid in after.items())

        until(are_back, seconds=60, what="both are replaced")
        until(
            lambda: all(one.granted > so_far[worker] + 5 for worker, one in callers.items()),
            seconds=60,
            what="everybody is served again",
        )
        counts.append(counted(broker))
    broker.wait_until_ready()

    for worker, caller in callers.items():
        # Whoever was on a connection to a worker that died had to connect anew, to any of the face.
        assert unserved(caller.calls, broker.records()) == []
        assert caller.broken == 0 or worker in KILLED
    assert {before[one] for one in WORKERS - KILLED} <= broker.session.processes().keys()
    assert counts == sorted(counts)
    # Only what a dead worker counted in its last second is lost.
    until(lambda: counted(broker) > counts[-1], seconds=SECONDS, what="the counts go on")
    assert counts[0] < counted(broker) <= len(broker.records())
    assert broker.verify_audit().returncode == 0


def test_a_reload_reaches_every_worker(broker: RunningBroker, wires: Wires) -> None:
    operator = Operator(broker)
    before = len(broker.records("config.loaded"))

    for group, is_permitted in (("none", False), ("odd", True)):
        operator.change(groups(group))
        for worker, one in wires.items():
            knows = partial(is_told, broker, one, is_permitted)
            until(knows, seconds=SECONDS, what=f"{worker} knows")
    loaded = broker.records("config.loaded")
    assert len(loaded) == before + 2 * len(WORKERS)
    for digest in {record["policy_digest"] for record in loaded}:
        told = {one["writer"] for one in loaded if one["policy_digest"] == digest}
        assert told >= WORKERS


@pytest.mark.requirement("SGN-02")
def test_a_rotation_and_a_revocation_reach_every_worker_and_are_on_record(
    broker: RunningBroker, wires: Wires
) -> None:
    def signers() -> set[str]:
        return {str(decode_header(ask(broker, one).token)["kid"]) for one in wires.values()}

    (first,) = signers()
    listed = keys(broker, "rotate", "--algorithm", "RS256")["keys"]
    (second,) = (one["kid"] for one in listed if (one["next"] or {}).get("change") == "begins")
    until(lambda: signers() == {second}, seconds=60, what="all workers sign with the successor")

    told = keys(broker, "revoke", second)

    until(lambda: signers() == {told["signing"]}, seconds=SECONDS, what="no worker signs with it")
    (rotated,), (revoked,) = broker.records("key.rotate"), broker.records("key.revoke")
    assert {rotated["writer"], revoked["writer"]} == {"operator"}
    assert {first, second} <= {one["kid"] for one in rotated["key_changes"]}
    assert revoked["kid"] == second

    def seen() -> set[tuple[str, str]]:
        records = broker.records("key.seen")
        return {
            (change["kid"], change["to_state"]) for one in records for change in one["key_changes"]
        }

    expected = {(first, "retiring"), (second, "active"), (second, "revoked")}
    until(lambda: expected <= seen(), seconds=SECONDS, what="the broker saw what became of them")
    assert broker.verify_audit().returncode == 0


@pytest.mark.requirement("R-38")
def test_one_worker_that_does_not_answer_for_itself_makes_the_broker_unready(
    broker: RunningBroker,
) -> None:
    broker.wait_until_ready()
    pid = broker.serving_process("http-1")
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: "[-]http-1 " in broker.findings(), seconds=60, what="it is missed")
        assert not broker.is_ready()
        assert "[-]http-0 " not in broker.findings()
    finally:
        os.kill(pid, signal.SIGCONT)

    broker.wait_until_ready()


@pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < len(WORKERS), reason="there are fewer cores than workers"
)
def test_every_worker_has_a_core_of_its_own(broker: RunningBroker) -> None:
    assert held(broker) == dict.fromkeys(WORKERS, 1)


def held(broker: RunningBroker) -> dict[str, int]:
    """On how many cores each worker may run."""
    found = {}
    for worker in WORKERS:
        tasks = Path(f"/proc/{broker.serving_process(worker)}/task").iterdir()
        allowed: set[int] = set()
        for task in tasks:
            with suppress(ProcessLookupError):
                allowed |= os.sched_getaffinity(int(task.name))
        found[worker] = len(allowed)
    return found
