"""When keys are fetched, what is used meanwhile, and what an issuer in trouble does to others."""

import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from broker.errors import Reason, TemporarilyUnavailable, TokenRejected
from broker.fetch import FetchReason
from broker.interfaces import VerificationKey
from broker.issuers import RefreshSchedule
from broker.issuers.ring import MAX_SOURCES
from broker.model import KeySource
from tests.e2e.patience import until
from tests.idp import signer
from tests.issuers.scripted import SOURCE, URI, World

A1, A2, A3 = signer("a1"), signer("a2"), signer("a3")
OTHER_URI = "https://idp-b.test/jwks"
OTHER = KeySource(jwks_uri=OTHER_URI)
HTML = b"<!DOCTYPE html><html></html>"
DEEP = b'{"keys":[' + b'{"x":' * 64 + b"1" + b"}" * 64 + b"]}"

BROKEN: list[Any] = [
    FetchReason.STATUS,
    FetchReason.TIMEOUT,
    FetchReason.TLS,
    FetchReason.REDIRECT,
    FetchReason.TOO_LARGE,
    FetchReason.MEDIA_TYPE,
    FetchReason.BLOCKED,
    FetchReason.FAILED,
    RuntimeError("a fault of our own"),
    {"keys": []},
    {"keys": {}},
    {},
    [],
    {"keys": [A3.jwk] * 101},
    b"",
    HTML,
    DEEP,
    b'{"keys":[],"keys":[]}',
    b'\xef\xbb\xbf{"keys":[]}',
    '{"keys":[]}'.encode("utf-16"),
]


def break_source(world: World, fault: Any) -> None:
    if isinstance(fault, FetchReason | Exception):
        world.fetcher.fail(fault)
    else:
        world.fetcher.publish(fault)


def verifies(world: World, kid: str | None = "a1", source: KeySource = SOURCE) -> bool:
    key = world.ring.key(source, kid, "ES256")
    return key.verify(b"input", signer(kid or "a1").signature(b"input"))


def refusal_of(world: World, kid: str | None = "a1", source: KeySource = SOURCE) -> Reason:
    try:
        world.ring.key(source, kid, "ES256")
    except (TokenRejected, TemporarilyUnavailable) as refused:
        return refused.reason
    pytest.fail("the key was found")


@pytest.fixture
def world() -> World:
    """A ring whose source publishes a1, loaded."""
    world = World()
    world.fetcher.publish_keys(A1.jwk)
    assert verifies(world)
    return world


# ---- unknown keys


@pytest.mark.requirement("KEY-01")
def test_a_flood_of_unknown_kids_causes_one_fetch_per_cool_down(world: World) -> None:
    for number in range(10_000):
        world.clock.at += 1 / 128
        assert refusal_of(world, f"k{number}") is Reason.UNKNOWN_KEY
        if number % 100 == 0:
            assert verifies(world)

    # The load, and then one fetch for each full 30 seconds of the 78 that have passed.
    assert len(world.fetcher.fetched) == 1 + 2


@pytest.mark.requirement("R-20")
def test_a_key_published_after_the_last_fetch_is_found_with_the_first_token(world: World) -> None:
    world.clock.at += 30
    world.fetcher.publish_keys(A1.jwk, A2.jwk)

    assert verifies(world, "a2")
    assert all(verifies(world, "a2") for _ in range(1000))
    assert len(world.fetcher.fetched) == 2


def test_a_key_published_during_the_cool_down_is_unknown_until_it_ends(world: World) -> None:
    world.fetcher.publish_keys(A1.jwk, A2.jwk)
    world.clock.at += 29.9

    assert refusal_of(world, "a2") is Reason.UNKNOWN_KEY
    world.clock.at += 0.1
    assert verifies(world, "a2")


@pytest.mark.requirement("KEY-12")
@pytest.mark.requirement("KEY-13")
@pytest.mark.requirement("JWT-03")
def test_a_key_of_one_source_is_unknown_to_another(world: World) -> None:
    world.fetcher.publish_keys(signer("b1").jwk, at=OTHER_URI)

    assert verifies(world, "b1", OTHER)
    assert refusal_of(world, "b1", SOURCE) is Reason.UNKNOWN_KEY
    assert refusal_of(world, "a1", OTHER) is Reason.UNKNOWN_KEY


