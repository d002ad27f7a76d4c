"""What every process stands on: the clock once it goes back, and the look at a shared store before."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import Reason, TemporarilyUnavailable
from broker.foundation import OnwardClock
from tests.e2e.setting import new_setting

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


SLOW_NAME = """
import socket, sys, threading, time
from pathlib import Path
from broker.cli.inputs import settings_from
from broker.foundation import check_state

socket.getaddrinfo = lambda *_args, **_options: time.sleep(600)
check_state(settings_from(Path(sys.argv[1])))
print(threading.active_count())
"""


@pytest.mark.requirement("R-40")
def test_a_name_that_resolves_slowly_leaves_no_thread_behind_before_the_fork(
    tmp_path: Path,
) -> None:
    (tmp_path / "password").write_text("x" * 32)
    (tmp_path / "password").chmod(0o600)
    valkey = {
        "host": "valkey.test:6379",
        "password_file": "password",
        "tls": {},
        "deadline": "100ms",
    }
    state = {"store": "valkey", "directory": str(tmp_path / "state"), "valkey": valkey}
    setting = new_setting(tmp_path, state=state)
    setting.write()

    looked = subprocess.run(
        [sys.executable, "-c", SLOW_NAME, str(setting.file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert (looked.returncode, looked.stdout.splitlines()[-1:]) == (0, ["1"]), looked.stderr
    assert "state_away" in looked.stdout + looked.stderr
