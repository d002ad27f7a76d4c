"""What a process holds of allowances that many share."""

import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
import structlog

from broker.endpoints.allowances import LocalAllowances
from broker.endpoints.limits import Limits, LimitTerms
from broker.endpoints.purses import MOST_PURSES, PORTIONS, Purses
from broker.errors import RateLimited, Reason, TemporarilyUnavailable
from broker.model import AuthenticatedClient, Client, Portion, Quota
from broker.state.sqlite_allowances import SqliteAllowances, begin_allowances

WIDE = Quota(rate=100, burst=1280)


class Ticking:
    """A monotonic clock that stands until it is moved."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


class Shared:
    """Allowances that count how often they are asked, and fail when they are told to."""

    def __init__(self, ticking: Ticking) -> None:
        self.inner = LocalAllowances(now=ticking)
        self.asked = 0
        self.is_away = False

    def draw(self, party: str, quota: Quota, wanted: int, *, least: int = 1) -> Portion:
        self.asked += 1
        if self.is_away:
            raise TemporarilyUnavailable(Reason.OVERLOADED, detail="limits: away")
        return self.inner.draw(party, quota, wanted, least=least)

    def close(self) -> None:
        self.inner.close()


@pytest.fixture
def ticking() -> Ticking:
    return Ticking()


def taken(purses: Purses, times: int, party: str = "a", quota: Quota = WIDE) -> int:
    return sum(purses.take(party, quota) == 0 for _ in range(times))


def test_few_requests_ask_the_store(ticking: Ticking) -> None:
    shared = Shared(ticking)
    purses = Purses(shared, monotonic=ticking)

    assert taken(purses, 1000) == 1000
    assert shared.asked == 1000 / (WIDE.burst / PORTIONS)


def test_who_is_refused_does_not_ask_the_store_each_time(ticking: Ticking) -> None:
    shared = Shared(ticking)
    purses = Purses(shared, monotonic=ticking)
    taken(purses, WIDE.burst)
    asked = shared.asked

    assert taken(purses, 1000) == 0
    assert shared.asked == asked + 1


@pytest.mark.parametrize("processes", [1, 2, 7, 64])
def test_processes_together_give_a_burst_and_withhold_half_of_it_at_most(
    ticking: Ticking, processes: int
) -> None:
    shared = Shared(ticking)
    every = [Purses(shared, monotonic=ticking) for _ in range(processes)]

    # One request everywhere makes each hold a portion; then all that is left is asked for in one place.
    spent = sum(taken(purses, 1) for purses in every)
    spent += taken(every[0], 2 * WIDE.burst)
    assert WIDE.burst / 2 <= spent <= WIDE.burst
    spent += sum(taken(purses, WIDE.burst) for purses in every)
    assert spent == WIDE.burst


@pytest.mark.parametrize("processes", [2, 64])
def test_a_client_at_its_rate_is_never_refused_wherever_its_requests_go(
    ticking: Ticking, processes: int
) -> None:
    shared = Shared(ticking)
    every = [Purses(shared, monotonic=ticking) for _ in range(processes)]

    for number in range(10_000):
        ticking.at += 1 / WIDE.rate
        # Every fourth goes to the same process, the others to all in turn, in bursts of four.
        purses = every[0] if number % 4 == 0 else every[number % processes]
        assert purses.take("a", WIDE) == 0


def test_another_quota_counts_at_once(ticking: Ticking) -> None:
    """A reload has given the client more, or less, than what was found under the old one."""
    purses = Purses(Shared(ticking), monotonic=ticking)
    rare, often = Quota(rate=1 / 3600, burst=1), Quota(rate=1000, burst=2000)
    assert taken(purses, 3, quota=rare) == 1

    # What the old one cannot explain counts as none left, and comes back at the new rate.
    assert taken(purses, 1, quota=often) == 0
    ticking.at += 1
    assert taken(purses, 500, quota=often) == 500
    assert taken(purses, 3, quota=rare) == 0


def test_a_small_quota_is_exact(ticking: Ticking) -> None:
    shared = Shared(ticking)
    every = [Purses(shared, monotonic=ticking) for _ in range(9)]
    small = Quota(rate=1, burst=20)

    assert sum(taken(purses, 5, quota=small) for purses in every) == 20


def test_threads_at_once_take_no_more_than_there_is(tmp_path: Path) -> None:
    begin_allowances(tmp_path)
    shared = SqliteAllowances(tmp_path, busy_timeout=120)
    every = [Purses(shared), Purses(shared)]
    slow = Quota(rate=1 / 3600, burst=1280)
    got: list[int] = []
    start = threading.Barrier(8)

    def take(purses: Purses) -> None:
        start.wait()
        got.append(taken(purses, 300, quota=slow))

    threads = [threading.Thread(target=take, args=(every[number % 2],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(got) + _rest(every, slow) == slow.burst
    shared.close()


def _rest(every: Sequence[Purses], quota: Quota) -> int:
    return sum(taken(purses, quota.burst, quota=quota) for purses in every)


def test_while_the_store_is_away_each_process_keeps_quotas_by_itself(ticking: Ticking) -> None:
    shared = Shared(ticking)
    every = [Purses(shared, monotonic=ticking) for _ in range(2)]
    small = Quota(rate=1, burst=10)
    assert taken(every[0], 10, quota=small) == 10
    shared.is_away = True
    with structlog.testing.capture_logs() as logs:
        ticking.at += 1
        got = [taken(purses, 50, quota=small) for purses in every]
        assert got == [10, 10]
        assert shared.asked == 10 + 2, "it is asked once a second by each"
        ticking.at += 1
        shared.is_away = False
        assert taken(every[0], 1, quota=small) == 1

    events = [(one["event"], one.get("detail")) for one in logs]
    assert events == [
        ("limits_kept_apart", "limits: away"),
        ("limits_kept_apart", "limits: away"),
        ("limits_shared_again", None),
    ]


def test_a_file_that_cannot_be_used_does_not_lift_the_limit(tmp_path: Path) -> None:
    (tmp_path / "limits.sqlite").write_bytes(b"not a database" * 500)
    purses = Purses(SqliteAllowances(tmp_path))
    slow = Quota(rate=1 / 3600, burst=7)

    assert taken(purses, 50, quota=slow) == 7


@pytest.mark.requirement("R-35")
def test_ten_thousand_clients_cost_less_than_four_kilobytes_each() -> None:
    limits = Limits(LocalAllowances(), LimitTerms(per_client=Quota(rate=1 / 3600, burst=1)))
    clients = [
        AuthenticatedClient(
            Client(f"https://agent-{number}.example/client.json", frozenset(), frozenset()), "none"
        )
        for number in range(10_000)
    ]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    refused = 0
    for client in clients:
        limits.admit(client)
    for client in clients:
        try:
            limits.admit(client)
        except RateLimited:
            refused += 1
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert refused == 10_000
    assert (after - before) / 10_000 < 4096


@pytest.mark.requirement("R-35")
def test_beyond_a_number_of_parties_those_are_forgotten_that_came_longest_ago(
    ticking: Ticking,
) -> None:
    shared = Shared(ticking)
    purses = Purses(shared, most=100, monotonic=ticking)
    small = Quota(rate=1 / 3600, burst=1)
    for number in range(1000):
        assert purses.take(f"party {number}", small) == 0

    assert len(purses) == 100
    # The store still knows what the process does not.
    assert purses.take("party 0", small) > 0
    assert MOST_PURSES > 10_000


def test_many_are_taken_together_or_none(ticking: Ticking) -> None:
    shared = Shared(ticking)
    every = [Purses(shared, monotonic=ticking) for _ in range(2)]
    small = Quota(rate=1, burst=10)
    assert every[0].take("a", small, 7) == 0

    assert every[0].take("a", small, 4) == pytest.approx(1)
    assert every[1].take("a", small, 10) == pytest.approx(7)
    assert shared.asked == 3
    # Who gets none has taken none, here or elsewhere, and single ones are there for both.
    assert taken(every[1], 1, quota=small) == 1
    assert every[0].take("a", small, 2) == 0
    assert taken(every[0], 1, quota=small) == 0
    assert every[0].take("a", small, 3) == pytest.approx(3)
    assert shared.asked == 6, "who knows that there is none does not ask"

    ticking.at += 3
    assert every[0].take("a", small, 3) == 0


def test_what_a_purse_holds_counts_for_many(ticking: Ticking) -> None:
    shared = Shared(ticking)
    purses = Purses(shared, monotonic=ticking)
    assert purses.take("a", WIDE) == 0
    assert purses.take("a", WIDE, 9) == 0
    assert shared.asked == 1

    assert purses.take("a", WIDE, 16) == 0
    assert shared.asked == 2
    purses.give_back("a", 16)
    assert purses.take("a", WIDE, 16) == 0
    assert shared.asked == 2
    assert taken(purses, WIDE.burst) == WIDE.burst - 26


def test_apart_too_many_are_taken_together_or_none(ticking: Ticking) -> None:
    shared = Shared(ticking)
    shared.is_away = True
    purses = Purses(shared, monotonic=ticking)
    small = Quota(rate=1, burst=10)

    assert purses.take("a", small, 7) == 0
    assert purses.take("a", small, 4) > 0
    assert purses.take("a", small, 3) == 0


def test_what_was_taken_for_nothing_can_be_given_back(ticking: Ticking) -> None:
    purses = Purses(Shared(ticking), monotonic=ticking)
    small = Quota(rate=1 / 3600, burst=2)
    assert taken(purses, 3, quota=small) == 2
    assert purses.wait_of("a") > 0

    purses.give_back("a")
    purses.give_back("nobody")

    assert purses.wait_of("a") == 0
    assert taken(purses, 3, quota=small) == 1
