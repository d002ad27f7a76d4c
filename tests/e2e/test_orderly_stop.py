"""A broker that is asked to stop while it works."""

import signal
import time
from pathlib import Path
from typing import Final

import pytest

from broker.audit.seal.store import CheckpointStore
from broker.serving import GRACE
from tests.e2e.conftest import Starting
from tests.e2e.load import Load
from tests.e2e.patience import until
from tests.e2e.running import RunningBroker
from tests.e2e.setting import new_setting
from tests.e2e.wires import decision_id

DRAIN_SECONDS: Final = 5.0


def answered(load: Load) -> set[str]:
    """The decisions that callers were told."""
    return {decision_id(call.answer) for call in load.calls if call.answer}


def recorded(broker: RunningBroker) -> set[str]:
    """The decisions on record."""
    return {record["event_id"] for record in broker.records()}


def sealed_records(broker: RunningBroker) -> int:
    """How many records the last checkpoint is over."""
    last = CheckpointStore(broker.setting.audit_directory).last()
    return 0 if last is None else last.checkpoint.size


@pytest.mark.requirement("R-24")
@pytest.mark.requirement("R-38")
def test_a_broker_told_to_stop_says_so_first_and_answers_whatever_it_accepted(
    starting: Starting, tmp_path: Path
) -> None:
    broker = starting(new_setting(tmp_path, drain_delay=f"{DRAIN_SECONDS:.0f}s"))
    with Load(broker.setting) as load:
        load.wait_for(20)
        broker.send(signal.SIGTERM)
        asked_at = time.monotonic()
        until(lambda: "draining" in broker.findings(), seconds=30, what="readiness goes down")
        assert not broker.is_ready()
        assert broker.session.end() == 0
    took = time.monotonic() - asked_at

    served = [call for call in load.calls if call.token and call.begun > asked_at]
    assert len(served) >= 5
    # It ends by itself, before anything would be killed.
    assert took < DRAIN_SECONDS + GRACE.total_seconds()
    assert answered(load) == recorded(broker)
    assert not broker.events("worker_killed")
    assert not broker.session.processes()
    whole = broker.verify_audit()
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert whole.stdout.count("closed") == 3
    segments = broker.setting.audit_directory.glob("*.jsonl")
    lines = sum(len(path.read_bytes().splitlines()) for path in segments)
    assert sealed_records(broker) == lines
