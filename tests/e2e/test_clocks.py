"""A broker whose clock is set: ahead, back, and a little apart from those of its callers."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import pytest

from tests.e2e.clocked import SetClock
from tests.e2e.patience import holds, until
from tests.e2e.running import RunningBroker
from tests.e2e.setting import Setting, assertion, by_assertion, exchange, new_setting, subject_token
from tests.e2e.wires import UNABLE, Wire, decision_id, settled, wire
from tests.world import Parameters

STEP: Final = 600
SKEW: Final = 25


@dataclass(frozen=True, slots=True)
class Clocked:
    """A broker, and the clock that it goes by."""

    broker: RunningBroker
    clock: SetClock

    @property
    def setting(self) -> Setting:
        """What its callers have to know."""
        return self.broker.setting


@pytest.fixture(scope="module")
def clocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clocked]:
    folder = tmp_path_factory.mktemp("clocked")
    clock = SetClock(folder / "clock")
    broker = RunningBroker(new_setting(folder), program=clock.program)
    try:
        broker.wait_until_ready()
        yield Clocked(broker, clock)
    finally:
        broker.close()


def made_at(setting: Setting, ahead: int) -> Parameters:
    """An exchange of callers whose clock is so many seconds ahead."""
    now = int(time.time()) + ahead
    times = {"iat": now, "exp": now + 290}
    return exchange(setting) | {
        "subject_token": subject_token(**times),
        **by_assertion(assertion(setting, **times)),
    }


def is_refused_for(reason: str, broker: RunningBroker, face: Wire, parameters: Parameters) -> bool:
    """Whether this is why it is refused, as the record says; a store that is busy is no reason yet."""
    answer = face.exchange(parameters)
    assert answer.error == UNABLE, answer.everything
    name = decision_id(answer)
    (record,) = [one for one in broker.records() if one["event_id"] == name]
    return bool(record["reason"] == reason)


@pytest.mark.requirement("R-22")
@pytest.mark.parametrize("ahead", [SKEW, -SKEW])
def test_clocks_that_differ_by_less_than_the_leeway_are_no_trouble(
    clocked: Clocked, ahead: int
) -> None:
    setting = clocked.setting
    for name in ("http", "grpc"):
        with wire(name, setting) as face:
            answer = settled(face, partial(made_at, setting, ahead))
            assert answer.is_granted, answer.everything
    assert holds(clocked.broker.is_ready, pause=0.5)


@pytest.mark.requirement("R-22", "P-B")
def test_a_clock_that_leaps_ahead_and_is_put_back_revives_nothing(clocked: Clocked) -> None:
    setting, broker = clocked.setting, clocked.broker
    used: list[Parameters] = []
    expiring = {"subject_token": subject_token(exp=int(time.time()) + STEP // 2)}

    def fresh() -> Parameters:
        used.append(exchange(setting))
        return used[-1]

    with wire("http", setting) as http, wire("grpc", setting) as grpc:
        for face in (grpc, http):
            assert settled(face, fresh).is_granted

        clocked.clock.set_ahead(STEP)
        for face in (http, grpc):
            assert settled(face, partial(exchange, setting)).error == "invalid_client"
            late = settled(face, lambda: made_at(setting, STEP) | expiring)
            assert late.error == "invalid_request"
            assert settled(face, partial(made_at, setting, STEP)).is_granted

        clocked.clock.set_ahead(0)
        for face in (http, grpc):
            for parameters in (used[-1], exchange(setting), exchange(setting) | expiring):
                went_back = partial(is_refused_for, "clock_went_back", broker, face, parameters)
                until(went_back, seconds=30, what="the clock went back")
        until(lambda: "clock_went_back" in broker.findings(), seconds=30, what="it is not ready")
        assert not broker.is_ready()
        assert broker.key_set()["keys"]

        clocked.clock.set_ahead(STEP)
        for face in (http, grpc):
            assert settled(face, partial(made_at, setting, STEP)).is_granted
        until(broker.is_ready, seconds=30, what="it is ready again")