def test_a_key_that_does_not_fit_causes_no_fetch(world: World) -> None:
    world.fetcher.publish_keys(A1.jwk, {**A2.jwk, "use": "enc"})
    world.clock.at += 60
    assert refusal_of(world, "a2") is Reason.KEY_NOT_FOR_SIG
    world.clock.at += 59

    assert refusal_of(world, "a2") is Reason.KEY_NOT_FOR_SIG
    with pytest.raises(TokenRejected) as rejected:
        world.ring.key(SOURCE, "a1", "RS256")
    assert rejected.value.reason is Reason.KEY_ALG_MISMATCH
    assert len(world.fetcher.fetched) == 2


# ---- a source in trouble


@pytest.mark.requirement("KEY-02")
@pytest.mark.requirement("KEY-06")
@pytest.mark.requirement("R-19")
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_answer_leaves_the_last_good_set_in_use(world: World, fault: Any) -> None:
    break_source(world, fault)

    for _ in range(59):
        world.clock.at += 60
        world.ring.refresh_due()
        assert verifies(world)
        assert refusal_of(world, "a2") is Reason.KEY_SOURCE_UNAVAILABLE
    status = world.ring.status()[URI]
    assert (status.age, status.keys) == (59 * 60, 1)
    assert status.last_error


@pytest.mark.requirement("R-18")
def test_the_last_good_set_is_used_until_just_before_max_stale(world: World) -> None:
    world.fetcher.fail(FetchReason.STATUS)

    world.clock.at = math.nextafter(1000.0 + 3600.0, 0)
    assert verifies(world)
    world.clock.at = 1000.0 + 3600.0
    assert refusal_of(world) is Reason.KEY_SOURCE_UNAVAILABLE
    world.clock.at += 30
    world.fetcher.publish_keys(A1.jwk)
    assert verifies(world)


@pytest.mark.requirement("R-17")
def test_a_cold_start_without_the_source_harms_no_other_source() -> None:
    world = World()
    world.fetcher.fail(FetchReason.TIMEOUT)
    world.fetcher.publish_keys(signer("b1").jwk, at=OTHER_URI)

    assert refusal_of(world) is Reason.KEY_SOURCE_UNAVAILABLE
    assert verifies(world, "b1", OTHER)
    world.fetcher.publish_keys(A1.jwk)
    world.clock.at += 30
    assert verifies(world)


def test_a_failed_source_is_left_alone_for_the_cool_down_and_the_caller_told_how_long(
    world: World,
) -> None:
    world.fetcher.fail(FetchReason.TLS)
    world.clock.at += 3600
    refusal_of(world)
    attempts = len(world.fetcher.fetched)
    world.clock.at += 12.5

    with pytest.raises(TemporarilyUnavailable) as unavailable:
        world.ring.key(SOURCE, "a1", "ES256")

    assert unavailable.value.retry_after == 18
    assert unavailable.value.detail == "fetch_tls"
    assert len(world.fetcher.fetched) == attempts


def test_an_issuer_that_starts_later_than_the_broker_is_asked_again_within_seconds() -> None:
    world = World()
    world.fetcher.fail(FetchReason.FAILED)
    refusal_of(world)
    world.clock.at += 1
    with pytest.raises(TemporarilyUnavailable) as unavailable:
        world.ring.key(SOURCE, "a1", "ES256")
    assert unavailable.value.retry_after == 1
    assert len(world.fetcher.fetched) == 1

    world.clock.at += 1
    world.fetcher.publish_keys(A1.jwk)

    assert verifies(world)


def test_while_a_source_fails_nobody_who_finds_his_key_waits_for_it(world: World) -> None:
    world.fetcher.fail(FetchReason.TIMEOUT)
    world.clock.at += 60
    world.ring.refresh_due()
    attempts = len(world.fetcher.fetched)

    for _ in range(100):
        world.clock.at += 0.2
        assert verifies(world)

    assert len(world.fetcher.fetched) == attempts


def test_a_fault_of_our_own_is_recorded_and_stops_nothing(world: World) -> None:
    world.fetcher.fail(RuntimeError("canary"))
    world.clock.at += 60

    world.ring.refresh_due()

    assert world.ring.status()[URI].last_error == "internal_error"
    assert verifies(world)
    world.fetcher.publish_keys(A1.jwk)
    world.clock.at += 30
    world.ring.refresh_due()
    assert world.ring.status()[URI].last_error == ""


