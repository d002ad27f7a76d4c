"""What every store of allowances must do."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.endpoints.allowances import LocalAllowances, draw_from
from broker.errors import TemporarilyUnavailable
from broker.interfaces import Allowances
from broker.model import Quota
from broker.state.sqlite_allowances import SqliteAllowances, begin_allowances
from broker.state.valkey_allowances import ValkeyAllowances
from broker.state.valkey_opening import primary_of
from tests.e2e.patience import until
from tests.valkey import ValkeyServer, new_prefix, servers_at

ROOT = Path(__file__).parents[2]
SLOW = Quota(rate=1 / 3600, burst=40)
SWIFT = Quota(rate=50, burst=10)
MOMENTARY = Quota(rate=1000, burst=2)

Open = Callable[[], Allowances]


def open_valkey(port: int, prefix: str) -> ValkeyAllowances:
    servers = servers_at(port)
    return ValkeyAllowances(primary_of(servers, prefix=prefix, connections=4, deadline=60), prefix)


@pytest.fixture(params=["memory", "sqlite", "valkey"])
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Open one store as often as one likes, where processes can share it."""
    made: list[Allowances] = []
    in_memory = LocalAllowances()
    prefix = new_prefix()
    begin_allowances(tmp_path)

    def open_one() -> Allowances:
        found: Allowances
        if request.param == "memory":
            found = in_memory
        elif request.param == "sqlite":
            found = SqliteAllowances(tmp_path, busy_timeout=120)
        else:
            server: ValkeyServer = request.getfixturevalue("valkey_server")
            found = open_valkey(server.port, prefix)
        made.append(found)
        return found

    yield open_one
    for one in made:
        one.close()


@pytest.fixture
def allowances(open_again: Open) -> Allowances:
    return open_again()


def drawn(allowances: Allowances, party: str, quota: Quota = SLOW, wanted: int = 1) -> int:
    return allowances.draw(party, quota, wanted).number


def is_drawn(allowances: Allowances, party: str, quota: Quota = MOMENTARY) -> bool:
    """Whether there was one; a store that is full has none for somebody new."""
    try:
        return drawn(allowances, party, quota) == 1
    except TemporarilyUnavailable as refused:
        if refused.detail != "limits: full":
            raise
        return False


def test_a_party_gets_its_burst_and_then_nothing(allowances: Allowances) -> None:
    assert [drawn(allowances, "a") for _ in range(42)] == [1] * 40 + [0] * 2


def test_a_portion_is_what_is_left_at_most(allowances: Allowances) -> None:
    assert [drawn(allowances, "a", wanted=15) for _ in range(4)] == [15, 15, 10, 0]


def test_fewer_than_the_least_are_none_and_stay_where_they_are(allowances: Allowances) -> None:
    assert allowances.draw("a", SLOW, 16, least=16).number == 16
    assert allowances.draw("a", SLOW, 30, least=16).number == 24

    other = allowances.draw("b", SLOW, 30)
    assert other.number == 30
    refused = allowances.draw("b", SLOW, 16, least=12)
    assert refused.number == 0
    assert 2 * 3590 < refused.wait <= 2 * 3600
    assert drawn(allowances, "b", wanted=99) == 10


def test_parties_have_nothing_to_do_with_each_other(allowances: Allowances) -> None:
    assert drawn(allowances, "a", wanted=99) == 40
    assert drawn(allowances, "b", wanted=99) == 40


def test_whoever_gets_nothing_is_told_how_long(allowances: Allowances) -> None:
    drawn(allowances, "a", wanted=99)
    portion = allowances.draw("a", SLOW, 5)

    assert portion.number == 0
    assert 3590 < portion.wait <= 3600


def test_what_was_drawn_comes_back_at_the_rate(allowances: Allowances) -> None:
    begun = time.monotonic()
    assert drawn(allowances, "a", SWIFT, 10) == 10
    until(lambda: drawn(allowances, "a", SWIFT), seconds=30, what="one comes back")

    assert time.monotonic() - begun > 0.01
    # No more comes than there was, however long one waits.
    until(lambda: time.monotonic() - begun > 0.3, seconds=30, what="all have come back")
    assert drawn(allowances, "a", SWIFT, 99) == 10


def test_a_smaller_quota_counts_from_the_next_draw(allowances: Allowances) -> None:
    drawn(allowances, "a", wanted=99)
    portion = allowances.draw("a", Quota(rate=1000, burst=2), 1)

    assert portion.wait <= 0.01


def test_what_one_opening_drew_no_other_gets(open_again: Open) -> None:
    first, second = open_again(), open_again()

    assert drawn(first, "a", wanted=30) == 30
    assert drawn(second, "a", wanted=30) == 10


