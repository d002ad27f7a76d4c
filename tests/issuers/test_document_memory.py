"""When clients' documents are fetched, how long they count, and what a flood of ids comes to."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from broker.errors import RateLimited, Reason, TokenRejected
from broker.fetch import FetchReason
from broker.issuers import FetchedClientDocuments
from broker.issuers.client_documents import (
    COOL_DOWN,
    LONGEST_LIFETIME,
    MAX_DOCUMENT_BYTES,
    MAX_KEYS_BYTES,
    MOST_REMEMBERED,
    MOST_WAITING,
    SHORTEST_LIFETIME,
    USUAL_LIFETIME,
)
from broker.issuers.fetch_places import (
    MOST_AT_ONCE,
    MOST_AT_ONCE_PER_HOST,
    MOST_NEW_PER_MINUTE,
)
from broker.oauth import AUTH_NONE, AUTH_PRIVATE_KEY_JWT
from tests.idp import signer
from tests.issuers.scripted import Clock, ScriptedFetcher

URL = "https://c.test/app.json"
KEYS = "https://keys.test/jwks"
C1, C2 = signer("c1"), signer("c2")


class World:
    """Documents on a standing clock, and the scripted servers that they are at."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.fetcher = ScriptedFetcher(self.clock)
        self.documents = FetchedClientDocuments(self.fetcher, monotonic=self.clock)

    def publish(self, url: str = URL, *, max_age: int | None = None, **members: Any) -> None:
        """Let a good document with these members be found there."""
        keys = {} if "jwks_uri" in members else {"jwks": C1.jwks}
        document = {
            "client_id": url,
            "token_endpoint_auth_method": AUTH_PRIVATE_KEY_JWT,
            **keys,
            **members,
        }
        self.fetcher.publish(document, at=url, max_age=max_age)

    def verifies(self, kid: str = "c1", url: str = URL) -> bool:
        key = self.documents.key(url, kid, "ES256")
        return key.verify(b"input", signer(kid).signature(b"input"))

    def refusal(self, url: str = URL) -> Reason:
        with pytest.raises((TokenRejected, RateLimited)) as refused:
            self.documents.document(url)
        assert isinstance(refused.value, TokenRejected | RateLimited)
        return refused.value.reason


@pytest.fixture
def world() -> World:
    world = World()
    world.publish()
    return world