# ---- withdrawal and freshness


@pytest.mark.requirement("KEY-03", "IDJAG-R-27")
@pytest.mark.requirement("R-21")
def test_a_withdrawn_key_is_refused_after_refresh_after_at_the_latest(world: World) -> None:
    world.fetcher.publish_keys(A2.jwk)

    world.clock.at += 59.9
    assert verifies(world)
    world.clock.at += 0.1
    assert refusal_of(world) is Reason.UNKNOWN_KEY


@pytest.mark.requirement("KEY-03")
def test_a_withdrawn_key_is_refused_even_when_nobody_asked_for_a_long_time(world: World) -> None:
    world.fetcher.publish_keys(A2.jwk)
    world.clock.at += 3000

    assert refusal_of(world) is Reason.UNKNOWN_KEY


def test_keys_are_as_old_as_the_beginning_of_their_fetch() -> None:
    world = World()
    world.fetcher.publish_keys(A1.jwk)
    world.fetcher.takes = 5.0

    assert verifies(world)

    assert world.ring.status()[URI].age == 5.0


def test_keys_are_fetched_ahead_of_time(world: World) -> None:
    world.clock.at += 47.9
    world.ring.refresh_due()
    assert len(world.fetcher.fetched) == 1

    world.clock.at += 0.1
    world.ring.refresh_due()
    world.ring.refresh_due()

    assert len(world.fetcher.fetched) == 2


def test_the_lifetime_is_what_the_server_allows_within_our_own_bounds() -> None:
    schedule = RefreshSchedule(refresh_after=300, max_stale=3600, cool_down=30)

    asked = (None, 0, 29, 30, 120, 300, 301, 10**9)

    assert [schedule.lifetime(max_age) for max_age in asked] == [
        300,
        30,
        30,
        30,
        120,
        300,
        300,
        300,
    ]


def test_max_age_brings_the_next_fetch_forward() -> None:
    world = World(schedule=RefreshSchedule(refresh_after=300))
    world.fetcher.publish({"keys": [A1.jwk]}, max_age=100)
    assert verifies(world)

    world.clock.at += 79
    world.ring.refresh_due()
    assert len(world.fetcher.fetched) == 1
    world.clock.at += 1
    world.ring.refresh_due()
    assert len(world.fetcher.fetched) == 2


@pytest.mark.parametrize(
    ("refresh_after", "max_stale", "cool_down"),
    [(29, 3600, 30), (60, 59, 30), (60, 3600, 0), (60, 3600, -1), (math.nan, 3600, 30)],
)
def test_a_schedule_that_contradicts_itself_is_refused(
    refresh_after: float, max_stale: float, cool_down: float
) -> None:
    with pytest.raises(ValueError, match="cool_down"):
        RefreshSchedule(refresh_after=refresh_after, max_stale=max_stale, cool_down=cool_down)


# ---- several threads


@contextmanager
def fetching(world: World) -> Iterator[Callable[[], None]]:
    """Let the next fetch wait until the yielded function is called."""
    world.fetcher.gate.clear()
    world.fetcher.is_waiting.clear()
    try:
        yield world.fetcher.gate.set
    finally:
        world.fetcher.gate.set()


def outcome(future: Future[VerificationKey]) -> str:
    error = future.exception(timeout=60)
    if isinstance(error, TokenRejected | TemporarilyUnavailable):
        return error.reason.code
    assert error is None
    return "key"


@pytest.mark.requirement("R-20")
def test_of_many_threads_one_fetches_and_a_few_wait_while_the_rest_is_sent_away() -> None:
    world = World(schedule=RefreshSchedule(attempt=60))
    world.fetcher.publish_keys(A1.jwk)

    with ThreadPoolExecutor(20) as pool, fetching(world) as finish:
        first = pool.submit(world.ring.key, SOURCE, "a1", "ES256")
        assert world.fetcher.is_waiting.wait(60)
        others = [pool.submit(world.ring.key, SOURCE, "a1", "ES256") for _ in range(19)]
        sent_away = as_done(others, count=11)
        finish()
        outcomes = [outcome(future) for future in others]

    assert outcome(first) == "key"
    assert {outcome(future) for future in sent_away} == {"key_source_unavailable"}
    assert sorted(outcomes) == ["key"] * 8 + ["key_source_unavailable"] * 11
    assert len(world.fetcher.fetched) == 1


