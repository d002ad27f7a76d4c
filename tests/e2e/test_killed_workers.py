"""Worker processes killed without warning, under load: what a caller holds is on record, once."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.conftest import Starting
from tests.e2e.load import Call, Load
from tests.e2e.oracle import evidence_of, spent_in_sqlite
from tests.e2e.patience import holds
from tests.e2e.proving import assert_every_token_is_proved
from tests.e2e.running import RunningBroker
from tests.e2e.storm import FACES, Storm
from tests.e2e.vault import Vault
from tests.e2e.wires import settled, wire
from tests.harness import Answer

WORKERS: Final = 2
RANDOM_KILLS: Final = 6
"""A worker that dies five times before it was steady ends the broker."""

REPLAYERS: Final = 4
REPLAYED: Final = 50
OTHER: Final = {"http": "grpc", "grpc": "http"}


def replay(broker: RunningBroker, calls: Sequence[Call]) -> list[Answer]:
    """Use the assertion of each call again, on the other face, until the broker is able to decide."""
    with ExitStack() as stack, ThreadPoolExecutor(REPLAYERS) as pool:
        wires = {
            face: stack.enter_context(wire(other, broker.setting)) for face, other in OTHER.items()
        }
        return list(
            pool.map(lambda call: settled(wires[call.face], lambda: call.parameters), calls)
        )


@pytest.mark.openbao
@pytest.mark.requirement("P-A", "P-B", "R-15", "R-23", "R-38", "RPL-06")
def test_killing_workers_under_load_loses_no_record_and_lets_nothing_be_used_twice(
    starting: Starting, vault: Vault, tmp_path: Path
) -> None:
    workers = {"grpc": WORKERS, "http": WORKERS}
    broker = starting(vault.setting(tmp_path, workers=workers))
    with Load(broker.setting, pause=0.03) as load:
        load.wait_for(20)
        storm = Storm(broker, load, workers=WORKERS)
        for _ in range(RANDOM_KILLS):
            storm.strike_at_any_moment()
        for face in FACES:
            storm.strike_at_an_answer(face)
        broker.wait_until_ready()
        load.wait_for(20)

    def spent() -> set[bytes]:
        return spent_in_sqlite(tmp_path / "state" / "state.sqlite")

    log = vault.bao.audit_log
    findings = evidence_of(broker, load.calls, spent=spent(), vault_log=log).judge()
    assert findings.unanswered, "no call was under way at any kill"
    assert findings.signed >= findings.issued

    # Without an answer the caller cannot know whether its assertion was spent; once it may still work.
    granted = [call for call in load.calls if call.token][-REPLAYED:]
    unanswered = [call for call in load.calls if call.answer is None]
    again = replay(broker, [*granted, *unanswered])
    assert {answer.error for answer in again[: len(granted)]} == {"invalid_client"}
    assert {answer.error for answer in replay(broker, unanswered)} == {"invalid_client"}
    evidence_of(broker, load.calls, spent=spent(), vault_log=log).judge()
    assert holds(broker.is_ready, pause=0.5)
    assert_every_token_is_proved(broker, [call.token for call in load.calls if call.token])
