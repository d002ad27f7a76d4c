"""A clock that leaps under whoever looks after the keys."""

from dataclasses import dataclass
from datetime import timedelta

import pytest

from broker.keys.leaps import ClockLeapt, LeapGuard
from tests.harness import Clock

ALLOWANCE, PATIENCE = timedelta(seconds=30), timedelta(minutes=20)


@dataclass
class Machine:
    """Its clock, and the time since it was switched on."""

    clock: Clock
    steady: float = 1000.0

    def pass_time(self, seconds: int, *, leap: int = 0) -> None:
        self.steady += seconds
        self.clock.at += seconds + leap

    def guard(self) -> LeapGuard:
        return LeapGuard(
            self.clock, allowance=ALLOWANCE, patience=PATIENCE, steady=lambda: self.steady
        )


@pytest.fixture
def machine() -> Machine:
    return Machine(Clock(1_800_000_000))


@pytest.mark.parametrize("leap", [0, 30, -30])
def test_a_clock_that_is_set_a_little_is_believed(machine: Machine, leap: int) -> None:
    guard = machine.guard()
    for seconds in (0, 5, 86_400):
        machine.pass_time(seconds)
        guard.check()
    machine.pass_time(5, leap=leap)
    guard.check()


def test_a_clock_of_whole_seconds_never_leaps_by_what_it_leaves_out() -> None:
    """Settings may allow for no difference between clocks at all."""
    passed = 1000.9
    guard = LeapGuard(
        lambda: int(passed), allowance=timedelta(0), patience=PATIENCE, steady=lambda: passed
    )
    for _ in range(40):
        passed += 0.37
        guard.check()


@pytest.mark.requirement("SGN-02")
@pytest.mark.parametrize("leap", [31, -31, 86_400, -86_400])
def test_a_clock_that_leapt_is_not_acted_upon_until_it_is_back(machine: Machine, leap: int) -> None:
    guard = machine.guard()
    machine.pass_time(5, leap=leap)
    for _ in range(3):
        with pytest.raises(ClockLeapt, match=f"leapt by {leap} s"):
            guard.check()
        machine.pass_time(300)

    machine.pass_time(5, leap=-leap)
    guard.check()


def test_a_clock_that_stays_where_it_leapt_to_is_believed_in_the_end(machine: Machine) -> None:
    guard = machine.guard()
    machine.pass_time(5, leap=3600)
    with pytest.raises(ClockLeapt):
        guard.check()
    machine.pass_time(1199)
    with pytest.raises(ClockLeapt):
        guard.check()
    # A second leap on the way begins the wait anew.
    machine.pass_time(0, leap=600)
    with pytest.raises(ClockLeapt):
        guard.check()
    machine.pass_time(1199)
    with pytest.raises(ClockLeapt):
        guard.check()

    machine.pass_time(1)
    guard.check()
    machine.pass_time(5)
    guard.check()
