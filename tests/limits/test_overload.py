"""More is asked for than can be done: what can be done is done, in time, and the rest is told when."""

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
import structlog

from broker.endpoints.overload import Overloaded, Places
from broker.oauth import GRANT_CLIENT_CREDENTIALS
from broker.v1 import token_service_pb2
from tests.e2e.patience import holds, is_swift, until
from tests.e2e.torrent import Torrent, pour
from tests.limits.busy_program import CAPACITY
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
BODY = f"grant_type={GRANT_CLIENT_CREDENTIALS}"
FORM = "application/x-www-form-urlencoded"
TRIES = 5
"""A machine that is busy with other things may spoil now one measurement and now another."""


@contextmanager
def busy(face: str) -> Iterator[int]:
    """A face over a slow core; the port that it is on."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.limits.busy_program", face, str(port)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    def is_there() -> bool:
        assert process.poll() is None
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    try:
        until(is_there, seconds=60, what="the face is there")
        yield port
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def torrent(face: str, port: int, *rates: float, seconds: float) -> Torrent:
    if face == "http":
        head = f"POST /token HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {FORM}\r\n"
        return Torrent(face, port, head, BODY, rates, seconds)
    message = token_service_pb2.IssueClientTokenRequest(resources=["https://api.test/v1"])
    method = "/broker.v1.TokenService/IssueClientToken"
    body = message.SerializeToString().decode("latin-1")
    return Torrent(face, port, method, body, rates, seconds)


@pytest.mark.requirement("DOS-03")
@pytest.mark.parametrize("face", ["http", "grpc"])
def test_at_five_times_the_load_as_much_is_done_as_can_be(face: str) -> None:
    with busy(face) as port:
        assert holds(lambda: is_done_as_can_be(face, port), tries=TRIES)


def is_done_as_can_be(face: str, port: int) -> bool:
    """Whether a flood takes nothing from what is done, when the machine has nothing else to do."""
    fair, flood = pour(torrent(face, port, CAPACITY, 5 * CAPACITY, seconds=3))
    assert flood.broken == 0
    # The machine may have had other things to do, in both.
    possible = min(CAPACITY, fair.goodput)
    return (
        possible > CAPACITY / 2
        and flood.goodput >= 0.8 * possible
        and flood.wait(0.99) < 3
        and flood.refused + flood.unsent > 2 * len(flood.waits)
        and flood.refused > len(flood.waits) / 2
    )


@pytest.mark.requirement("R-34")
def test_a_herd_that_comes_at_once_is_served_within_half_a_minute() -> None:
    tries: list[int] = []

    def come(port: int, begin: threading.Barrier) -> None:
        begin.wait()
        for number in range(1, 100):
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
                connection.request("POST", "/token", BODY, {"Content-Type": FORM})
                answer = connection.getresponse()
                answer.read()
            if answer.status == 200:
                tries.append(number)
                break
            assert answer.status == 503
            time.sleep(int(answer.headers["Retry-After"]))

    clients = 400
    begin = threading.Barrier(clients + 1)
    with busy("http") as port:
        threads = [threading.Thread(target=come, args=(port, begin)) for _ in range(clients)]
        for thread in threads:
            thread.start()
        begin.wait()
        begun = time.monotonic()
        for thread in threads:
            thread.join(60)
        took = time.monotonic() - begun

    assert len(tries) == clients
    assert max(tries) > 1, "some were turned away"
    assert took < 30


def take_all(places: Places, number: int) -> None:
    for _ in range(number):
        places.__enter__()


def refusal(places: Places) -> Overloaded:
    with pytest.raises(Overloaded) as refused, places:
        pass
    return refused.value


def test_a_place_that_is_left_is_free_again() -> None:
    places = Places(1, patience=0)
    for _ in range(3):
        with places:
            refusal(places)


def test_after_a_pause_a_burst_waits_and_is_served() -> None:
    places = Places(2, patience=120)
    served: list[int] = []

    def come(number: int) -> None:
        with places:
            served.append(number)

    with places, places:
        # However long this machine takes, that was a pause.
        places._idle_at += 60
        threads = [threading.Thread(target=come, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        until(lambda: places._waiting == 20, seconds=60, what="all wait")
        places.check()
        assert not served
    for thread in threads:
        thread.join(60)
    assert sorted(served) == list(range(20))


def test_in_a_queue_that_stands_few_wait_and_nobody_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = Places(2, patience=120)
    with places, places:
        places._idle_at -= 1

        def seconds_of_refusal() -> float:
            begun = time.monotonic()
            refusal(places)
            return time.monotonic() - begun

        assert is_swift(seconds_of_refusal, seconds=1.0)
        # So long that all of them are here at once, on whatever machine.
        monkeypatch.setattr("broker.endpoints.overload._TARGET_SECONDS", 120)
        threads = [threading.Thread(target=take_all, args=(places, 1)) for _ in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: places._waiting == 2, seconds=60, what="as many wait as there are places")
        with pytest.raises(Overloaded):
            places.check()
        refusal(places)
    for thread in threads:
        thread.join(60)
        places.__exit__(None, None, None)
    places.check()
    with places:
        pass
    assert not places._is_standing()


def test_more_than_may_wait_are_turned_away_at_once() -> None:
    places = Places(1, patience=120, waiting=3)
    over = threading.Event()

    def come() -> None:
        with places:
            over.wait(60)

    with places:
        places._idle_at += 60
        threads = [threading.Thread(target=come) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: places._waiting == 3, seconds=60, what="all wait")
        refusal(places)
        over.set()
    for thread in threads:
        thread.join(60)


@pytest.mark.requirement("R-34")
def test_the_more_are_turned_away_the_later_they_are_told_to_come_back() -> None:
    places = Places(1, patience=0)
    with structlog.testing.capture_logs():
        take_all(places, 1)
        few = {refusal(places).retry_after for _ in range(100)}
        places._turned_away, places._served, places._next_line = 900, 100, 0
        many = {refusal(places).retry_after for _ in range(200)}

    assert few == {1, 2}
    assert min(many) >= 9
    assert max(many) <= 18
    assert len(many) > 5
