"""Vault and Valkey behind lines that are cut, dripped, swallowed, reset and flapping, under load."""

import time
from functools import partial
from typing import Final

import pytest

from tests.chaos.reporting import Report, budget, p99, progress, rounded
from tests.chaos.stands import Stand
from tests.e2e.load import Load
from tests.e2e.patience import until
from tests.e2e.wires import UNABLE
from tests.fault_proxy import Fault, FaultProxy

SHARE: Final = 18
FAULTS: Final = (Fault.CUT, Fault.BLACKHOLE, Fault.LOST_ANSWERS, Fault.DRIP, Fault.RESET)
FLAPS: Final = 3
LONGEST: Final = 60.0
"""Of one fault."""

RECOVERY: Final = 5.0
SLOWEST: Final = 3.0
"""No caller waits longer: two deadlines, one after the other, and what a busy machine takes."""

KINDS: Final = len(FAULTS) + 1


def suffer(line: FaultProxy, fault: Fault, *, seconds: float) -> None:
    """Have the fault for so long."""
    line.fault = fault
    line.end_connections()
    time.sleep(seconds)


def flap(line: FaultProxy, *, seconds: float) -> None:
    """Be there and be gone, each second."""
    for _ in range(max(FLAPS, int(seconds / 2))):
        suffer(line, Fault.CUT, seconds=0.5)
        suffer(line, Fault.NONE, seconds=0.5)
    line.fault = Fault.CUT
    line.end_connections()


@pytest.mark.openbao
@pytest.mark.requirement("R-02", "R-03", "R-04", "R-09", "R-13", "P-D", "P-E")
@pytest.mark.parametrize("name", ["vault", "valkey"])
def test_an_outage_is_told_fast_and_ends_by_itself(
    full_stand: Stand, report: Report, name: str
) -> None:
    broker, line = full_stand.broker, full_stand.lines[name]
    case = f"outages of {name}"
    seconds = min(LONGEST, budget() / KINDS / 2)
    recovered: dict[str, float] = {}
    with (
        Load(broker.setting, callers=6, pause=0.05) as load,
        progress(case, lambda: str(recovered)),
    ):
        load.wait_for(20)
        for fault in (*FAULTS, None):
            began = time.monotonic()
            keys = broker.key_set()
            kind = fault.name.lower() if fault else "flapping"
            if fault is None:
                flap(line, seconds=seconds)
            else:
                suffer(line, fault, seconds=seconds)
            assert broker.key_set() == keys
            until(partial(was_refused_since, load, began), seconds=10, what="callers are told")
            line.mend()
            line.end_connections()
            mended = time.monotonic()
            load.wait_for(10, seconds=30)
            broker.wait_until_ready()
            recovered[kind] = rounded(time.monotonic() - mended)
    refused = [call for call in load.calls if not call.token]
    report.add(
        case,
        **{f"recovered_after_{kind}_s": took for kind, took in recovered.items()},
        refusals=len(refused),
        refusals_p99_s=p99([call.seconds for call in refused]),
        slowest_refusal_s=rounded(max(call.seconds for call in refused)),
        workers_died=len(broker.events("worker_died")),
    )
    assert {call.answer.error for call in refused if call.answer} == {UNABLE}
    assert all(call.answer for call in refused)
    assert max(recovered.values()) < RECOVERY
    assert max(call.seconds for call in refused) < SLOWEST


def was_refused_since(load: Load, moment: float) -> bool:
    """Whether a caller was refused who began after that moment."""
    return any(call.begun > moment and not call.token for call in load.calls)