def test_threads_that_draw_at_once_get_the_burst_together(open_again: Open) -> None:
    stores = [open_again(), open_again()]
    start = threading.Barrier(8)
    got: list[int] = []

    def draw(number: int) -> None:
        start.wait()
        got.extend(drawn(stores[number % 2], "a", wanted=3) for _ in range(8))

    threads = [threading.Thread(target=draw, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(got) == SLOW.burst


RACER = """
import sys
from pathlib import Path
from broker.model import Quota
from broker.state.sqlite_allowances import SqliteAllowances
from tests.contracts.test_allowances import open_valkey

place = sys.argv[1]
if place.startswith("valkey:"):
    _, port, prefix = place.split(":")
    store = open_valkey(int(port), prefix)
else:
    store = SqliteAllowances(Path(place), busy_timeout=120)
print("ready", flush=True)
quota = Quota(rate=1 / 3600, burst=2000)
for _ in sys.stdin:
    print(sum(store.draw("raced for", quota, 3).number for _ in range(50)), flush=True)
"""
"""Draws fifty times, whenever it is told to, and says how much it got."""


@pytest.mark.parametrize("store", ["sqlite", "valkey"])
def test_two_processes_that_race_get_the_burst_together(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = str(tmp_path)
    begin_allowances(tmp_path)
    if store == "valkey":
        server: ValkeyServer = request.getfixturevalue("valkey_server")
        place = f"valkey:{server.port}:{new_prefix()}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, place],
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        rounds = [draw_together(processes)]
        while any(rounds[-1]):
            rounds.append(draw_together(processes))
    finally:
        for process in processes:
            process.kill()
            process.communicate()

    got = [sum(amounts) for amounts in zip(*rounds, strict=True)]
    assert sum(got) == 2000
    assert all(got), "both were in the first round, which does not exhaust it"


def draw_together(processes: Sequence[subprocess.Popen[str]]) -> list[int]:
    """What each of them got, who all drew at the same time."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [int(process.stdout.readline()) for process in processes if process.stdout]


@given(
    rate=st.floats(0.01, 5000),
    burst=st.integers(1, 10_000),
    asked=st.lists(st.tuples(st.floats(0, 20), st.integers(1, 500)), max_size=60),
)
@settings(max_examples=150, deadline=None)
def test_nobody_gets_more_than_the_burst_and_what_the_rate_brings(
    rate: float, burst: int, asked: list[tuple[float, int]]
) -> None:
    quota = Quota(rate, burst)
    now = full_at = 1_800_000_000.0
    begun, given_out = now, 0
    for pause, wanted in asked:
        now += pause
        full_at, portion = draw_from(full_at, quota, wanted, now=now)
        given_out += portion.number
        assert given_out <= burst + rate * (now - begun) + 1e-3
        assert portion.number or 0 <= portion.wait <= 1 / rate + 1e-6


def test_a_clock_that_goes_back_costs_nobody_more_than_a_burst() -> None:
    now = [1000.0]
    store = LocalAllowances(now=lambda: now[0])
    assert drawn(store, "a", SWIFT, 5) == 5
    now[0] = 0.0

    assert store.draw("a", SWIFT, 5).wait <= 1 / SWIFT.rate
    now[0] = 0.21
    assert drawn(store, "a", SWIFT, 20) == 10


def test_in_memory_the_full_are_forgotten_and_more_than_can_be_held() -> None:
    now = [0.0]
    store = LocalAllowances(now=lambda: now[0], most=100)
    for number in range(1000):
        drawn(store, f"slow {number}")
    assert len(store) == 100

    now[0] = 4000.0
    for number in range(10):
        drawn(store, f"later {number}")
    assert len(store) == 10


def test_in_valkey_the_full_are_forgotten_and_more_are_refused_than_can_be_held(
    valkey_server: ValkeyServer,
) -> None:
    prefix = new_prefix()
    primary = primary_of(servers_at(valkey_server.port), prefix=prefix, connections=2, deadline=60)
    store = ValkeyAllowances(primary, prefix, most=3)
    for number in range(30):
        ask = partial(is_drawn, store, f"swift {number}")
        until(ask, seconds=60, what="room for another")
    assert valkey_server.ask("ZCARD", f"{{{prefix}}}:limits") <= 3

    for number in range(3):
        ask = partial(is_drawn, store, f"slow {number}", SLOW)
        until(ask, seconds=60, what="room for another")
    assert not is_drawn(store, "slow 3", SLOW)
    assert is_drawn(store, "slow 2", SLOW)
    store.close()


def test_a_file_of_an_earlier_run_is_of_no_account(tmp_path: Path) -> None:
    begin_allowances(tmp_path)
    first = SqliteAllowances(tmp_path)
    assert drawn(first, "a", wanted=99) == 40
    first.close()

    begin_allowances(tmp_path)

    second = SqliteAllowances(tmp_path)
    assert drawn(second, "a", wanted=99) == 40
    second.close()