def as_done(futures: list[Future[VerificationKey]], *, count: int) -> list[Future[VerificationKey]]:
    """Those that are done once so many are."""
    done = threading.Semaphore(0)
    for future in futures:
        future.add_done_callback(lambda _future: done.release())
    for _ in range(count):
        assert done.acquire(timeout=60)
    return [future for future in futures if future.done()]


@pytest.mark.requirement("KEY-01")
def test_a_refresh_under_way_keeps_nobody_waiting_who_finds_his_key(world: World) -> None:
    world.clock.at += 61

    with ThreadPoolExecutor(1) as pool, fetching(world) as finish:
        refresh = pool.submit(world.ring.refresh_due)
        assert world.fetcher.is_waiting.wait(60)
        assert verifies(world)
        finish()
        refresh.result(60)

    assert len(world.fetcher.fetched) == 2


def test_an_unknown_kid_waits_for_the_refresh_under_way(world: World) -> None:
    world.fetcher.publish_keys(A1.jwk, A2.jwk)
    world.clock.at += 61

    with ThreadPoolExecutor(2) as pool, fetching(world) as finish:
        refresh = pool.submit(world.ring.refresh_due)
        assert world.fetcher.is_waiting.wait(60)
        asked = pool.submit(world.ring.key, SOURCE, "a2", "ES256")
        finish()
        refresh.result(60)
        assert outcome(asked) == "key"

    assert len(world.fetcher.fetched) == 2


def test_who_waits_too_long_for_somebody_elses_fetch_is_told_to_come_back() -> None:
    world = World(schedule=RefreshSchedule(attempt=0.05))
    world.fetcher.publish_keys(A1.jwk)

    with ThreadPoolExecutor(1) as pool, fetching(world):
        pool.submit(world.ring.key, SOURCE, "a1", "ES256")
        assert world.fetcher.is_waiting.wait(60)
        assert refusal_of(world) is Reason.KEY_SOURCE_UNAVAILABLE


def test_a_slow_source_does_not_hold_up_another(world: World) -> None:
    world.fetcher.publish_keys(signer("b1").jwk, at=OTHER_URI)
    assert verifies(world, "b1", OTHER)
    world.clock.at += 30

    with ThreadPoolExecutor(1) as pool, fetching(world) as finish:
        slow = pool.submit(world.ring.key, SOURCE, "a2", "ES256")
        assert world.fetcher.is_waiting.wait(60)
        assert all(verifies(world, "b1", OTHER) for _ in range(100))
        finish()
        assert outcome(slow) == "unknown_key"


# ---- the background


@contextmanager
def in_background(refreshers: int = 2) -> Iterator[World]:
    world = World(refreshers=refreshers)
    try:
        yield world
    finally:
        world.fetcher.gate.set()
        world.ring.close()


def threads_of_rings() -> list[str]:
    return [
        thread.name for thread in threading.enumerate() if thread.name.startswith("broker-keys")
    ]


def test_warming_fetches_in_the_background_and_isolates_failures() -> None:
    with in_background() as world:
        world.fetcher.publish_keys(A1.jwk)
        world.fetcher.fail(FetchReason.TLS, at=OTHER_URI)

        world.ring.warm([SOURCE, OTHER, KeySource(jwks=A2.jwks)], within=60)

        status = world.ring.status()
        assert (status[URI].keys, status[URI].last_error) == (1, "")
        assert (status[OTHER_URI].age, status[OTHER_URI].last_error) == (None, "fetch_tls")
        assert verifies(world)
        assert sorted(world.fetcher.fetched) == [URI, OTHER_URI]


def test_warming_without_a_background_fetches_at_once() -> None:
    world = World()
    world.fetcher.publish_keys(A1.jwk)

    world.ring.warm([SOURCE, OTHER], within=0)

    assert world.fetcher.fetched == [URI, OTHER_URI]
    assert (world.ring.status()[URI].keys, world.ring.status()[OTHER_URI].keys) == (1, 0)


def test_warming_does_not_wait_longer_than_it_may() -> None:
    with in_background() as world, fetching(world):
        world.ring.warm([SOURCE, OTHER], within=0.05)

        assert world.ring.status()[URI].last_error is None


