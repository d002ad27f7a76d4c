"""However many want a token, the broker is asked once; and who goes does no harm to who stays."""

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from broker.client import (
    BadAnswer,
    Broker,
    IdToken,
    Patience,
    Refused,
    Secret,
    SyncBroker,
    Token,
    TokenCache,
    Unavailable,
)
from broker.client.asks import Ask, exchange
from broker.client.cache import key_of
from tests.client.scripted_server import Asked, Reply, ScriptedServer, scripted_server, told
from tests.client.test_token_cache import jwt_until
from tests.e2e.patience import until

API = "https://api.example"
NOW = 1_795_262_400.0
CALLERS = 11
SECRET = Secret("tickets", "s3cret")
REFUSAL = told({"error": "invalid_target"}, 400)


class Clock:
    """Unix seconds that stand still until a test moves them."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Scene:
    """A broker that grants a new token to each request, and the clock of whoever asks."""

    server: ScriptedServer
    clock: Clock

    def cache(self) -> TokenCache:
        """A cache by the scene's clock, without jitter."""
        return TokenCache(self.clock, monotonic=self.clock, jitter=lambda: 0.5)

    def broker(self, **options: Any) -> Broker:
        """The library in an event loop."""
        return Broker(self.server.origin, SECRET, cache=self.cache(), **options)

    def sync_broker(self, **options: Any) -> SyncBroker:
        """The library in threads."""
        return SyncBroker(self.server.origin, SECRET, cache=self.cache(), **options)

    @property
    def count(self) -> int:
        """How often the broker was asked."""
        return len(self.server.asked)


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A broker whose tokens live for 105 s: in use for 100 s, due after 80 s."""
    numbers = count(1)

    def grant(asked: Asked) -> Reply:
        members = {"access_token": f"token-{next(numbers)}", "token_type": "Bearer"}
        # The broker writes a resource in its normal form.
        return told({**members, "expires_in": 105, "resource": asked.form["resource"].lower()})

    with scripted_server() as server:
        server.otherwise = grant
        yield Scene(server, Clock())


def in_a_loop(scene: Scene, act: Callable[[Broker], Awaitable[None]], **options: Any) -> None:
    """Do something with the library in an event loop."""

    async def run() -> None:
        async with scene.broker(**options) as broker:
            await act(broker)

    asyncio.run(run())


async def landed(broker: Broker) -> None:
    """Wait until nothing is under way."""
    while broker._flights:
        await asyncio.wait(set(broker._flights.values()))
        await asyncio.sleep(0)


def settled(broker: SyncBroker) -> None:
    """The same in threads."""
    until(lambda: not broker._flights, seconds=30, what="every flight has landed")


async def asked(scene: Scene, times: int) -> None:
    """Wait until the broker was asked this often."""
    await asyncio.to_thread(until, lambda: scene.count >= times, seconds=30, what="it was asked")


async def want(broker: Broker, subject: str = "subject") -> Token:
    return await broker.token_for(subject, resource=API)


def want_sync(broker: SyncBroker, subject: str = "subject") -> Token:
    return broker.token_for(subject, resource=API)


def test_eleven_tasks_make_one_exchange(scene: Scene) -> None:
    async def act(broker: Broker) -> None:
        tokens = await asyncio.gather(*(want(broker) for _ in range(CALLERS)))
        assert {token.access_token for token in tokens} == {"token-1"}

    in_a_loop(scene, act)

    assert scene.count == 1


def test_eleven_threads_make_one_exchange(scene: Scene) -> None:
    together = threading.Barrier(CALLERS)

    def call(_number: int) -> Token:
        together.wait(60)
        return want_sync(broker)

    with scene.sync_broker() as broker, ThreadPoolExecutor(CALLERS) as threads:
        tokens = list(threads.map(call, range(CALLERS)))

    assert {token.access_token for token in tokens} == {"token-1"}
    assert scene.count == 1


def test_own_tokens_are_fetched_once_too(scene: Scene) -> None:
    async def act(broker: Broker) -> None:
        await asyncio.gather(*(broker.own_token(resource=API) for _ in range(CALLERS)))

    in_a_loop(scene, act)
    with scene.sync_broker() as broker:
        assert broker.own_token(resource=API) == broker.own_token(resource=API)

    assert [one.form["grant_type"] for one in scene.server.asked] == ["client_credentials"] * 2


def test_other_subjects_resources_and_scopes_are_other_tokens(scene: Scene) -> None:
    with scene.sync_broker() as broker:
        tokens = [
            broker.token_for("one", resource=API),
            broker.token_for("two", resource=API),
            broker.token_for("one", resource="https://other.example"),
            broker.token_for("one", resource=API, scopes=["a"]),
            broker.own_token(resource=API),
        ]

    assert len({token.access_token for token in tokens}) == 5


def test_the_first_caller_may_go_without_the_others_losing_the_token(scene: Scene) -> None:
    gate = threading.Event()
    granted = {"access_token": "late", "token_type": "Bearer", "expires_in": 105}
    scene.server.script.append(Reply(200, told(granted).body, gate=gate))

    async def act(broker: Broker) -> None:
        first = asyncio.create_task(want(broker))
        await asyncio.sleep(0)
        others = [asyncio.create_task(want(broker)) for _ in range(CALLERS)]
        await asked(scene, 1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.set()
        assert {token.access_token for token in await asyncio.gather(*others)} == {"late"}

    in_a_loop(scene, act)

    assert scene.count == 1


def test_when_all_have_gone_the_token_is_there_for_the_next(scene: Scene) -> None:
    gate = threading.Event()
    granted = {"access_token": "late", "token_type": "Bearer", "expires_in": 105}
    scene.server.script.append(Reply(200, told(granted).body, gate=gate))

    async def act(broker: Broker) -> None:
        impatient = asyncio.create_task(want(broker))
        await asked(scene, 1)
        impatient.cancel()
        gate.set()
        await landed(broker)
        assert (await want(broker)).access_token == "late"

    in_a_loop(scene, act)

    assert scene.count == 1


def test_a_failure_that_nobody_waits_for_is_no_noise(scene: Scene) -> None:
    gate = threading.Event()
    scene.server.script.append(Reply(400, REFUSAL.body, gate=gate))

    async def act(broker: Broker) -> None:
        noise: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, told: noise.append(told))
        impatient = asyncio.create_task(want(broker))
        await asked(scene, 1)
        impatient.cancel()
        gate.set()
        await landed(broker)
        assert not noise

    in_a_loop(scene, act)


def test_all_who_wait_hear_of_a_refusal_each_by_an_error_of_his_own(scene: Scene) -> None:
    scene.server.script.append(REFUSAL)

    async def act(broker: Broker) -> None:
        outcomes = await asyncio.gather(
            *(want(broker) for _ in range(CALLERS)), return_exceptions=True
        )
        assert {str(one) for one in outcomes} == {"invalid_target"}
        assert len({id(one) for one in outcomes}) == CALLERS

    in_a_loop(scene, act)

    assert scene.count == 1


def test_threads_hear_of_a_refusal_too(scene: Scene) -> None:
    scene.server.script.append(REFUSAL)
    together = threading.Barrier(CALLERS)

    def call(_number: int) -> BaseException | None:
        together.wait(60)
        try:
            want_sync(broker)
        except Refused as refused:
            return refused
        return None

    with scene.sync_broker() as broker, ThreadPoolExecutor(CALLERS) as threads:
        outcomes = list(threads.map(call, range(CALLERS)))

    assert {str(one) for one in outcomes} == {"invalid_target"}
    assert len({id(one) for one in outcomes}) == CALLERS
    assert scene.count == 1


def test_a_refusal_is_remembered_for_a_moment(scene: Scene) -> None:
    scene.server.script.append(REFUSAL)

    with scene.sync_broker() as broker:
        for _ in range(CALLERS):
            with pytest.raises(Refused):
                want_sync(broker)
        refusals = scene.count
        scene.clock.now += 2.1
        token = want_sync(broker)

    assert (refusals, token.access_token, scene.count) == (1, "token-1", 2)


def test_that_the_broker_was_away_is_not_remembered(scene: Scene) -> None:
    scene.server.script.append(Reply(503))

    with scene.sync_broker(patience=Patience(attempts=1)) as broker:
        with pytest.raises(Unavailable):
            want_sync(broker)
        assert want_sync(broker).access_token == "token-1"


def test_a_token_is_refreshed_before_it_expires_and_nobody_waits_for_that(scene: Scene) -> None:
    async def act(broker: Broker) -> None:
        await want(broker)
        scene.clock.now += 81
        gate = threading.Event()
        renewed = {"access_token": "renewed", "token_type": "Bearer", "expires_in": 105}
        scene.server.script.append(Reply(200, told(renewed).body, gate=gate))
        due = [await want(broker) for _ in range(CALLERS)]
        assert {token.access_token for token in due} == {"token-1"}
        gate.set()
        await landed(broker)
        assert (await want(broker)).access_token == "renewed"

    in_a_loop(scene, act)

    assert scene.count == 2


def test_threads_do_not_wait_for_a_refresh_either(scene: Scene) -> None:
    gate = threading.Event()
    renewed = {"access_token": "renewed", "token_type": "Bearer", "expires_in": 105}

    with scene.sync_broker() as broker:
        want_sync(broker)
        scene.clock.now += 81
        scene.server.script.append(Reply(200, told(renewed).body, gate=gate))
        due = [want_sync(broker) for _ in range(CALLERS)]
        gate.set()
        settled(broker)
        after = want_sync(broker)

    assert {token.access_token for token in due} == {"token-1"}
    assert (after.access_token, scene.count) == ("renewed", 2)


@pytest.mark.parametrize("failure", [Reply(503), REFUSAL, Reply(200, b"<html>")])
def test_a_refresh_that_fails_concerns_nobody_and_is_tried_again_later(
    scene: Scene, failure: Reply
) -> None:
    async def act(broker: Broker) -> None:
        await want(broker)
        scene.clock.now += 81
        scene.server.script.append(failure)
        for _ in range(CALLERS):
            assert (await want(broker)).access_token == "token-1"
            await landed(broker)
        assert scene.count == 2
        scene.clock.now += 2.1
        await want(broker)
        await landed(broker)
        assert (await want(broker)).access_token == "token-2"

    in_a_loop(scene, act, patience=Patience(attempts=1))

    assert scene.count == 3


def test_a_token_that_has_expired_is_never_handed_out(scene: Scene) -> None:
    with scene.sync_broker(patience=Patience(attempts=1)) as broker:
        want_sync(broker)
        scene.clock.now += 100
        scene.server.script.append(Reply(503))
        with pytest.raises(Unavailable):
            want_sync(broker)


def test_a_token_is_not_used_longer_than_what_it_was_made_of(scene: Scene) -> None:
    subject_token = jwt_until(NOW + 50)

    with scene.sync_broker() as broker:
        want_sync(broker, subject_token)
        scene.clock.now += 46
        token = want_sync(broker, subject_token)

    assert token.access_token == "token-2"


def test_a_token_that_is_all_but_dead_is_handed_out_once(scene: Scene) -> None:
    subject_token = jwt_until(NOW + 4)

    with scene.sync_broker() as broker:
        first, second = want_sync(broker, subject_token), want_sync(broker, subject_token)

    assert (first.access_token, second.access_token) == ("token-1", "token-2")


def test_a_token_that_was_not_accepted_is_forgotten_and_no_other(scene: Scene) -> None:
    async def act(broker: Broker) -> None:
        # The broker names the resource in its normal form, which may not be how it was asked for.
        refused = await broker.token_for("subject", resource="HTTPS://API.example")
        kept = await want(broker, "another")
        broker.forget(refused)
        assert await want(broker, "another") == kept
        renewed = await broker.token_for("subject", resource="HTTPS://API.example")
        assert renewed != refused
        broker.forget(refused)
        assert await broker.token_for("subject", resource="HTTPS://API.example") == renewed

    in_a_loop(scene, act)

    assert scene.count == 3


def test_a_new_event_loop_does_not_wait_for_what_a_closed_one_had_under_way(scene: Scene) -> None:
    gate = threading.Event()
    scene.server.script.append(Reply(200, b"{}", gate=gate))
    broker = scene.broker()

    async def leave() -> None:
        waiting = asyncio.create_task(want(broker))
        await asked(scene, 1)
        waiting.cancel()

    asyncio.run(leave())
    token = asyncio.run(asyncio.wait_for(want(broker), 30))
    gate.set()

    assert token.access_token == "token-1"
    asyncio.run(broker.aclose())


def test_two_event_loops_that_run_need_two_clients(scene: Scene) -> None:
    async def use() -> None:
        async with scene.broker() as broker:
            await want(broker)
            with (
                ThreadPoolExecutor(1) as threads,
                pytest.raises(RuntimeError, match="one for each"),
            ):
                threads.submit(asyncio.run, want(broker, "another")).result()

    asyncio.run(use())


def test_a_process_that_is_forked_begins_anew(scene: Scene) -> None:
    """Of what the parent had under way nothing ever ends in the child."""
    gate = threading.Event()
    scene.server.script.append(Reply(200, b"{}", gate=gate))
    with scene.sync_broker() as broker:
        broker._take_off(key_of("subject", API, ()), ask_for("subject"), "subject")
        until(lambda: scene.count >= 1, seconds=30, what="it was asked")
        # A child finds everything as it was, but for the number of its process.
        broker._process = 0
        broker._lock.acquire()
        token = want_sync(broker)
        gate.set()

    assert token.access_token == "token-1"


def ask_for(subject: str) -> Ask[Token]:
    """The question that ``want`` asks."""
    return exchange(subject, resource=API)


def test_a_broker_that_drips_is_not_waited_for(scene: Scene) -> None:
    patience = Patience(deadline=0.5, attempts=1)
    with dripping() as origin, SyncBroker(origin, SECRET, patience=patience) as broker:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="in time"):
            broker.exchange("subject", resource=API)
        with pytest.raises(Unavailable, match="in time"):
            want_sync(broker)

    assert time.monotonic() - began < 20
    assert scene.count == 0


@contextmanager
def dripping() -> Iterator[str]:
    """A server that answers a byte at a time, and never comes to an end."""
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def drip(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while not over.wait(0.05):
                connection.sendall(b"a")

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=drip, args=(connection,), daemon=True).start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(60)


def test_an_id_token_is_exchanged_as_what_it_is_and_is_another_question(scene: Scene) -> None:
    with scene.sync_broker() as broker:
        broker.token_for("subject", resource=API)
        broker.token_for(IdToken("subject"), resource=API)
        broker.token_for(IdToken("subject"), resource=API)
        broker.exchange(IdToken("subject"), resource=API)

    kinds = [one.form["subject_token_type"].rpartition(":")[2] for one in scene.server.asked]
    assert kinds == ["access_token", "id_token", "id_token"]


def test_what_is_revoked_is_not_handed_out_any_more(scene: Scene) -> None:
    with scene.sync_broker() as broker:
        first = want_sync(broker)
        scene.server.script.append(Reply(200, b""))
        broker.revoke(first.access_token)
        second = want_sync(broker)
        scene.server.script.append(Reply(200, b""))
        broker.revoke("subject")
        third = want_sync(broker)

    assert len({first, second, third}) == 3


def test_a_client_that_is_closed_says_so(scene: Scene) -> None:
    broker = scene.sync_broker()
    broker.close()
    with pytest.raises(Unavailable, match="closed"):
        broker.exchange("subject", resource=API)

    async def act() -> None:
        closed = scene.broker()
        await closed.aclose()
        with pytest.raises(Unavailable, match="closed"):
            await closed.exchange("subject", resource=API)

    asyncio.run(act())


@pytest.mark.parametrize(
    "answer",
    [{"access_token": "subject"}, {"access_token": "t", "resource": "https://other.example"}],
    ids=["the subject token", "a token for another resource"],
)
def test_what_was_not_asked_for_is_no_answer(scene: Scene, answer: dict[str, str]) -> None:
    reply = told({"token_type": "Bearer", "expires_in": 300, "resource": API, **answer})
    scene.server.otherwise = lambda _asked: reply
    with scene.sync_broker() as broker:
        with pytest.raises(BadAnswer):
            want_sync(broker)
        with pytest.raises(BadAnswer):
            broker.exchange("subject", resource=API)
        assert len(broker._cache) == 0


def test_closing_ends_what_is_under_way(scene: Scene) -> None:
    gate = threading.Event()
    scene.server.script.append(Reply(200, b"{}", gate=gate))

    async def act(broker: Broker) -> None:
        waiting = asyncio.create_task(want(broker))
        await asked(scene, 1)
        await broker.aclose()
        with pytest.raises(Unavailable, match="closed"):
            await waiting

    in_a_loop(scene, act)
    gate.set()
