"""The copy that streams read from: complete up to its moment, or older than that, and never less."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from structlog.testing import capture_logs

from broker.errors import Reason, TemporarilyUnavailable
from broker.model import Revocation
from broker.rpc.revocation_feed import RevocationFeed
from broker.state.entries import REVOCATION_GRACE, revocation_unavailable, revoked_key
from broker.state.memory import MemoryState

NOW = 1_800_000_000


class Clocks:
    """Both clocks of a machine; the wall clock alone can be set."""

    def __init__(self) -> None:
        self.passed = 1000.0
        self.set_by = 0.0

    def monotonic(self) -> float:
        return self.passed

    def wall(self) -> float:
        return NOW + self.passed + self.set_by

    def __call__(self) -> int:
        return int(self.wall())


class Journal:
    """A state whose answers are counted, and that fails when told."""

    def __init__(self, clocks: Clocks) -> None:
        self.state = MemoryState(now=clocks)
        self.asked: list[int] = []
        self.failure: Exception | None = None

    def revocations_after(self, number: int, *, most: int) -> Sequence[Revocation]:
        self.asked.append(number)
        if self.failure is not None:
            raise self.failure
        return self.state.revocations_after(number, most=most)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def journal(clocks: Clocks) -> Journal:
    return Journal(clocks)


@pytest.fixture
def feed(journal: Journal, clocks: Clocks) -> RevocationFeed:
    feed = RevocationFeed(journal, wall=clocks.wall, monotonic=clocks.monotonic)
    feed.begin()
    return feed


def look(feed: RevocationFeed, times: int = 1) -> None:
    async def look_on() -> None:
        with ThreadPoolExecutor(1) as thread:
            for _ in range(times):
                await feed.look(thread)

    asyncio.run(look_on())


def keys(feed: RevocationFeed, after: int = 0) -> list[bytes]:
    return [one.key for one in feed.after(after)]


def test_each_look_asks_for_what_came_since_the_last(
    feed: RevocationFeed, journal: Journal, clocks: Clocks
) -> None:
    journal.state.revoke("one", clocks() + 300)
    look(feed)
    journal.state.revoke("two", clocks() + 300)
    look(feed, 2)

    assert journal.asked == [0, 0, 1, 2]
    assert keys(feed) == [revoked_key("one"), revoked_key("two")]
    assert keys(feed, after=1) == [revoked_key("two")]


def test_news_are_published_at_once_and_otherwise_every_fourth_look(
    feed: RevocationFeed, journal: Journal, clocks: Clocks
) -> None:
    editions = [feed.edition]
    for number in range(9):
        if number == 4:
            journal.state.revoke("one", clocks() + 300)
        look(feed)
        editions.append(feed.edition)

    assert editions == [1, 1, 1, 1, 2, 3, 3, 3, 3, 4]


@pytest.mark.requirement("RPL-03")
def test_a_look_that_fails_leaves_the_moment_where_it_was(
    feed: RevocationFeed, journal: Journal, clocks: Clocks
) -> None:
    journal.state.revoke("one", clocks() + 300)
    look(feed)
    before, edition = feed.looked_at, feed.edition
    journal.failure = revocation_unavailable("state: away")
    clocks.passed += 60

    with capture_logs() as logged:
        look(feed, 9)

    assert (feed.looked_at, feed.edition) == (before, edition)
    assert keys(feed) == [revoked_key("one")]
    assert [one["event"] for one in logged] == ["revocations_unreadable"]


def test_a_copy_that_is_old_does_not_pass_its_check_until_a_look_succeeds(
    feed: RevocationFeed, journal: Journal, clocks: Clocks
) -> None:
    feed.check()
    journal.failure = RuntimeError("canary")
    clocks.passed += 3.1
    look(feed)

    with pytest.raises(TemporarilyUnavailable) as caught:
        feed.check()
    assert caught.value.reason is Reason.REVOCATION_UNAVAILABLE

    journal.failure = None
    look(feed)
    feed.check()


def test_a_copy_that_never_was_does_not_pass(journal: Journal) -> None:
    journal.failure = revocation_unavailable("state: away")
    feed = RevocationFeed(journal)

    feed.begin()

    assert feed.looked_at is None
    with pytest.raises(TemporarilyUnavailable):
        feed.check()


def test_what_nobody_needs_to_know_is_forgotten(
    feed: RevocationFeed, journal: Journal, clocks: Clocks
) -> None:
    journal.state.revoke("short", clocks() + 10)
    journal.state.revoke("long", clocks() + 1000)
    look(feed)
    clocks.passed += 20 + REVOCATION_GRACE

    look(feed)

    assert keys(feed) == [revoked_key("long")]


@pytest.mark.requirement("R-22")
def test_a_clock_that_leapt_ahead_and_back_finds_everything_there(
    feed: RevocationFeed, journal: Journal, clocks: Clocks
) -> None:
    journal.state.revoke("one", clocks() + 10)
    journal.state.revoke("two", clocks() + 10)
    look(feed)
    clocks.set_by = 86_400
    clocks.passed += 61
    look(feed)
    assert keys(feed) == []

    clocks.set_by = 0
    journal.failure = revocation_unavailable("state: away")
    edition = feed.edition
    look(feed)
    assert feed.edition == edition, "what is missing is not published as all there is"

    journal.failure = None
    look(feed)
    assert keys(feed) == [revoked_key("one"), revoked_key("two")]


@pytest.mark.requirement("R-22")
def test_a_clock_behind_what_the_state_has_forgotten_tells_nothing(
    feed: RevocationFeed, journal: Journal, clocks: Clocks
) -> None:
    journal.state.revoke("one", clocks() + 10)
    clocks.set_by = 86_400
    journal.state.revoke("two", clocks() + 10)
    look(feed)
    edition = feed.edition

    clocks.set_by = 0
    clocks.passed += 9
    look(feed, 9)

    assert feed.edition == edition


def test_a_flood_that_does_not_fit_is_not_told_in_part(
    feed: RevocationFeed,
    journal: Journal,
    clocks: Clocks,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("broker.rpc.revocation_feed._MOST", 3)
    for number in range(4):
        journal.state.revoke(f"token-{number}", clocks() + 10)
    edition = feed.edition

    look(feed, 9)

    assert (feed.edition, keys(feed)) == (edition, [])
