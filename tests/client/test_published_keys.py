"""Which published keys are used, where they are fetched from, and how often."""

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest

from broker.client._documents import Documents, NotFetched
from broker.client._key_places import load_from
from broker.client._key_set import KeySet, read_key_set
from broker.client._key_source import KeySchedule, KeySource
from broker.client.refusals import InvalidToken, NotServed, Unverifiable
from broker.client.verify import SyncTokenVerifier, TokenVerifier
from broker.errors import Reason, TokenRejected
from tests.client.key_server import JSON, KeyServer, Page, json_page, running_key_server
from tests.client.receiving import (
    BROKER_KEY,
    KINDS,
    NOW,
    RESOURCE,
    STRANGER,
    good_token,
    receiver,
)
from tests.e2e.patience import until
from tests.idp import signer

RSA = signer("broker-rsa", "RS256")
SCHEDULE = KeySchedule(refresh_after=100, max_stale=1000, cool_down=10, attempt=5)


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with running_key_server() as running:
        running.publish(BROKER_KEY.jwk)
        yield running


def refuse(kind: str, server: KeyServer, /, **settings: Any) -> NotServed:
    """How a good token is refused there."""
    with pytest.raises(NotServed) as refused:
        receiver(kind, server, **settings).verify(good_token(server.issuer))
    return refused.value


