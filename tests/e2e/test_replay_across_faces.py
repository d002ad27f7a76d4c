"""One-time credentials used at both faces, which are processes of their own with one memory."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from threading import Barrier

import pytest

from tests.e2e.patience import until
from tests.e2e.running import RunningBroker
from tests.e2e.setting import assertion, by_assertion, exchange
from tests.e2e.wires import UNABLE, settled, wire
from tests.harness import Answer
from tests.world import Parameters

AT_ONCE = 64
PARTIES = 16


@pytest.mark.requirement("RPL-02")
@pytest.mark.requirement("P-B")
@pytest.mark.parametrize(("first", "second"), [("http", "grpc"), ("grpc", "http")])
def test_an_assertion_used_on_one_face_is_refused_on_the_other(
    broker: RunningBroker, first: str, second: str
) -> None:
    with wire(first, broker.setting) as one, wire(second, broker.setting) as other:
        used: list[Parameters] = []

        def fresh() -> Parameters:
            used.append(by_assertion(assertion(broker.setting)))
            return exchange(broker.setting) | used[-1]

        assert settled(one, fresh).is_granted
        again = settled(other, lambda: exchange(broker.setting) | used[-1])

        assert again.error == "invalid_client"
        assert settled(other, lambda: exchange(broker.setting)).is_granted


@pytest.mark.requirement("RPL-02")
@pytest.mark.requirement("P-B")
def test_of_sixty_four_uses_of_an_assertion_at_once_on_both_faces_one_gets_a_token(
    broker: RunningBroker,
) -> None:
    # Whoever was the first may have to be told that the store is busy.
    answers = until(partial(raced_for, broker), seconds=120, what="one gets a token")

    assert sum(answer.is_granted for answer in answers) == 1
    refused = [answer for answer in answers if not answer.is_granted]
    assert {answer.error for answer in refused} - {UNABLE} == {"invalid_client"}
    assert {answer.face for answer in refused} == {"http", "grpc"}


def raced_for(broker: RunningBroker) -> list[Answer]:
    """The answers to an assertion that all use at once; none when all were turned away."""
    parameters = exchange(broker.setting)
    gate = Barrier(PARTIES)

    with ExitStack() as stack, ThreadPoolExecutor(PARTIES) as pool:
        wires = [
            stack.enter_context(wire(("http", "grpc")[number % 2], broker.setting))
            for number in range(PARTIES)
        ]
        for connected in wires:
            assert settled(connected, lambda: exchange(broker.setting)).is_granted

        def use(number: int) -> Answer:
            gate.wait(timeout=120)
            return wires[number % PARTIES].exchange(parameters)

        answers = list(pool.map(use, range(AT_ONCE)))
    # Only who was told that the store is busy may have been the first; without one nobody is excused.
    is_spoilt = not any(one.is_granted for one in answers) and UNABLE in {
        one.error for one in answers
    }
    return [] if is_spoilt else answers
