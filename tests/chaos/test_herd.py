"""Many callers at once after an outage: they are served again soon, and as fast as before."""

import time
from typing import Final

import pytest

from tests.chaos.reporting import Report, budget, progress
from tests.chaos.stands import Stand
from tests.e2e.load import Load
from tests.e2e.patience import until
from tests.fault_proxy import Fault

SHARE: Final = 5
CALLERS: Final = 100
PAUSE: Final = 0.5
SETTLED_SECONDS: Final = 30.0
GOODPUT: Final = 0.8


def rate(load: Load, *, seconds: float) -> float:
    """Tokens a second, over so many seconds from now."""
    before, began = load.granted(), time.monotonic()
    time.sleep(seconds)
    return (load.granted() - before) / (time.monotonic() - began)


@pytest.mark.openbao
@pytest.mark.requirement("P-D")
def test_a_herd_that_comes_back_after_an_outage_is_served(
    full_stand: Stand, report: Report
) -> None:
    case, line = "a herd", full_stand.lines["valkey"]
    window = max(2.0, budget() / 5)
    with (
        Load(full_stand.setting, callers=CALLERS, pause=PAUSE) as load,
        progress(case, lambda: f"{load.granted()} tokens"),
    ):
        load.wait_for(CALLERS, seconds=60)
        usual = rate(load, seconds=window)
        line.fault = Fault.BLACKHOLE
        line.end_connections()
        time.sleep(window)
        line.mend()
        line.end_connections()
        mended = time.monotonic()

        def is_settled() -> bool:
            return rate(load, seconds=1.0) >= GOODPUT * usual

        until(is_settled, seconds=SETTLED_SECONDS, what="it is as it was")
        settled = time.monotonic() - mended
        full_stand.broker.wait_until_ready()
        after = rate(load, seconds=window)
    report.add(
        case,
        callers=CALLERS,
        tokens_a_second_before=round(usual, 1),
        tokens_a_second_after=round(after, 1),
        settled_after_s=round(settled, 1),
    )
    assert not full_stand.broker.events("worker_died")