BAD_PAGES = {
    "no_such_page": Page(status=404),
    "a_redirect": Page(status=302, headers={"Location": "/elsewhere"}),
    "an_error_with_keys": Page(json_page(BROKER_KEY.jwks).body, status=500),
    "a_page_for_people": Page(
        json_page(BROKER_KEY.jwks).body, headers={"Content-Type": "text/html"}
    ),
    "no_media_type": Page(json_page(BROKER_KEY.jwks).body, headers={}),
    "an_encoded_page": json_page(BROKER_KEY.jwks, Content_Encoding="gzip"),
    "no_json": Page(b"keys"),
    "json_with_a_member_twice": Page(b'{"keys":[],' + json_page(BROKER_KEY.jwks).body[1:]),
    "a_list": json_page([BROKER_KEY.jwk]),
    "no_keys": json_page({"keys": []}),
    "keys_that_are_an_object": json_page({"keys": BROKER_KEY.jwk}),
    "more_than_a_hundred_keys": json_page({"keys": [BROKER_KEY.jwk, *[{}] * 100]}),
    "too_many_bytes": json_page({"keys": [BROKER_KEY.jwk], "note": "x" * 300_000}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("page", BAD_PAGES)
def test_keys_are_taken_only_from_a_plain_small_document(
    server: KeyServer, kind: str, page: str
) -> None:
    server.pages = {"/broker/jwks": BAD_PAGES[page], "/elsewhere": json_page(BROKER_KEY.jwks)}

    refused = refuse(kind, server)

    assert isinstance(refused, Unverifiable)
    assert (refused.status, refused.retry_after) == (503, 10)
    assert refused.detail
    assert server.asked == ["/broker/jwks"]


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in BROKER_KEY.jwk.items() if name not in names}


BAD_KEYS = {
    "for_another_algorithm": {**BROKER_KEY.jwk, "alg": "ES384"},
    "for_none": {**BROKER_KEY.jwk, "alg": "none"},
    "for_a_list_of_algorithms": {**BROKER_KEY.jwk, "alg": ["ES256"]},
    "for_no_algorithm_that_it_says": without("alg"),
    "for_encryption": {**BROKER_KEY.jwk, "use": "enc"},
    "for_signing_only": {**BROKER_KEY.jwk, "key_ops": ["sign"]},
    "without_a_name": without("kid"),
    "with_a_number_for_a_name": {**BROKER_KEY.jwk, "kid": 7},
    "private": {**BROKER_KEY.jwk, "d": BROKER_KEY.jwk["x"]},
    "symmetric": {"kty": "oct", "k": "c2VjcmV0", "kid": "broker-at", "alg": "ES256"},
    "of_another_type": {**RSA.jwk, "kid": "broker-at", "alg": "ES256"},
    "of_another_curve": {**signer("x", "ES384").jwk, "kid": "broker-at", "alg": "ES256"},
    "off_the_curve": {**BROKER_KEY.jwk, "y": BROKER_KEY.jwk["x"]},
    "without_a_coordinate": without("y"),
    "with_a_number_for_a_coordinate": {**BROKER_KEY.jwk, "x": 7},
    "with_an_endless_coordinate": {**BROKER_KEY.jwk, "x": "A" * 2000},
    "no_object": "broker-at",
}


@pytest.mark.requirement("JWT-01", "JWT-03")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_that_is_not_for_this_is_not_used(server: KeyServer, kind: str, key: str) -> None:
    server.pages["/broker/jwks"] = json_page({"keys": [BAD_KEYS[key], STRANGER.jwk]})

    refused = refuse(kind, server)

    assert isinstance(refused, InvalidToken)
    assert refused.reason is Reason.UNKNOWN_KEY


@pytest.mark.parametrize(
    ("cache_control", "loads"),
    [("public, max-age=50", 1), ("max-age=5", 2), ("no-store", 2), ("max-age=50, no-cache", 2)],
)
def test_what_the_server_says_of_freshness_is_heard(
    server: KeyServer, cache_control: str, loads: int
) -> None:
    server.publish(BROKER_KEY.jwk, Cache_Control=cache_control)
    now = [1000.0]
    load = load_from(
        Documents(), server.issuer, jwks_uri=f"{server.issuer}/jwks", algorithms=("ES256",)
    )
    source = KeySource(load, schedule=SCHEDULE, monotonic=lambda: now[0])
    for _ in range(2):
        flight = source.flight_for("broker-at", "ES256")
        if flight is not None:
            flight.result(60)
        now[0] += 15

    assert len(server.asked) == loads


def test_of_two_keys_of_one_name_neither_is_used(server: KeyServer) -> None:
    twin = {**STRANGER.jwk, "kid": BROKER_KEY.kid}
    server.publish(BROKER_KEY.jwk, twin, STRANGER.jwk)

    refused = refuse("sync", server)

    assert isinstance(refused, InvalidToken)
    assert refused.reason is Reason.UNKNOWN_KEY


def test_a_weak_rsa_key_is_not_used() -> None:
    modulus = base64.urlsafe_b64encode((2**1023 + 1).to_bytes(128, "big")).decode().rstrip("=")
    short = {"kty": "RSA", "n": modulus, "e": "AQAB", "kid": "short", "alg": "RS256"}

    assert set(read_key_set({"keys": [short, RSA.jwk]}, ("RS256",)).keys) == {(RSA.kid, "RS256")}


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "RS256", "PS256", "EdDSA"])
def test_every_algorithm_that_can_be_pinned_verifies(server: KeyServer, algorithm: str) -> None:
    key = signer(f"pinned-{algorithm}", algorithm)
    server.publish(key.jwk)
    verifier = receiver("sync", server, algorithms=(algorithm,))

    assert verifier.verify(good_token(server.issuer, key=key)).subject == "ann"


METADATA = "/.well-known/oauth-authorization-server/broker"


@pytest.mark.parametrize("kind", KINDS)
def test_keys_are_found_through_the_issuers_metadata(server: KeyServer, kind: str) -> None:
    server.publish(BROKER_KEY.jwk, path="/other/place")
    found = {"issuer": server.issuer, "jwks_uri": f"{server.origin}/other/place"}
    server.pages[METADATA] = json_page(found)

    verifier = receiver(kind, server, is_discovered=True)

    assert verifier.verify(good_token(server.issuer)).subject == "ann"
    assert server.asked == [METADATA, "/other/place"]


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://evil.example"},
        {"issuer": None},
        {"jwks_uri": None},
        {"jwks_uri": "https://evil.example/jwks"},
        {"jwks_uri": "http://127.0.0.1:1/jwks"},
        {"jwks_uri": "/broker/jwks"},
        {"jwks_uri": ["/broker/jwks"]},
    ],
    ids=str,
)
def test_metadata_that_points_elsewhere_is_not_followed(
    server: KeyServer, changes: dict[str, Any]
) -> None:
    found = {"issuer": server.issuer, "jwks_uri": f"{server.issuer}/jwks", **changes}
    server.pages[METADATA] = json_page(found)

    assert isinstance(refuse("sync", server, is_discovered=True), Unverifiable)
    assert server.asked == [METADATA]


