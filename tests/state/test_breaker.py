"""A breaker lets one caller at a time try a server that failed."""

import pytest

from broker.state.breaker import Breaker, BreakerOpen


class Clock:
    """A monotonic clock that stands until it is moved, in seconds."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(monotonic=clock, chance=lambda: 1.0)


def is_open(breaker: Breaker) -> bool:
    try:
        breaker.enter()
    except BreakerOpen:
        return True
    return False


def test_everybody_may_ask_a_server_that_answers(breaker: Breaker) -> None:
    assert not any(is_open(breaker) for _ in range(3))
    breaker.succeed()
    assert not is_open(breaker)


def test_after_a_failure_nobody_may_ask_and_is_told_why(breaker: Breaker) -> None:
    breaker.enter()
    breaker.fail("timed out")

    with pytest.raises(BreakerOpen) as caught:
        breaker.enter()

    assert caught.value.detail == "timed out"


def test_after_the_pause_one_may_try_while_others_wait(breaker: Breaker, clock: Clock) -> None:
    breaker.fail("timed out")
    clock.at += 0.05

    assert [is_open(breaker) for _ in range(3)] == [False, True, True]

    breaker.succeed()
    assert not is_open(breaker)


def test_pauses_double_up_to_a_second_and_begin_short_again(breaker: Breaker, clock: Clock) -> None:
    def pauses() -> list[float]:
        found = []
        for _ in range(7):
            breaker.fail("unreachable")
            began = clock.at
            while is_open(breaker):
                clock.at += 0.01
            found.append(round(clock.at - began, 2))
        return found

    assert pauses() == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0], abs=0.021)

    breaker.succeed()
    assert pauses()[0] == pytest.approx(0.05, abs=0.021)


def test_those_who_were_under_way_do_not_make_the_pause_longer(
    breaker: Breaker, clock: Clock
) -> None:
    for _ in range(16):
        breaker.enter()
    for _ in range(16):
        breaker.fail("timed out")

    clock.at += 0.05

    assert not is_open(breaker)


@pytest.mark.requirement("R-13")
def test_many_processes_do_not_come_back_at_once(clock: Clock) -> None:
    chances = [number / 50 for number in range(50)]
    breakers = [Breaker(monotonic=clock, chance=iter([chance]).__next__) for chance in chances]
    for breaker in breakers:
        breaker.fail("unreachable")

    clock.at += 0.0375

    assert 20 <= sum(is_open(breaker) for breaker in breakers) <= 30
