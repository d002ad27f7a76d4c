"""The dispatcher of signatures: what goes out together, what waits, and what is refused at once."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from broker.errors import Reason, TemporarilyUnavailable
from broker.keys.batches import Batches
from broker.keys.unavailable import signer_unavailable


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane that compares by its members."""

    name: str = "ES256"
    batch_limit: int = 400


LANE = Lane()


class Engine:
    """Answers each item with itself reversed, once it is let; it keeps what it was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[Lane, list[bytes]]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.error: Exception | None = None

    def send(self, lane: Lane, items: Sequence[bytes]) -> list[bytes | None]:
        self.sent.append((lane, list(items)))
        assert self.may_answer.wait(120)
        if self.error is not None:
            raise self.error
        return [None if item == b"bad" else item[::-1] for item in items]

    def hold(self) -> None:
        """Answer nothing from now on."""
        self.may_answer.clear()


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def batches(engine: Engine) -> Iterator[Batches[Lane]]:
    batches = Batches(engine.send, deadline=60.0)
    yield batches
    engine.may_answer.set()
    batches.close()


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as callers:
        yield callers


def fault_of(call: Callable[[], object]) -> str:
    with pytest.raises(TemporarilyUnavailable) as raised:
        call()
    assert raised.value.reason is Reason.SIGNER_UNAVAILABLE
    return raised.value.detail


def reach(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def waiting(batches: Batches[Lane]) -> int:
    return len(batches._waiting)


def busy(
    batches: Batches[Lane], engine: Engine, callers: ThreadPoolExecutor, lane: Lane = LANE
) -> "Future[bytes]":
    """Have one call under way that is not answered yet."""
    engine.hold()
    first = callers.submit(batches.submit, lane, b"first")
    # Whose time was over before the thread had a turn is not sent, and comes again.
    while not engine.sent:
        if first.done():
            first = callers.submit(batches.submit, lane, b"first")
        time.sleep(0.001)
    return first


def test_a_lone_item_goes_out_at_once(batches: Batches[Lane], engine: Engine) -> None:
    assert batches.submit(LANE, b"abc") == b"cba"
    assert engine.sent == [(LANE, [b"abc"])]


def test_what_arrives_while_a_call_is_under_way_goes_out_in_one_batch(
    batches: Batches[Lane], engine: Engine, callers: ThreadPoolExecutor
) -> None:
    first = busy(batches, engine, callers)
    others = [callers.submit(batches.submit, LANE, b"item-%02d" % n) for n in range(20)]
    reach(lambda: waiting(batches) == 20)
    engine.may_answer.set()

    assert first.result() == b"tsrif"
    assert [other.result() for other in others] == [(b"item-%02d" % n)[::-1] for n in range(20)]
    assert [len(items) for _, items in engine.sent] == [1, 20]


def test_a_batch_is_not_larger_than_its_lane_allows(
    batches: Batches[Lane], engine: Engine, callers: ThreadPoolExecutor
) -> None:
    small = Lane(batch_limit=8)
    busy(batches, engine, callers, small)
    others = [callers.submit(batches.submit, small, b"x") for _ in range(20)]
    reach(lambda: waiting(batches) == 20)
    engine.may_answer.set()

    assert {other.result() for other in others} == {b"x"}
    assert [len(items) for _, items in engine.sent] == [1, 8, 8, 4]


def test_lanes_do_not_mix_and_the_oldest_item_chooses_the_next(
    batches: Batches[Lane], engine: Engine, callers: ThreadPoolExecutor
) -> None:
    other = Lane("RS256")
    busy(batches, engine, callers)
    futures = []
    for number, lane in enumerate([other, LANE, other, LANE], start=1):
        futures.append(callers.submit(batches.submit, lane, b"%d" % number))
        reach(lambda number=number: waiting(batches) == number)  # type: ignore[misc]
    engine.may_answer.set()

    assert [future.result() for future in futures] == [b"1", b"2", b"3", b"4"]
    assert engine.sent[1:] == [(other, [b"1", b"3"]), (LANE, [b"2", b"4"])]


@pytest.mark.requirement("SGN-01")
def test_a_refused_item_is_refused_alone(
    batches: Batches[Lane], engine: Engine, callers: ThreadPoolExecutor
) -> None:
    busy(batches, engine, callers)
    good = callers.submit(batches.submit, LANE, b"good")
    bad = callers.submit(batches.submit, LANE, b"bad")
    reach(lambda: waiting(batches) == 2)
    engine.may_answer.set()

    assert good.result() == b"doog"
    assert fault_of(bad.result) == "the request was refused"
    assert batches.fault("ES256") is None


@pytest.mark.requirement("R-02")
def test_a_failed_call_refuses_everybody_who_waits_and_opens_the_breaker(
    batches: Batches[Lane], engine: Engine, callers: ThreadPoolExecutor
) -> None:
    first = busy(batches, engine, callers)
    others = [callers.submit(batches.submit, LANE, b"x") for _ in range(5)]
    reach(lambda: waiting(batches) == 5)
    engine.error = signer_unavailable("vault: sealed")
    engine.may_answer.set()

    assert {fault_of(future.result) for future in [first, *others]} == {"vault: sealed"}
    assert len(engine.sent) == 1
    assert fault_of(lambda: batches.submit(LANE, b"x")) == "vault: sealed"
    assert len(engine.sent) == 1


def test_an_open_breaker_stays_open_for_callers_until_it_is_mended(
    batches: Batches[Lane], engine: Engine
) -> None:
    engine.error = signer_unavailable("vault: sealed")
    fault_of(lambda: batches.submit(LANE, b"x"))
    engine.error = None

    assert batches.probe(LANE, b"ab") == b"ba"
    assert fault_of(lambda: batches.submit(LANE, b"x")) == "vault: sealed"
    batches.mend("ES256")
    assert batches.submit(LANE, b"ab") == b"ba"


def test_a_breaker_is_for_lanes_of_one_name(batches: Batches[Lane], engine: Engine) -> None:
    engine.error = signer_unavailable("vault: forbidden")
    fault_of(lambda: batches.submit(Lane("RS256"), b"x"))
    engine.error = None

    assert batches.submit(LANE, b"ab") == b"ba"
    assert batches.fault("RS256") == "vault: forbidden"


@pytest.mark.requirement("R-03")
def test_a_caller_waits_no_longer_than_the_deadline(
    engine: Engine, callers: ThreadPoolExecutor
) -> None:
    batches = Batches(engine.send, deadline=0.2)
    first = busy(batches, engine, callers)

    began = time.monotonic()
    assert fault_of(lambda: batches.submit(LANE, b"x")) == "the signer did not answer in time"
    assert 0.2 <= time.monotonic() - began < 20

    assert fault_of(first.result) == "the signer did not answer in time"
    engine.may_answer.set()
    batches.close()


@pytest.mark.requirement("R-04")
def test_a_call_that_never_comes_back_opens_the_breaker_before_it_does(
    engine: Engine, callers: ThreadPoolExecutor
) -> None:
    """A name server that is gone holds a call up for longer than any timeout of a socket."""
    batches = Batches(engine.send, deadline=0.2)
    first = busy(batches, engine, callers)
    assert fault_of(lambda: batches.submit(LANE, b"x")) == "the signer did not answer in time"

    began = time.monotonic()
    for _ in range(100):
        assert fault_of(lambda: batches.submit(LANE, b"x")) == "the signer did not answer in time"
    assert time.monotonic() - began < 0.2 * 50

    fault_of(first.result)
    engine.may_answer.set()
    batches.close()


def test_a_call_that_began_after_its_caller_came_opens_no_breaker_by_being_late(
    engine: Engine, callers: ThreadPoolExecutor
) -> None:
    """It may be the next in a long queue, and no sign that nothing comes back any more."""
    batches = Batches(engine.send, deadline=0.2)

    assert fault_of(busy(batches, engine, callers).result) == "the signer did not answer in time"

    assert batches.fault("ES256") is None
    engine.may_answer.set()
    batches.close()


@pytest.mark.requirement("R-03")
def test_an_item_whose_caller_has_left_is_not_sent(callers: ThreadPoolExecutor) -> None:
    steps = threading.Semaphore(0)
    sent: list[bytes] = []

    def send(_: Lane, items: Sequence[bytes]) -> Sequence[bytes]:
        sent.extend(items)
        assert steps.acquire(timeout=20)
        return items

    batches: Batches[Lane] = Batches(send, deadline=1.0)
    one_by_one = Lane(batch_limit=1)
    first = callers.submit(batches.submit, one_by_one, b"first")
    reach(lambda: sent == [b"first"])
    others = [callers.submit(batches.submit, one_by_one, b"other") for _ in range(2)]
    reach(lambda: waiting(batches) == 2)
    steps.release()
    assert first.result() == b"first"

    for other in others:
        assert fault_of(other.result) == "the signer did not answer in time"
    steps.release(2)
    assert batches.submit(one_by_one, b"last") == b"last"

    assert sent == [b"first", b"other", b"last"]
    batches.close()


@pytest.mark.requirement("R-03")
def test_no_more_callers_wait_than_there_is_room_for(
    engine: Engine, callers: ThreadPoolExecutor
) -> None:
    batches = Batches(engine.send, deadline=60.0, capacity=3)
    busy(batches, engine, callers)
    patient = [callers.submit(batches.submit, LANE, b"x") for _ in range(3)]
    reach(lambda: waiting(batches) == 3)

    assert "too many" in fault_of(lambda: batches.submit(LANE, b"x"))
    assert batches.fault("ES256") is None
    engine.may_answer.set()
    assert [future.result() for future in patient] == [b"x"] * 3
    batches.close()


def test_an_error_that_nobody_thought_of_refuses_and_the_thread_goes_on(
    batches: Batches[Lane], engine: Engine
) -> None:
    engine.error = RuntimeError("a secret")
    assert fault_of(lambda: batches.submit(LANE, b"x")) == "unexpected RuntimeError"

    engine.error = None
    assert batches.probe(LANE, b"ab") == b"ba"


def test_too_few_answers_are_no_answers() -> None:
    batches: Batches[Lane] = Batches(lambda _lane, _items: [], deadline=60.0)

    assert fault_of(lambda: batches.submit(LANE, b"x")) == "unexpected ValueError"
    batches.close()


def test_closing_refuses_who_waits_and_who_comes_later(
    batches: Batches[Lane], engine: Engine, callers: ThreadPoolExecutor
) -> None:
    first = busy(batches, engine, callers)
    waits = callers.submit(batches.submit, LANE, b"x")
    reach(lambda: waiting(batches) == 1)
    closing = callers.submit(batches.close)

    assert fault_of(waits.result) == "the key store is closed"
    engine.may_answer.set()
    closing.result()
    assert first.result() == b"tsrif"
    assert fault_of(lambda: batches.submit(LANE, b"x")) == "the key store is closed"
    assert fault_of(lambda: batches.probe(LANE, b"x")) == "the key store is closed"
    assert not batches._thread.is_alive()


def test_what_is_handed_in_together_goes_out_together() -> None:
    sent: list[int] = []

    def send(_lane: Lane, items: Sequence[bytes]) -> Sequence[bytes | None]:
        sent.append(len(items))
        return [None if item == b"bad" else item[::-1] for item in items]

    batches = Batches(send, deadline=60.0, capacity=4)
    try:
        assert batches.submit_all(LANE, [b"ab", b"cd", b"ef"]) == [b"ba", b"dc", b"fe"]
        assert sent == [3]
        assert (
            fault_of(lambda: batches.submit_all(LANE, [b"ab", b"bad"])) == "the request was refused"
        )
        too_many = [b"x"] * 5
        fault = fault_of(lambda: batches.submit_all(LANE, too_many))
        assert fault == "too many requests wait for the signer"
        batches.trip(LANE.name, "vault: sealed")
        assert fault_of(lambda: batches.submit_all(LANE, [b"ab"])) == "vault: sealed"
        assert sent == [3, 2]
    finally:
        batches.close()