def test_keys_may_be_at_a_place_that_is_told(server: KeyServer) -> None:
    server.publish(BROKER_KEY.jwk, path="/mirror")
    verifier = receiver("sync", server, jwks_uri=f"{server.origin}/mirror")

    assert verifier.verify(good_token(server.issuer)).subject == "ann"
    assert server.asked == ["/mirror"]


def test_an_answer_without_end_is_given_up(server: KeyServer) -> None:
    gate = threading.Event()
    server.pages["/broker/jwks"] = Page(json_page(BROKER_KEY.jwks).body, headers=JSON, gate=gate)
    impatient = KeySchedule(cool_down=0.1, attempt=0.1)

    refused = refuse("sync", server, schedule=impatient)
    gate.set()

    assert isinstance(refused, Unverifiable)


class Publisher:
    """What a key source loads from, by a clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.keys: KeySet | None = read_key_set(BROKER_KEY.jwks, ("ES256",))
        self.max_age: float | None = None
        self.loads = 0
        self.source = KeySource(self.load, schedule=SCHEDULE, monotonic=lambda: self.now)

    def load(self, _within: float) -> tuple[KeySet, float | None]:
        self.loads += 1
        if self.keys is None:
            raise NotFetched("It is away.")
        return self.keys, self.max_age

    def publish(self, *names: str) -> None:
        """Publish the keys of these names."""
        self.keys = read_key_set({"keys": [signer(name).jwk for name in names]}, ("ES256",))

    def has(self, kid: str) -> bool:
        """Whether the source knows the key, after all waiting."""
        flight = self.source.flight_for(kid, "ES256")
        if flight is not None:
            flight.result(60)
        try:
            self.source.find(kid, "ES256")
        except TokenRejected:
            return False
        return True

    def settle(self) -> None:
        """Wait for a fetch that nobody waits for."""
        with self.source._lock:
            flight = self.source._flight
        if flight is not None:
            flight.result(60)


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


def test_known_keys_are_not_fetched_again(publisher: Publisher) -> None:
    assert all(publisher.has("broker-at") for _ in range(50))
    assert publisher.loads == 1


def test_unknown_names_cause_one_fetch_per_cool_down(publisher: Publisher) -> None:
    publisher.has("broker-at")
    publisher.now += 9.9
    assert not any(publisher.has(f"made-up-{number}") for number in range(50))
    assert publisher.loads == 1

    publisher.now += 0.1
    assert not any(publisher.has(f"made-up-{number}") for number in range(50))
    assert publisher.loads == 2


def test_a_new_key_is_found_by_its_name(publisher: Publisher) -> None:
    publisher.has("broker-at")
    publisher.publish("broker-at", "next")
    assert not publisher.has("next")

    publisher.now += 10
    assert publisher.has("next")


def test_a_withdrawn_key_is_refused_once_the_set_is_old(publisher: Publisher) -> None:
    publisher.has("broker-at")
    publisher.publish("next")
    publisher.now += 50
    assert publisher.has("broker-at")

    publisher.now += 50
    assert not publisher.has("broker-at")


def test_a_shorter_time_that_the_server_names_is_kept(publisher: Publisher) -> None:
    publisher.max_age = 20
    publisher.has("broker-at")
    publisher.publish("next")
    publisher.now += 20

    assert not publisher.has("broker-at")


@pytest.mark.parametrize(("max_age", "expected"), [(0, 10), (20, 20), (10**9, 100), (None, 100)])
def test_what_the_server_allows_is_bounded_on_both_sides(
    max_age: float | None, expected: float
) -> None:
    assert SCHEDULE.lifetime(max_age) == expected


def test_keys_are_renewed_ahead_of_time_while_nobody_waits(publisher: Publisher) -> None:
    publisher.has("broker-at")
    publisher.now += 80

    assert publisher.source.flight_for("broker-at", "ES256") is None
    publisher.settle()
    assert publisher.loads == 2


def test_old_keys_serve_while_the_server_is_away_and_not_for_ever(publisher: Publisher) -> None:
    publisher.has("broker-at")
    publisher.keys = None
    publisher.now += 999
    assert publisher.has("broker-at")

    publisher.now += 1
    with pytest.raises(Unverifiable) as refused:
        publisher.has("broker-at")
    assert refused.value.detail == "It is away."


def test_nobody_is_called_a_liar_while_the_server_is_away(publisher: Publisher) -> None:
    publisher.has("broker-at")
    publisher.keys = None
    publisher.now += 10

    with pytest.raises(Unverifiable):
        publisher.has("next")


def test_a_server_that_was_away_is_asked_again_after_the_cool_down(publisher: Publisher) -> None:
    keys, publisher.keys = publisher.keys, None
    for _ in range(5):
        with pytest.raises(Unverifiable):
            publisher.has("broker-at")
    assert publisher.loads == 1

    publisher.keys, publisher.now = keys, publisher.now + 10
    assert publisher.has("broker-at")


def test_while_a_server_hangs_keys_that_are_held_are_not_waited_for_again_and_again() -> None:
    publisher = Publisher()
    source = publisher.source
    assert publisher.has("broker-at")
    publisher.keys = None
    publisher.now += 100
    first = source.flight_for("broker-at", "ES256")
    assert first is not None
    first.result(60)

    for _ in range(5):
        publisher.now += 10
        assert source.flight_for("broker-at", "ES256") is None
        assert source.find("broker-at", "ES256").algorithm == "ES256"
    publisher.settle()
    publisher.now += 10
    assert source.flight_for("unknown", "ES256") is not None


def test_a_fetch_that_never_ends_does_not_block_the_next() -> None:
    gate, begun, now = threading.Event(), threading.Event(), [1000.0]

    def load(_within: float) -> tuple[KeySet, float | None]:
        if now[0] == 1000:
            begun.set()
            gate.wait(60)
            raise NotFetched("It came too late.")
        return read_key_set(BROKER_KEY.jwks, ("ES256",)), None

    source = KeySource(load, schedule=SCHEDULE, monotonic=lambda: now[0])
    stuck = source.flight_for("broker-at", "ES256")
    assert begun.wait(60)
    now[0] += 10
    second = source.flight_for("broker-at", "ES256")
    assert stuck is not None
    assert second is not None
    second.result(60)
    gate.set()
    stuck.result(60)

    assert source.find("broker-at", "ES256").algorithm == "ES256"


def test_a_server_that_never_comes_to_an_end_holds_four_threads_and_no_more() -> None:
    gate, now, loads = threading.Event(), [1000.0], []

    def load(_within: float) -> tuple[KeySet, float | None]:
        loads.append(1)
        if not gate.is_set():
            gate.wait(60)
            raise NotFetched("It came too late.")
        return read_key_set(BROKER_KEY.jwks, ("ES256",)), None

    source = KeySource(load, schedule=SCHEDULE, monotonic=lambda: now[0])
    flights = []
    for _ in range(20):
        flights.append(source.flight_for("broker-at", "ES256"))
        now[0] += 10
    with pytest.raises(Unverifiable):
        source.find("broker-at", "ES256")
    begun = [one for one in flights if one is not None]
    assert len(begun) == 4
    # A thread that came only now would find the gate open.
    until(lambda: len(loads) == 4, seconds=30, what="all four are under way")

    gate.set()
    wait(begun, timeout=60)
    assert len(loads) == 4
    last = source.flight_for("broker-at", "ES256")
    assert last is not None
    last.result(60)
    assert source.find("broker-at", "ES256").algorithm == "ES256"


@pytest.mark.parametrize("times", [(0, 1, 2), (3, 2, 4), (1, 5, 4)])
def test_a_schedule_that_contradicts_itself_is_refused(times: tuple[float, float, float]) -> None:
    cool_down, refresh_after, max_stale = times

    with pytest.raises(ValueError, match="must hold"):
        KeySchedule(refresh_after=refresh_after, max_stale=max_stale, cool_down=cool_down)


def test_forty_threads_that_need_the_keys_cause_one_fetch(server: KeyServer) -> None:
    verifier = SyncTokenVerifier(server.issuer, RESOURCE, clock=lambda: NOW)
    token = good_token(server.issuer)
    with ThreadPoolExecutor(40) as threads:
        found = [threads.submit(verifier.verify, token) for _ in range(40)]
        wait(found)

    assert {one.result().subject for one in found} == {"ann"}
    assert server.asked == ["/broker/jwks"]


def test_forty_tasks_that_need_the_keys_cause_one_fetch(server: KeyServer) -> None:
    verifier = TokenVerifier(server.issuer, RESOURCE, clock=lambda: NOW)
    token = good_token(server.issuer)

    async def forty() -> set[str]:
        return {
            one.subject
            for one in await asyncio.gather(*(verifier.verify(token) for _ in range(40)))
        }

    assert asyncio.run(forty()) == {"ann"}
    assert server.asked == ["/broker/jwks"]


def test_a_task_that_is_cancelled_takes_the_keys_from_nobody(server: KeyServer) -> None:
    gate = threading.Event()
    server.pages["/broker/jwks"] = Page(json_page(BROKER_KEY.jwks).body, gate=gate)
    verifier = TokenVerifier(server.issuer, RESOURCE, clock=lambda: NOW)
    token = good_token(server.issuer)

    async def first_goes() -> str:
        first = asyncio.ensure_future(verifier.verify(token))
        second = asyncio.ensure_future(verifier.verify(token))
        await asyncio.sleep(0)
        first.cancel()
        gate.set()
        return (await second).subject

    assert asyncio.run(first_goes()) == "ann"


def test_keys_may_arrive_after_the_loop_that_waited_is_gone(
    server: KeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()
    server.pages["/broker/jwks"] = Page(json_page(BROKER_KEY.jwks).body, gate=gate)
    verifier = TokenVerifier(server.issuer, RESOURCE, clock=lambda: NOW)
    token = good_token(server.issuer)

    async def too_late() -> None:
        async with asyncio.timeout(0.05):
            await verifier.verify(token)

    with pytest.raises(TimeoutError):
        asyncio.run(too_late())
    gate.set()

    assert asyncio.run(verifier.verify(token)).subject == "ann"
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


def test_one_verifier_serves_several_event_loops(server: KeyServer) -> None:
    verifier = TokenVerifier(server.issuer, RESOURCE, clock=lambda: NOW)
    verify: Callable[[], Any] = lambda: asyncio.run(verifier.verify(good_token(server.issuer)))  # noqa: E731 - submitted twice.
    with ThreadPoolExecutor(4) as threads:
        found = [threads.submit(verify) for _ in range(4)]

    assert {one.result().subject for one in found} == {"ann"}
    assert server.asked == ["/broker/jwks"]


def test_a_place_that_must_not_be_asked_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="https"):
        load_from(Documents(), "http://broker.example", jwks_uri=None, algorithms=("ES256",))


def test_a_server_that_is_not_there_is_a_failure_that_names_no_address() -> None:
    with pytest.raises(NotFetched) as failure:
        Documents().fetch("http://127.0.0.1:1/jwks", within=2)

    assert str(failure.value) == "ConnectError"
