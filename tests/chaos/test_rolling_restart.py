"""Three replicas that are replaced one by one under load: first by other versions, then by their own."""

import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.reporting import Report, progress
from tests.e2e.load import Load
from tests.e2e.oracle import assert_chains_are_whole
from tests.e2e.running import RunningBroker
from tests.e2e.setting import ROOT, Setting, exchange
from tests.e2e.twins import replica_settings
from tests.e2e.wires import decision_id, wire
from tests.valkey import running
from tests.world import Parameters

_OLDER: Final = Path(__file__).with_name("older.py")
PREVIOUS: Final = os.environ.get("CHAOS_PREVIOUS") or "HEAD~1"
"""The version to come from, as git names it."""

REPLICAS: Final = 3
READY_SECONDS: Final = 60.0
REPLAYED: Final = 200


@pytest.fixture
def older(tmp_path: Path) -> tuple[str, ...]:
    """What runs the broker of the previous version."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("there is no history to take a previous version from")
    archive = subprocess.run(
        [git, "archive", "--format=tar", PREVIOUS, "broker"],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=True,
    )
    folder = tmp_path / "older"
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return str(_OLDER), str(folder)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[list[Setting]]:
    """Of three replicas that share a Valkey, an issuer and a key."""
    with running(tmp_path / "valkey") as server:
        yield replica_settings(tmp_path, *[server.port] * REPLICAS)


@pytest.mark.requirement("R-26", "R-24", "P-B", "P-F")
def test_replicas_of_several_versions_lose_nothing_and_let_nothing_work_twice(
    settings: list[Setting], older: tuple[str, ...], report: Report
) -> None:
    case, restarts = "rolling restart", 0

    def ask(_: Setting) -> Parameters:
        return exchange(settings[0])

    began = time.monotonic()
    with ExitStack() as closing:
        brokers = [RunningBroker(setting, program=older) for setting in settings]
        for broker in brokers:
            closing.callback(broker.close)
            broker.wait_until_ready(READY_SECONDS)
        with ExitStack() as calling:
            # All go by one name, that of the first.
            loads = [
                calling.enter_context(Load(one, callers=2, pause=0.05, ask=ask)) for one in settings
            ]
            calling.enter_context(
                progress(case, lambda: f"{restarts} restarts, {tokens(loads)} tokens")
            )
            # To this version, and on to itself: a setting may have changed, and nothing else.
            for number in (*range(REPLICAS), *range(REPLICAS)):
                loads[number].wait_for(20)
                brokers[number].send(signal.SIGTERM)
                assert brokers[number].session.end() == 0
                brokers[number] = RunningBroker(settings[number])
                closing.callback(brokers[number].close)
                brokers[number].wait_until_ready(READY_SECONDS)
                restarts += 1
                loads[number].wait_for(10)
        recorded = {one["event_id"] for broker in brokers for one in broker.records()}
        twice = sum(used_again(load, settings) for load in loads)
        for setting in settings:
            assert_chains_are_whole(setting.audit_directory)
    calls = [call for load in loads for call in load.calls]
    answered = {decision_id(call.answer) for call in calls if call.answer is not None}
    report.add(
        case,
        previous=PREVIOUS,
        replicas=REPLICAS,
        restarts=restarts,
        tokens=tokens(loads),
        connections_lost=sum(call.answer is None for call in calls),
        decided_and_not_answered=len(recorded - answered),
        worked_twice=twice,
        seconds=round(time.monotonic() - began),
    )
    assert answered == recorded
    assert twice == 0


def tokens(loads: Sequence[Load]) -> int:
    """How many tokens callers have received."""
    return sum(load.granted() for load in loads)


def used_again(load: Load, settings: list[Setting]) -> int:
    """How many of the last assertions that led to a token lead to another one anywhere."""
    used = [call.parameters for call in load.calls if call.token][-REPLAYED:]
    found = 0
    for setting in settings:
        with wire("http", setting) as face:
            found += sum(face.exchange(parameters).is_granted for parameters in used)
    return found
