import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

import grpc
import pytest
import structlog

from broker.rpc.reading import MessageReads
from broker.rpc.threads import CallEnd, CallThreads
from tests.rpc.calling import EXCHANGE, connected, serving
from tests.rpc.flooding import flooded
from tests.web.face_fakes import FakeToken, fake_endpoints

HEALTH = "/grpc.health.v1.Health/Check"
PATIENCE = 60.0


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def call_threads() -> int:
    return sum(thread.name == "grpc" for thread in threading.enumerate())


def resident_bytes() -> int:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


@pytest.mark.requirement("GRP-06")
@pytest.mark.requirement("HTP-13")
@pytest.mark.requirement("R-37")
@pytest.mark.parametrize("method", [EXCHANGE, HEALTH])
def test_who_opens_calls_without_messages_silences_nobody_and_leaves_nothing_behind(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.rpc.server.CallThreads", partial(CallThreads, idle=0.2))
    before = resident_bytes()
    with serving(fake_endpoints(FakeToken())) as (server, client):
        client.call(EXCHANGE)
        with flooded(server.port, method, connections=18):
            # The flood has come in once there are more threads than honest calls could need.
            until(lambda: call_threads() > 50)
            until_calm = time.monotonic() + 2
            with connected(server) as other:
                while time.monotonic() < until_calm:
                    other.call(EXCHANGE, timeout=PATIENCE)
                    other.call(HEALTH, timeout=PATIENCE)
            assert call_threads() < 700
        until(lambda: call_threads() < 8)
        client.call(EXCHANGE)
    assert resident_bytes() - before < 64 * 1024 * 1024


class SilentCall:
    """A call as gRPC presents it, whose message never comes; it ends when it is cancelled."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self.waiting, self.over = threading.Event(), threading.Event()

    def peer(self) -> str:
        return self._peer

    def cancel(self) -> None:
        self.over.set()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.waiting.set()
        assert self.over.wait(PATIENCE)
        raise grpc.RpcError


def begin(reads: MessageReads, peer: str) -> SilentCall:
    call = SilentCall(peer)

    def wait() -> None:
        with suppress(grpc.RpcError):
            reads.first(iter(call), cast("Any", call))

    threading.Thread(target=wait).start()
    assert call.waiting.wait(PATIENCE)
    return call


CROWD, OTHER, THIRD = "ipv4:192.0.2.1:1000", "ipv4:192.0.2.2:1000", "ipv6:%5B2001:db8::1%5D:1"


@pytest.mark.requirement("GRP-06")
def test_who_has_most_calls_without_a_message_loses_the_oldest_of_them() -> None:
    reads = MessageReads(timedelta(seconds=60), places=4)
    other = begin(reads, OTHER)
    crowd = [begin(reads, CROWD.replace("1000", str(port))) for port in range(3)]
    third = begin(reads, THIRD)
    assert crowd[0].over.is_set()
    also = begin(reads, OTHER)
    assert crowd[1].over.is_set() or other.over.is_set()
    for call in (other, *crowd, third, also):
        call.cancel()


@pytest.mark.requirement("GRP-06")
def test_a_crowd_displaces_only_itself() -> None:
    reads = MessageReads(timedelta(seconds=60), places=3)
    other = begin(reads, OTHER)
    crowd = [begin(reads, CROWD) for _ in range(20)]
    assert [call.over.is_set() for call in crowd] == [True] * 18 + [False] * 2
    assert not other.over.is_set()
    for call in (other, *crowd):
        call.cancel()


def test_places_are_free_again_once_messages_have_come() -> None:
    reads = MessageReads(timedelta(seconds=60), places=1)
    for _ in range(3):
        call = SilentCall(OTHER)
        assert reads.first(iter([b"message"]), cast("Any", call)) == b"message"
    kept = begin(reads, OTHER)
    assert not kept.over.is_set()
    kept.cancel()


@pytest.mark.requirement("HTP-13")
def test_a_message_that_does_not_come_in_time_ends_its_call() -> None:
    reads = MessageReads(timedelta(seconds=0.1))
    reads.start()
    assert begin(reads, OTHER).over.wait(PATIENCE)
    reads.stop()


def answers(threads: CallThreads, call: Callable[[], Any], number: int) -> list[Any]:
    """What so many calls at once return, once all have ended."""
    found: list[Any] = []
    ended: SimpleQueue[object] = SimpleQueue()
    for _ in range(number):
        threads.submit(lambda: found.append(call())).add_done_callback(ended.put)
    for _ in range(number):
        ended.get(timeout=PATIENCE)
    return found


def test_every_call_runs_at_once_and_threads_are_used_again() -> None:
    threads, together = CallThreads(idle=PATIENCE), threading.Barrier(20)

    def meet() -> int:
        together.wait(PATIENCE)
        return threading.get_ident()

    first = set(answers(threads, meet, 20))
    until(lambda: len(threads._idle) == 20)
    second = set(answers(threads, meet, 20))
    assert len(first) == 20
    assert first == second


@pytest.mark.requirement("R-37")
def test_threads_that_have_nothing_to_do_end() -> None:
    threads = CallThreads(idle=0.01)
    names = {answers(threads, threading.current_thread, 1)[0] for _ in range(50)}
    until(lambda: not any(thread.is_alive() for thread in names))
    assert answers(threads, int, 1) == [0]


def test_what_a_call_raises_ends_the_call_and_not_the_thread() -> None:
    threads = CallThreads(idle=PATIENCE)

    def fail() -> None:
        raise SystemExit(7)

    with structlog.testing.capture_logs() as logs:
        assert answers(threads, fail, 1) == []
    assert [one["kind"] for one in logs] == ["SystemExit"]
    until(lambda: len(threads._idle) == 1)
    assert answers(threads, int, 1) == [0]


def test_the_end_of_a_call_that_is_over_already_is_told_at_once() -> None:
    end, told = CallEnd(), list[object]()
    end.come()
    end.add_done_callback(told.append)
    assert told == [end]
