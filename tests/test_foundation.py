"""The clock by which tokens are judged, once the system's clock goes back."""

from datetime import timedelta

import pytest

from broker.errors import Reason, TemporarilyUnavailable
from broker.foundation import OnwardClock

NOW = 1_800_000_000
LEEWAY = timedelta(seconds=30)


class SystemClock:
    """A clock that is put where a test wants it."""

    def __init__(self) -> None:
        self.at = float(NOW)

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def system() -> SystemClock:
    return SystemClock()


@pytest.mark.requirement("R-22")
@pytest.mark.parametrize(
    "steps", [(0.0, 0.9, 600.0, 86_400.0), (-30.0, -29.5, 0.0), (600.0, 570.0)]
)
def test_a_clock_that_goes_on_or_back_within_the_leeway_is_told_as_it_is(
    system: SystemClock, steps: tuple[float, ...]
) -> None:
    clock = OnwardClock(LEEWAY, read=system)

    for step in steps:
        system.at = NOW + step
        assert clock() == int(system.at)
        clock.check()


@pytest.mark.requirement("R-22")
@pytest.mark.parametrize(("ahead", "back"), [(0, -31), (600, 569), (86_400, -86_400), (3600, 0)])
def test_a_clock_that_went_back_by_more_tells_nobody_the_time_until_it_has_caught_up(
    system: SystemClock, ahead: int, back: int
) -> None:
    clock = OnwardClock(LEEWAY, read=system)
    system.at = NOW + ahead
    clock()

    system.at = NOW + back
    for ask in (clock, clock.check, clock):
        with pytest.raises(TemporarilyUnavailable) as refused:
            ask()
        assert refused.value.reason is Reason.CLOCK_WENT_BACK
        assert refused.value.detail == f"the clock went back by {ahead - back} s"

    system.at = NOW + ahead - 30
    assert clock() == system.at
