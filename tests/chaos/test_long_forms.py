"""Tests of the ordinary run at greater length: more races, more losses of power, more rotations."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.reporting import Report, budget, progress
from tests.e2e.running import environment
from tests.e2e.setting import ROOT

SHARE: Final = 9
LONG: Final = {
    "tests/state/test_valkey_processes.py": ("BROKER_RACES", 400),
    "tests/state/test_power_cuts.py": ("BROKER_POWER_CUTS", 40),
    "tests/keys/test_rotation.py": ("BROKER_ROTATIONS", 10),
}
"""Each with how often at a time; it is begun again while there is time."""

PLUG_INS: Final = ("-p", "no:cacheprovider", "-p", "tests.chaos.ending")
LONGEST: Final = 1800


@pytest.mark.requirement("R-15", "RPL-02", "SGN-02")
@pytest.mark.parametrize("file", LONG)
def test_the_long_form_passes(file: str, report: Report) -> None:
    name, count = LONG[file]
    command = [sys.executable, "-m", "pytest", "-q", *PLUG_INS, file]
    environ = environment() | {name: str(count), "PATH": os.environ.get("PATH", os.defpath)}
    case, times = Path(file).stem, 0
    end = time.monotonic() + budget()
    with progress(case, lambda: f"{times} times"):
        while not times or time.monotonic() < end:
            status, told = passed(command, environ)
            assert status == 0, told
            times += count
    report.add(case, times=times, failures=0)


def passed(command: Sequence[str], environ: Mapping[str, str]) -> tuple[int, str]:
    """The exit status of a run and what it told; it is ended in order with whoever waits for it."""
    run = subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        told, _ = run.communicate(timeout=LONGEST)
    finally:
        run.terminate()
        run.wait()
    return run.returncode, told
