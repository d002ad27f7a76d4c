"""Two brokers on one Valkey that fails over again and again: nothing works twice."""

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import pytest

from tests.chaos.reporting import Report, budget, progress
from tests.e2e.patience import until
from tests.e2e.running import RunningBroker
from tests.e2e.setting import Setting, exchange
from tests.e2e.twins import replica_settings
from tests.e2e.wires import NoAnswer, Wire, wire
from tests.fault_proxy import FaultProxy, fault_proxy
from tests.valkey import ValkeyServer
from tests.world import Parameters

SHARE: Final = 22
LEAST: Final = 50
"""Races before each failover, however short the time is."""

FAILOVERS: Final = 3
LANES: Final = 4
REMEMBERED: Final = 2_000
PATIENCE: Final = 60.0


@dataclass
class Twins:
    """Two brokers, a primary and a replica, and a line from each broker to whichever leads."""

    brokers: list[RunningBroker]
    servers: list[ValkeyServer]
    lines: list[FaultProxy]

    def fail_over(self) -> None:
        """Kill the primary at once, with whatever its replica lacks, and have the replica lead."""
        old, new = self.servers
        old.kill()
        new.lead()
        for line in self.lines:
            line.retarget(new.port)
        old.start()
        old.follow(new)
        self.servers.reverse()


@pytest.fixture
def twins(tmp_path: Path) -> Iterator[Twins]:
    """Both ready."""
    with ExitStack() as closing:
        servers = [ValkeyServer(tmp_path / name) for name in ("one", "two")]
        for server in servers:
            closing.callback(server.close)
            server.start()
        servers[1].follow(servers[0])
        lines = [closing.enter_context(fault_proxy(servers[0].port)) for _ in range(2)]
        brokers: list[RunningBroker] = []
        for setting in replica_settings(tmp_path, *(line.port for line in lines)):
            brokers.append(RunningBroker(setting))
            closing.callback(brokers[-1].close)
        for broker in brokers:
            broker.wait_until_ready(PATIENCE)
        yield Twins(brokers, servers, lines)


@dataclass
class Races:
    """
    Lanes in each of which two contenders use one assertion at the same moment, one at each broker.

    ``won`` has for each number of tokens how many races led to so many. What led to a token lately is in
    ``used``. Contenders of every other lane come over other faces.
    """

    settings: list[Setting]
    won: Counter[int] = field(default_factory=Counter)
    used: deque[Parameters] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    failures: list[BaseException] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @property
    def run(self) -> int:
        """How many races there were in which somebody got a token."""
        return sum(count for tokens, count in self.won.items() if tokens)

    def wait_for(self, count: int) -> None:
        """Return when there were so many."""
        until(lambda: self.run >= count, seconds=PATIENCE, what=f"{count} races")

    def go_on(self, seconds: float) -> None:
        """Return after so many seconds, and not before there were a few more."""
        count, end = self.run + LEAST, time.monotonic() + seconds
        until(lambda: time.monotonic() >= end, seconds=seconds + PATIENCE, what="the time is over")
        self.wait_for(count)

    @contextmanager
    def on(self) -> Iterator[None]:
        """While this lasts they race."""
        lanes = [threading.Thread(target=self._race, args=(lane,)) for lane in range(LANES)]
        for lane in lanes:
            lane.start()
        try:
            yield
        finally:
            self._over.set()
            for lane in lanes:
                lane.join(PATIENCE)
        if self.failures:
            raise self.failures[0]

    def _race(self, lane: int) -> None:
        faces = (("http", "grpc"), ("grpc", "http"), ("http", "http"), ("grpc", "grpc"))[lane]
        try:
            with (
                wire(faces[0], self.settings[0]) as one,
                wire(faces[1], self.settings[1]) as other,
                Contender(one) as first,
                Contender(other) as second,
            ):
                while not self._over.is_set():
                    parameters = exchange(self.settings[0])
                    first.begin(parameters)
                    second.begin(parameters)
                    self._count(parameters, first.end() + second.end())
        except BaseException as failure:  # noqa: BLE001 - it is raised again where the races end.
            self.failures.append(failure)

    def _count(self, parameters: Parameters, tokens: int) -> None:
        with self._turn:
            self.won[tokens] += 1
            if tokens:
                self.used.append(parameters)
        if not tokens:
            self._over.wait(0.05)


class Contender:
    """A thread that uses what it is given at once; ``end`` is 1 if that led to a token."""

    def __init__(self, face: Wire) -> None:
        self._face = face
        self._given: Parameters | None = None
        self._go = threading.Semaphore(0)
        self._done = threading.Semaphore(0)
        self._tokens = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._given = None
        self._go.release()
        self._thread.join(PATIENCE)

    def begin(self, parameters: Parameters) -> None:
        """Use these."""
        self._given = parameters
        self._go.release()

    def end(self) -> int:
        """How many tokens that led to."""
        assert self._done.acquire(timeout=PATIENCE)
        return self._tokens

    def _run(self) -> None:
        while self._go.acquire() and self._given is not None:
            try:
                self._tokens = int(self._face.exchange(self._given).is_granted)
            except NoAnswer:
                self._tokens = 0
            self._done.release()


def used_again(races: Races, twins: Twins) -> int:
    """How many of those that led to a token lead to another one now, at either broker."""
    found = 0
    for broker in twins.brokers:
        for face in ("http", "grpc"):
            with wire(face, broker.setting) as one:
                for used in list(races.used)[-150:]:
                    try:
                        found += one.exchange(used).is_granted
                    except NoAnswer:
                        # A connection may end while the store is looked for anew; whoever asks comes again.
                        with wire(face, broker.setting) as another:
                            found += another.exchange(used).is_granted
    return found


@pytest.mark.requirement("RPL-02", "P-B", "R-11")
def test_no_assertion_works_twice_at_two_brokers_whatever_becomes_of_the_store(
    twins: Twins, report: Report
) -> None:
    case = "races at two brokers"
    races = Races([broker.setting for broker in twins.brokers])
    failovers, served_after, again = 0, list[float](), 0
    began = time.monotonic()

    def state() -> str:
        return f"{races.run} races, {failovers} failovers, won {dict(races.won)}"

    with progress(case, state), races.on():
        for number in range(1, FAILOVERS + 1):
            races.go_on(budget() / (FAILOVERS + 2 - number))
            twins.fail_over()
            failovers += 1
            lost_at = time.monotonic()
            again += used_again(races, twins)
            races.wait_for(races.run + 8)
            served_after.append(time.monotonic() - lost_at)
            again += used_again(races, twins)
        races.go_on(budget() / 2)
    again += used_again(races, twins)

    report.add(
        case,
        races=races.run,
        races_won_twice=races.won[2],
        used_again_after_failovers=again,
        failovers=failovers,
        most_seconds_to_serve_after_failover=round(max(served_after), 1),
        seconds=round(time.monotonic() - began),
    )
    assert races.won[2] == 0
    assert again == 0
    assert set(races.won) <= {0, 1}
