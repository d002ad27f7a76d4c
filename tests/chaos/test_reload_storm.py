"""A thousand reloads under load: every request is decided by one configuration, and nothing grows."""

import time
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.reporting import Report, budget, progress
from tests.e2e.load import Load
from tests.e2e.reloading import Operator, groups, reloadable
from tests.e2e.running import RunningBroker
from tests.e2e.wires import UNABLE

SHARE: Final = 6
LEAST: Final = 50
WARM_UP_PART: Final = 0.2
PAUSE: Final = 0.02
MOST_GROWTH: Final = 1.15


def memory(broker: RunningBroker) -> int:
    """What all processes hold in memory, in KiB."""
    return sum(_resident(pid) for pid in broker.session.processes())


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


@pytest.mark.requirement("R-27")
def test_a_thousand_reloads_mix_no_two_configurations(tmp_path: Path, report: Report) -> None:
    case, done, before = "reloads", 0, 0
    began = time.monotonic()
    with (
        reloadable(tmp_path) as broker,
        Load(broker.setting, callers=4, pause=0.02) as load,
        progress(case, lambda: f"{done} reloads, {load.granted()} tokens"),
    ):
        operator = Operator(broker)
        load.wait_for(20)
        seconds, start = budget(), time.monotonic()
        while done < LEAST or time.monotonic() < start + seconds:
            operator.change(groups(("odd", "even")[done % 2]))
            done += 1
            time.sleep(PAUSE)
            is_warm = done >= LEAST // 2 and time.monotonic() >= start + seconds * WARM_UP_PART
            if is_warm and not before:
                before = memory(broker)
        load.wait_for(20)
        after = memory(broker)
        taken = len(broker.records("config.loaded"))
    mixed = [c for c in load.calls if c.answer is None or c.answer.error not in {"", UNABLE}]
    report.add(
        case,
        ordered=done,
        taken_by_workers=taken,
        tokens=load.granted(),
        mixed_decisions=len(mixed),
        memory_after_a_fifth_kib=before,
        memory_at_the_end_kib=after,
        seconds=round(time.monotonic() - began),
    )
    assert mixed == []
    assert taken > 0
    assert after < MOST_GROWTH * before