def test_the_background_refreshes_what_is_due_without_being_asked() -> None:
    with in_background() as world:
        world.fetcher.publish_keys(A1.jwk)
        world.ring.warm([SOURCE], within=60)
        world.fetcher.is_waiting.clear()

        world.clock.at += 48

        assert world.fetcher.is_waiting.wait(60)


def test_closing_stops_every_thread_and_keys_stay_usable() -> None:
    with in_background(refreshers=3) as world:
        world.fetcher.publish_keys(A1.jwk)
        sources = [KeySource(jwks_uri=f"https://idp-{number}.test/") for number in range(10)]
        world.ring.warm([SOURCE, *sources], within=60)
        assert len(threads_of_rings()) == 3

        world.ring.close()

        until(lambda: threads_of_rings() == [], seconds=30, what="every thread has ended")
        assert verifies(world)


# ---- what is remembered


def test_sources_are_bounded_and_the_one_not_asked_for_the_longest_goes() -> None:
    world = World()
    for number in range(MAX_SOURCES):
        world.fetcher.publish_keys(A1.jwk, at=f"https://idp-{number}.test/")
        world.clock.at += 0.001
        assert verifies(world, "a1", KeySource(jwks_uri=f"https://idp-{number}.test/"))
    world.clock.at += 0.001
    assert verifies(world, "a1", KeySource(jwks_uri="https://idp-0.test/"))
    world.fetcher.publish_keys(A1.jwk)

    assert verifies(world)

    names = world.ring.status()
    assert len(names) == MAX_SOURCES
    assert URI in names
    assert "https://idp-0.test/" in names
    assert "https://idp-1.test/" not in names


def test_sources_that_are_no_longer_trusted_are_forgotten(world: World) -> None:
    world.fetcher.publish_keys(signer("b1").jwk, at=OTHER_URI)
    assert verifies(world, "b1", OTHER)

    world.ring.keep_only([OTHER, KeySource(jwks=A1.jwks)])
    world.clock.at += 60
    world.ring.refresh_due()

    assert list(world.ring.status()) == [OTHER_URI]
    assert world.fetcher.fetched == [URI, OTHER_URI, OTHER_URI]


def test_status_tells_age_error_and_dropped_keys() -> None:
    world = World()
    world.fetcher.publish_keys(A1.jwk, {"kty": "oct", "k": "AAAA"})
    assert world.ring.status() == {}
    assert verifies(world)
    world.clock.at += 12.0

    status = world.ring.status()[URI]

    assert (status.age, status.last_error, status.attempts, status.keys) == (12.0, "", 1, 1)
    assert status.rejected == ("the key has private or symmetric members",)


def test_a_document_is_fetched_with_the_size_limit(world: World) -> None:
    assert world.fetcher.limits == [256 * 1024]


# ---- keys given in the configuration


def test_configured_keys_are_used_without_a_fetch(world: World) -> None:
    source = KeySource(jwks=A2.jwks)

    assert verifies(world, "a2", source)
    assert verifies(world, "a2", source)
    assert refusal_of(world, "a1", source) is Reason.UNKNOWN_KEY
    assert refusal_of(world, "a1", KeySource(jwks={"keys": []})) is Reason.KEY_SOURCE_UNAVAILABLE
    assert world.fetcher.fetched == [URI]


def test_configured_keys_are_read_once_and_a_new_set_replaces_them(world: World) -> None:
    first, second = KeySource(jwks=A1.jwks), KeySource(jwks=A2.jwks)

    assert world.ring.key(first, "a1", "ES256") is world.ring.key(first, "a1", "ES256")
    assert verifies(world, "a2", second)
    assert refusal_of(world, "a1", second) is Reason.UNKNOWN_KEY


def test_configured_keys_in_memory_are_bounded(world: World) -> None:
    sources = [KeySource(jwks=A1.jwks) for _ in range(MAX_SOURCES + 5)]

    assert all(verifies(world, "a1", source) for source in sources)
    assert len(world.ring._static) == MAX_SOURCES
    told = world.ring.memory()
    assert told.entries <= told.capacity == 2 * MAX_SOURCES
    assert told.misses > MAX_SOURCES
    assert verifies(world, "a1", sources[0])


def test_a_source_without_anything_is_a_fault_of_the_caller(world: World) -> None:
    with pytest.raises(ValueError, match="jwks_uri"):
        world.ring.key(KeySource(), "a1", "ES256")
