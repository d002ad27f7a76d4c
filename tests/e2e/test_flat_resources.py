"""What a worker holds on to does not grow with the requests it has answered."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.patience import until
from tests.e2e.running import RunningBroker
from tests.e2e.setting import Setting, exchange, login, subject_token
from tests.e2e.wires import Wire, wire
from tests.world import Parameters

WARM_UP: Final = 400
REQUESTS: Final = 3_000
CALLERS: Final = 8
MARGIN: Final = 4
WORKERS: Final = ("grpc-0", "http-0")

Held = dict[str, tuple[int, int]]


def held(broker: RunningBroker) -> Held:
    """The threads and open descriptors of each worker."""
    found = {}
    for worker in WORKERS:
        process = Path("/proc") / str(broker.serving_process(worker))
        found[worker] = (
            len(list((process / "task").iterdir())),
            len(list((process / "fd").iterdir())),
        )
    return found


def _wrong_audience(setting: Setting) -> Parameters:
    return exchange(setting) | {"subject_token": subject_token(aud="https://other.example")}


def _unknown_client(setting: Setting) -> Parameters:
    return exchange(setting) | {"client_assertion": "a.b.c"}


def send(broker: RunningBroker, wires: list[Wire], count: int) -> None:
    kinds = (exchange, login, _wrong_audience, _unknown_client)

    def ask(number: int) -> bool:
        request = kinds[number // len(wires) % len(kinds)](broker.setting)
        return bool(wires[number % len(wires)].exchange(request).status)

    with ThreadPoolExecutor(CALLERS) as pool:
        assert all(pool.map(ask, range(count)))


@pytest.mark.requirement("P-G")
def test_threads_and_descriptors_are_as_many_after_three_thousand_requests_as_before(
    broker: RunningBroker,
) -> None:
    with ExitStack() as stack:
        wires = [
            stack.enter_context(wire(("http", "grpc")[number % 2], broker.setting))
            for number in range(CALLERS)
        ]
        send(broker, wires, WARM_UP)
        before = held(broker)
        send(broker, wires, REQUESTS)
        # Under load gRPC takes some threads more, and gives them back when it is idle.
        until(
            lambda: is_flat(before, held(broker)),
            seconds=120,
            what=f"it holds what it held, {before}",
        )


def is_flat(before: Held, after: Held) -> bool:
    """Whether every worker has as many threads and descriptors as before."""
    return all(
        became <= was + MARGIN
        for worker in WORKERS
        for was, became in zip(before[worker], after[worker], strict=True)
    )
