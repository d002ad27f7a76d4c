"""The pytest plugin: one line in a suite becomes a test for every case."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from broker.verify_server.catalogue import CASES
from broker.verify_server.issuer import pretend_issuer
from tests.e2e.running import environment
from tests.verify_kit.servers import SCOPE, Plain, serving_plainly

ONE_LINE = "def test_tokens(broker_verify):\n    broker_verify()\n"
_PLUGIN = ("-p", "no:broker-verify", "-p", "broker.verify_server.pytest_plugin")
OWN_SERVER = """
import pytest

from tests.verify_kit.faults import FAULTS
from tests.verify_kit.servers import NO_FAULT, Plain, serving_plainly


@pytest.fixture(scope="session")
def broker_verify_url(broker_verify_issuer):
    fault = {fault}
    with serving_plainly(lambda url: Plain(broker_verify_issuer, url, fault)) as url:
        yield url
"""


def _run(folder: Path, *arguments: str, conftest: str = "") -> "subprocess.CompletedProcess[str]":
    (folder / "test_server.py").write_text(ONE_LINE)
    (folder / "conftest.py").write_text(conftest)
    (folder / "pytest.ini").write_text("[pytest]\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", *_PLUGIN, *arguments, str(folder)],
        env=environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _outcomes(done: "subprocess.CompletedProcess[str]") -> Counter[str]:
    return Counter(
        {
            word: int(number)
            for number, word in re.findall(
                r"(\d+) (passed|failed|skipped|xfailed|error)", done.stdout.splitlines()[-1]
            )
        }
    )


def test_a_suite_that_starts_its_server_passes(tmp_path: Path) -> None:
    conftest = OWN_SERVER.format(fault="NO_FAULT")

    done = _run(tmp_path, "--broker-verify-scope", SCOPE, conftest=conftest)

    outcomes = _outcomes(done)
    assert done.returncode == 0, done.stdout + done.stderr
    assert outcomes["passed"] + outcomes["skipped"] == len(CASES)
    assert outcomes["skipped"] == 5


def test_a_fault_fails_the_test_of_its_case_and_says_how_to_mend_it(tmp_path: Path) -> None:
    conftest = OWN_SERVER.format(fault='FAULTS["takes any audience"][0]')

    done = _run(tmp_path, "--broker-verify-scope", SCOPE, conftest=conftest)

    assert done.returncode == 1
    assert _outcomes(done)["failed"] == 6
    assert "FAILED test_server.py::test_tokens[wrong-audience]" in done.stdout
    assert "Compare aud" in done.stdout


def test_what_is_recommended_fails_as_expected(tmp_path: Path) -> None:
    conftest = OWN_SERVER.format(fault='FAULTS["has no challenge"][0]')

    outcomes = _outcomes(_run(tmp_path, "--broker-verify-scope", SCOPE, conftest=conftest))

    assert outcomes["xfailed"] == 4


def test_a_server_that_runs_already_is_named_by_its_url(tmp_path: Path) -> None:
    with pretend_issuer() as free:
        port = free.url.rpartition(":")[2]
    with serving_plainly(lambda url: Plain(f"http://127.0.0.1:{port}", url)) as url:
        done = _run(
            tmp_path,
            *("--broker-verify-url", url, "--broker-verify-issuer-port", port),
            *("--broker-verify-scope", SCOPE, "--broker-verify-except", "no-jti"),
        )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out" in done.stdout


def test_without_a_server_every_case_is_skipped(tmp_path: Path) -> None:
    done = _run(tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert _outcomes(done) == {"skipped": len(CASES)}


def test_a_suite_that_does_not_use_it_loads_no_http_client() -> None:
    program = (
        "import sys, broker.verify_server.pytest_plugin; "
        "print(sorted({'httpx2', 'jwt', 'cryptography', 'grpc'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "[]"
