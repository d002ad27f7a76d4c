"""Worker processes killed without warning, under load: what a caller holds is on record, once."""

import os
import random
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import cycle
from typing import Any, Final

import pytest

from tests.e2e.load import Call, Load
from tests.e2e.patience import until
from tests.e2e.running import RunningBroker
from tests.e2e.wires import wire
from tests.harness import Answer, decode_claims

KILLS: Final = 12
RANDOM_KILLS: Final = 4
REPLAYERS: Final = 4
OTHER: Final = {"http": "grpc", "grpc": "http"}


def targets(broker: RunningBroker) -> Iterator[tuple[str, int]]:
    """Whom to kill next, and the face: who serves it, and for HTTP in turn who watches over that."""
    asked = (
        ("grpc", lambda: broker.serving_process("grpc-0")),
        ("http", lambda: broker.serving_process("http-0")),
        ("grpc", lambda: broker.serving_process("grpc-0")),
        ("http", lambda: broker.worker_process("http-0")),
    )
    for face, ask in cycle(asked):
        yield face, until(ask, seconds=20, what="the worker is back")


def kill_some(broker: RunningBroker, load: Load) -> None:
    """Kill at any moment, and then in turn at the worst: when a caller has just got its answer."""
    moments = random.Random(KILLS)  # noqa: S311 - any moment will do.
    for number, (face, pid) in zip(range(KILLS), targets(broker), strict=False):
        load.wait_for(moments.randrange(1, 40))
        strike = partial(os.kill, pid, signal.SIGKILL)
        if number < RANDOM_KILLS:
            strike()
        else:
            load.at_next_answer(face, strike)


def replay(broker: RunningBroker, calls: Sequence[Call]) -> list[Answer]:
    """Use the assertion of each call again, on the other face."""
    with ExitStack() as stack, ThreadPoolExecutor(REPLAYERS) as pool:
        wires = {
            face: stack.enter_context(wire(other, broker.setting)) for face, other in OTHER.items()
        }
        return list(pool.map(lambda call: wires[call.face].exchange(call.parameters), calls))


def grants(records: list[dict[str, Any]], calls: Sequence[Call]) -> Counter[str]:
    """How often the subject token of each call led to a token; every call has one of its own."""
    permitted = Counter(
        one["inputs"][0].get("jti") for one in records if one["decision"] == "permit"
    )
    own = [decode_claims(str(call.parameters["subject_token"]))["jti"] for call in calls]
    return Counter({jti: permitted[jti] for jti in own})


@pytest.mark.requirement("P-A")
@pytest.mark.requirement("P-B")
@pytest.mark.requirement("R-23")
@pytest.mark.requirement("R-38")
@pytest.mark.requirement("RPL-06")
def test_killing_workers_under_load_loses_no_record_and_lets_nothing_be_used_twice(
    broker: RunningBroker,
) -> None:
    broker.wait_until_steady()
    with Load(broker.setting, pause=0.04) as load:
        load.wait_for(20)
        kill_some(broker, load)
        broker.wait_until_ready()
        load.wait_for(20)
    granted = [call for call in load.calls if call.token]
    unanswered = [call for call in load.calls if call.answer is None]
    received = {decode_claims(call.token)["jti"] for call in granted}

    issued = Counter(one["jti"] for one in broker.records() if one["decision"] == "permit")
    assert unanswered, "no call was under way at any kill"
    assert len(received) == len(granted)
    assert received <= issued.keys()
    assert set(issued.values()) == {1}
    whole = broker.verify_audit()
    assert whole.returncode == 0, whole.stdout + whole.stderr

    # Without an answer the caller cannot know whether its assertion was spent; once it may still work.
    again = replay(broker, [*granted, *unanswered])
    for answer in again[: len(granted)]:
        assert answer.error == "invalid_client"
    for answer in replay(broker, unanswered):
        assert answer.error == "invalid_client"
    assert max(grants(broker.records(), load.calls).values()) == 1
    assert broker.is_ready()