@contextmanager
def held_up(world: World) -> Iterator[ThreadPoolExecutor]:
    """Threads whose fetches wait until the end of the block."""
    world.fetcher.gate.clear()
    with ThreadPoolExecutor(32) as pool:
        try:
            yield pool
        finally:
            world.fetcher.gate.set()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what other threads are about to do."""
    pause = threading.Event()
    for _ in range(3000):
        if condition():
            return
        pause.wait(0.01)
    pytest.fail("it did not come about")


# ---- how long a document counts


@pytest.mark.requirement("CIMD-08")
@pytest.mark.parametrize(
    ("max_age", "lifetime"),
    [
        (None, USUAL_LIFETIME),
        (0, SHORTEST_LIFETIME),
        (59, SHORTEST_LIFETIME),
        (600, 600.0),
        (100_000, LONGEST_LIFETIME),
    ],
)
def test_a_document_counts_as_long_as_its_server_says_within_bounds(
    world: World, max_age: int | None, lifetime: float
) -> None:
    world.publish(max_age=max_age)
    assert world.verifies()
    world.publish(token_endpoint_auth_method=AUTH_NONE)

    world.clock.at += 0.79 * lifetime
    assert world.documents.document(URL).auth_method == AUTH_PRIVATE_KEY_JWT
    assert len(world.fetcher.fetched) == 1
    world.clock.at += 0.01 * lifetime
    assert world.documents.document(URL).auth_method == AUTH_NONE
    assert len(world.fetcher.fetched) == 2


@pytest.mark.requirement("CIMD-14")
@pytest.mark.parametrize("fault", [FetchReason.TIMEOUT, FetchReason.STATUS, FetchReason.FAILED])
def test_a_document_that_cannot_be_had_anew_counts_to_its_end_and_no_further(
    world: World, fault: FetchReason
) -> None:
    assert world.verifies()
    world.fetcher.fail(fault, at=URL)

    world.clock.at += USUAL_LIFETIME - 1
    assert world.verifies()
    world.clock.at += 1
    assert world.refusal() is Reason[fault.value.upper()]


def test_keys_elsewhere_count_no_longer_than_either_server_says(world: World) -> None:
    world.publish(jwks_uri=KEYS, max_age=900)
    world.fetcher.publish(C1.jwks, at=KEYS, max_age=100)
    assert world.verifies()
    world.fetcher.publish(C2.jwks, at=KEYS)

    world.clock.at += 79
    world.documents.document(URL)
    assert world.fetcher.fetched == [URL, KEYS]
    world.clock.at += 1
    world.documents.document(URL)
    assert world.fetcher.fetched == [URL, KEYS, URL, KEYS]
    assert world.verifies("c2")


@pytest.mark.requirement("NET-14")
def test_both_fetches_together_have_one_deadline_and_their_own_limits(world: World) -> None:
    world.publish(jwks_uri=KEYS)
    world.fetcher.publish(C1.jwks, at=KEYS)
    world.fetcher.takes = 2.0

    assert world.verifies()
    assert world.fetcher.withins == pytest.approx([3.0, 1.0])
    assert world.fetcher.limits == [MAX_DOCUMENT_BYTES, MAX_KEYS_BYTES]
    assert MAX_DOCUMENT_BYTES == 5120


# ---- what is not remembered


@pytest.mark.requirement("NET-05", "NET-07", "CIMD-08")
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (FetchReason.BLOCKED, Reason.FETCH_BLOCKED),
        (FetchReason.REDIRECT, Reason.FETCH_REDIRECT),
        (FetchReason.STATUS, Reason.FETCH_STATUS),
        (FetchReason.TIMEOUT, Reason.FETCH_TIMEOUT),
        (FetchReason.TLS, Reason.FETCH_TLS),
        (FetchReason.FAILED, Reason.FETCH_FAILED),
        (FetchReason.TOO_LARGE, Reason.CIMD_INVALID),
        (FetchReason.MEDIA_TYPE, Reason.CIMD_INVALID),
        ({"client_id": "https://c.test/other.json"}, Reason.CIMD_ID_MISMATCH),
        ({"client_id": URL, "client_secret": "x"}, Reason.CIMD_FORBIDDEN_AUTH),
        (b"<html></html>", Reason.CIMD_INVALID),
    ],
    ids=str,
)
def test_a_failure_is_not_kept_but_is_not_repeated_at_once_either(
    world: World, fault: Any, reason: Reason
) -> None:
    if isinstance(fault, FetchReason):
        world.fetcher.fail(fault, at=URL)
    else:
        world.fetcher.publish(fault, at=URL)
    assert world.refusal() is reason
    world.publish()

    world.clock.at += COOL_DOWN - 0.1
    assert [world.refusal() for _ in range(100)] == [reason] * 100
    assert len(world.fetcher.fetched) == 1
    world.clock.at += 0.1
    assert world.verifies()


@pytest.mark.requirement("NET-10")
@pytest.mark.parametrize("fault", [FetchReason.BLOCKED, FetchReason.STATUS])
def test_a_failure_of_the_keys_is_a_failure_of_the_document(
    world: World, fault: FetchReason
) -> None:
    world.publish(jwks_uri=KEYS)
    world.fetcher.fail(fault, at=KEYS)

    assert world.refusal() is Reason[fault.value.upper()]
    world.fetcher.publish(C1.jwks, at=KEYS)
    world.clock.at += COOL_DOWN
    assert world.verifies()


@pytest.mark.requirement("NET-10")
def test_of_all_addresses_in_a_document_only_that_of_the_keys_is_fetched(world: World) -> None:
    inside = "https://169.254.169.254/latest"
    world.publish(
        jwks_uri=KEYS,
        redirect_uris=[inside],
        request_uris=[inside],
        client_uri=inside,
        logo_uri=inside,
        policy_uri=inside,
        tos_uri=inside,
        sector_identifier_uri=inside,
    )
    world.fetcher.publish(C1.jwks, at=KEYS)

    assert world.verifies()
    assert world.fetcher.fetched == [URL, KEYS]


def test_what_is_no_url_of_a_document_is_never_fetched(world: World) -> None:
    for url in ("https://c.test", "http://c.test/a", "https://127.0.0.1/a", "agent-x"):
        assert world.refusal(url) is Reason.CIMD_URL_INVALID

    assert world.fetcher.fetched == []


def test_a_fault_of_our_own_is_told_to_one_and_keeps_nobody_waiting(world: World) -> None:
    world.fetcher.fail(RuntimeError("a fault of our own"), at=URL)
    with pytest.raises(RuntimeError):
        world.documents.document(URL)

    world.publish()
    assert world.verifies()


# ---- keys that change


@pytest.mark.requirement("CIMD-11")
@pytest.mark.parametrize("at", ["inline", "elsewhere"])
def test_a_new_key_is_found_with_its_first_assertion(world: World, at: str) -> None:
    def publish(*jwks: Any) -> None:
        keys = {"keys": list(jwks)}
        world.publish(max_age=900, **({"jwks": keys} if at == "inline" else {"jwks_uri": KEYS}))
        world.fetcher.publish(keys, at=KEYS, max_age=900)

    publish(C1.jwk)
    assert world.verifies()
    publish(C2.jwk)

    world.clock.at += SHORTEST_LIFETIME
    assert world.verifies("c2")
    with pytest.raises(TokenRejected) as rejected:
        world.verifies("c1")
    assert rejected.value.reason is Reason.UNKNOWN_KEY


@pytest.mark.requirement("NET-17")
def test_a_flood_of_unknown_kids_causes_one_fetch_a_minute(world: World) -> None:
    world.publish(max_age=900)
    for number in range(1000):
        world.clock.at += 0.25
        with pytest.raises(TokenRejected) as rejected:
            world.documents.key(URL, f"k{number}", "ES256")
        assert rejected.value.reason is Reason.UNKNOWN_KEY

    assert len(world.fetcher.fetched) == 1 + 4


def test_an_unknown_kid_does_not_end_a_document_that_cannot_be_had_anew(world: World) -> None:
    world.publish(max_age=900)
    assert world.verifies()
    world.fetcher.fail(FetchReason.FAILED, at=URL)
    world.clock.at += SHORTEST_LIFETIME

    with pytest.raises(TokenRejected):
        world.verifies("c2")
    assert world.verifies("c1")


# ---- many at once


@pytest.mark.requirement("NET-17")
def test_of_many_that_want_a_document_one_fetches_it(world: World) -> None:
    with held_up(world) as pool:
        asked = [pool.submit(world.verifies) for _ in range(1 + MOST_WAITING)]
        until(lambda: world.documents._waiting == MOST_WAITING)
        late = [pool.submit(world.refusal) for _ in range(8)]
        assert [one.result(30) for one in late] == [Reason.FETCH_LIMIT] * 8

    assert all(one.result(30) for one in asked)
    assert world.fetcher.fetched == [URL]
    assert world.documents._waiting == 0


def test_whoever_waits_for_a_fetch_that_fails_is_told_why(world: World) -> None:
    world.fetcher.fail(FetchReason.TLS, at=URL)
    with held_up(world) as pool:
        asked = [pool.submit(world.refusal) for _ in range(3)]
        until(lambda: world.documents._waiting == 2)

    assert [one.result(30) for one in asked] == [Reason.FETCH_TLS] * 3


@pytest.mark.requirement("NET-14")
def test_nobody_waits_longer_than_a_fetch_may_take(world: World) -> None:
    world.documents._deadline = 0.01
    with held_up(world) as pool:
        asked = pool.submit(world.verifies)
        assert world.fetcher.is_waiting.wait(30)
        assert world.refusal() is Reason.FETCH_TIMEOUT
        assert not asked.done()

    assert asked.result(30)
    assert world.documents._waiting == 0


def test_whoever_comes_late_takes_what_was_fetched_meanwhile(world: World) -> None:
    assert world.verifies()
    world.documents._newer(URL, None)

    assert world.fetcher.fetched == [URL]


@pytest.mark.requirement("NET-14")
def test_a_document_is_fetched_ahead_of_its_end_while_others_go_on(world: World) -> None:
    assert world.verifies()
    world.clock.at += 0.9 * USUAL_LIFETIME
    with held_up(world) as pool:
        ahead = pool.submit(world.verifies)
        assert world.fetcher.is_waiting.wait(30)
        until(lambda: len(world.fetcher.fetched) == 2)

        assert all(pool.submit(world.verifies).result(30) for _ in range(20))

    assert ahead.result(30)
    assert len(world.fetcher.fetched) == 2


@pytest.mark.requirement("NET-14", "NET-17")
def test_a_slow_host_takes_few_threads_and_none_of_its_neighbours(world: World) -> None:
    slow = [f"https://slow.test/{number}" for number in range(10)]
    for url in (*slow, "https://other.test/app.json"):
        world.publish(url)
    assert world.verifies()
    with held_up(world) as pool:
        held = _begin(world, pool, slow[:MOST_AT_ONCE_PER_HOST])
        for url in slow[MOST_AT_ONCE_PER_HOST:]:
            assert world.refusal(url) is Reason.FETCH_LIMIT

        assert world.verifies()
        held += _begin(world, pool, ["https://other.test/app.json"])

    assert all(one.result(30) for one in held)
    assert world.verifies(url=slow[-1])


@pytest.mark.requirement("NET-17")
def test_slow_hosts_together_take_few_threads(world: World) -> None:
    urls = [f"https://h{number}.test/a" for number in range(MOST_AT_ONCE + 3)]
    for url in urls:
        world.publish(url)
    with held_up(world) as pool:
        held = _begin(world, pool, urls[:MOST_AT_ONCE])
        for url in urls[MOST_AT_ONCE:]:
            assert world.refusal(url) is Reason.FETCH_LIMIT

    assert all(one.result(30) for one in held)
    assert world.verifies(url=urls[-1])


@pytest.mark.requirement("NET-17")
def test_a_thousand_ids_at_one_host_cause_few_fetches_and_leave_others_alone(world: World) -> None:
    assert world.verifies()
    for number in range(1000):
        world.refusal(f"https://flood.test/{number}")
    with pytest.raises(RateLimited) as limited:
        world.documents.document("https://flood.test/app.json")

    assert len(world.fetcher.fetched) == 1 + MOST_NEW_PER_MINUTE
    assert limited.value.retry_after == 60
    world.publish("https://other.test/app.json")
    assert world.verifies(url="https://other.test/app.json")
    world.publish("https://flood.test/app.json")
    world.clock.at += 60
    assert world.verifies(url="https://flood.test/app.json")


def test_a_flood_at_a_host_does_not_keep_its_known_documents_from_being_renewed(
    world: World,
) -> None:
    assert world.verifies()
    world.clock.at += USUAL_LIFETIME
    for number in range(MOST_NEW_PER_MINUTE + 1):
        world.refusal(f"https://c.test/{number}")

    assert world.refusal("https://c.test/new") is Reason.FETCH_LIMIT
    assert world.verifies()


@pytest.mark.requirement("NET-17")
def test_a_thousand_hosts_leave_memory_flat(world: World) -> None:
    for number in range(MOST_REMEMBERED + 500):
        world.publish(f"https://h{number}.test/a", max_age=900)
        world.documents.document(f"https://h{number}.test/a")
        world.refusal(f"https://h{number}.test/none")
        assert world.verifies(url="https://h0.test/a")

    assert len(world.documents._held) == MOST_REMEMBERED
    assert len(world.documents._failed) == MOST_REMEMBERED
    assert len(world.documents._places._hosts) <= 1001
    assert world.fetcher.fetched.count("https://h0.test/a") == 1
    assert world.documents._flights == {}


def _begin(world: World, pool: ThreadPoolExecutor, urls: list[str]) -> list[Future[bool]]:
    """Fetches of these, all of them under way."""
    before = len(world.fetcher.fetched)
    started = [pool.submit(world.verifies, "c1", url) for url in urls]
    until(lambda: len(world.fetcher.fetched) == before + len(urls))
    return started
