"""A Vault that takes long for every answer, or never gives one: what it does to everybody else."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from broker.serving import GRACE
from tests.e2e.load import Load
from tests.e2e.patience import is_swift, until
from tests.e2e.running import RunningBroker
from tests.e2e.setting import new_setting
from tests.e2e.vault import Vault
from tests.e2e.wires import UNABLE, decision_id
from tests.fault_proxy import Fault, FaultProxy, fault_proxy

pytestmark = pytest.mark.openbao

SLOW: Final = 30.0
LOOKS: Final = 100
FAST_ENOUGH: Final = 0.5
"""A third of what whoever waits for a signature takes; a busy machine has such moments by itself."""

CALLERS: Final = 8
RECOVERY: Final = 60.0


@pytest.fixture
def line(vault: Vault) -> Iterator[FaultProxy]:
    """The way to Vault."""
    with fault_proxy(vault.bao.port) as proxy:
        yield proxy


@pytest.fixture
def broker(vault: Vault, line: FaultProxy, tmp_path: Path) -> Iterator[RunningBroker]:
    """A ready broker that goes that way."""
    keys = vault.keys()
    keys["vault"] = keys["vault"] | {"url": f"http://127.0.0.1:{line.port}"}
    broker = RunningBroker(new_setting(tmp_path, keys=keys, drain_delay="500ms"))
    try:
        broker.wait_until_ready()
        yield broker
    finally:
        broker.close()


def p99_of_reads(broker: RunningBroker) -> float:
    """Within how many seconds 99 of 100 readers of the key set have it."""
    took = []
    for _ in range(LOOKS):
        began = time.monotonic()
        assert broker.key_set()["keys"]
        took.append(time.monotonic() - began)
    return sorted(took)[int(LOOKS * 0.99) - 1]


def threads(broker: RunningBroker) -> int:
    """How many threads the processes have that answer."""
    pids = (broker.serving_process("http-0"), broker.serving_process("grpc-0"))
    return sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in pids)


@pytest.mark.requirement("R-03", "P-D", "P-E")
def test_who_needs_no_signature_does_not_wait_for_a_slow_vault_and_no_threads_pile_up(
    broker: RunningBroker, line: FaultProxy
) -> None:
    with Load(broker.setting, callers=CALLERS, pause=0.02) as load:
        load.wait_for(40)
        usual, crew = p99_of_reads(broker), threads(broker)
        line.delay = SLOW
        until(lambda: load.refused(UNABLE) >= CALLERS, seconds=60, what="callers are told")

        assert is_swift(lambda: p99_of_reads(broker), seconds=max(2 * usual, FAST_ENOUGH))
        assert threads(broker) <= crew + CALLERS
        line.mend()
        load.wait_for(20, seconds=SLOW + RECOVERY)
    refused = [call for call in load.calls if not call.token]
    assert max(call.seconds for call in refused) < SLOW / 2
    assert not broker.events("worker_died")


@pytest.mark.requirement("R-25", "R-24", "P-F")
def test_a_broker_told_to_stop_while_vault_hangs_answers_everybody_and_ends_in_time(
    broker: RunningBroker, line: FaultProxy
) -> None:
    with Load(broker.setting, callers=CALLERS, pause=0.02) as load:
        load.wait_for(20)
        line.fault = Fault.BLACKHOLE
        until(lambda: load.refused(UNABLE), seconds=60, what="a caller is told")
        broker.send(signal.SIGTERM)
        asked_at = time.monotonic()

        assert broker.session.end() == 0
        took = time.monotonic() - asked_at

    assert took < GRACE.total_seconds()
    assert not broker.events("worker_killed")
    assert not broker.session.processes()
    answered = {decision_id(call.answer) for call in load.calls if call.answer}
    assert answered == {record["event_id"] for record in broker.records()}
    refused = [call for call in load.calls if not call.token]
    assert {call.answer.error for call in refused if call.answer} == {UNABLE}
