"""A long run of tests that is told to end leaves nothing behind that it had started."""

import signal
from pathlib import Path

import pytest

from tests.e2e.patience import until
from tests.e2e.running import PYTHON, start
from tests.e2e.setting import ROOT

CASE = """
import subprocess, time, pytest

@pytest.fixture
def server():
    process = subprocess.Popen(["sleep", "600"])
    yield
    process.kill()
    process.wait()

def test_it(server):
    print("up", flush=True)
    time.sleep(600)
"""


def test_a_long_run_that_is_told_to_end_ends_its_servers(tmp_path: Path) -> None:
    case = tmp_path / "test_it.py"
    case.write_text(CASE)
    plug_ins = ("-p", "no:cacheprovider", "-p", "tests.chaos.ending")
    command = [PYTHON, "-m", "pytest", "-s", *plug_ins, "-c", "/dev/null", str(case)]
    run = start(command, directory=ROOT, log=tmp_path / "log")
    try:
        until(lambda: "up" in run.text, seconds=60, what="the server is up")
        assert len(run.processes()) == 2

        run.process.send_signal(signal.SIGTERM)

        assert run.end() == pytest.ExitCode.INTERRUPTED
        assert run.processes() == {}
    finally:
        run.close()
