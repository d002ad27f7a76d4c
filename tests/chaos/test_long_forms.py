"""Tests of the ordinary run at greater length: more races, more losses of power, more rotations."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.reporting import MINUTES, Report, progress
from tests.e2e.running import environment
from tests.e2e.setting import ROOT

LONG: Final = {
    "tests/state/test_valkey_processes.py": ("BROKER_RACES", int(2_000 * MINUTES)),
    "tests/state/test_power_cuts.py": ("BROKER_POWER_CUTS", int(100 * MINUTES)),
    "tests/keys/test_rotation.py": ("BROKER_ROTATIONS", int(20 * MINUTES)),
}


@pytest.mark.requirement("R-15", "RPL-02", "SGN-02")
@pytest.mark.parametrize("file", LONG)
def test_the_long_form_passes(file: str, report: Report) -> None:
    name, count = LONG[file]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file]
    case = Path(file).stem
    with progress(case, lambda: f"{count} times"):
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment() | {name: str(count), "PATH": os.environ.get("PATH", os.defpath)},
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    report.add(case, times=count, failures=0)
