"""Workers killed for minutes on end, under load on both faces, and judged by the oracle of crashes."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.reporting import Report, budget, progress
from tests.chaos.stands import WORKERS, Stand, embedded
from tests.e2e.load import Load
from tests.e2e.oracle import evidence_of, spent_in_sqlite
from tests.e2e.proving import assert_every_token_is_proved
from tests.e2e.running import RunningBroker
from tests.e2e.storm import FACES, Storm

SHARE: Final = 11
STRIKES_AT_ANSWERS: Final = 5
"""Every so many strikes one is at the worst moment."""


def rage(broker: RunningBroker, report: Report, case: str) -> Load:
    """Kill for as long as the case may take; what the callers have seen."""
    with Load(broker.setting, callers=8, pause=0.02) as load:
        storm = Storm(broker, load, workers=WORKERS)
        # Who dies before it was steady, again and again, ends the broker.
        with progress(case, lambda: f"{storm.kills} kills, {load.granted()} tokens"):
            broker.wait_until_steady()
            until = time.monotonic() + budget()
            turn = 0
            while turn < STRIKES_AT_ANSWERS or time.monotonic() < until:
                turn += 1
                if turn % STRIKES_AT_ANSWERS:
                    storm.strike_at_any_moment(within_calls=10)
                else:
                    storm.strike_at_an_answer(FACES[turn // STRIKES_AT_ANSWERS % 2])
            broker.wait_until_ready(60)
            load.wait_for(20)
    report.add(case, kills=storm.kills)
    return load


def judge(
    broker: RunningBroker,
    load: Load,
    report: Report,
    case: str,
    *,
    spent: Callable[[], set[bytes]],
    vault_log: Path | None = None,
) -> None:
    """What the oracle says, for the report."""
    evidence = evidence_of(broker, load.calls, spent=spent(), vault_log=vault_log)
    found = evidence.judge()
    assert_every_token_is_proved(broker, [call.token for call in load.calls if call.token])
    report.add(
        case,
        tokens_received=found.received,
        tokens_on_record=found.issued,
        tokens_on_record_not_received=found.unreceived,
        calls_unanswered=found.unanswered,
        signatures_in_vault=found.signed,
        tokens_without_record=0,
        tokens_twice=0,
    )
    assert found.unanswered


@pytest.mark.requirement("R-23", "P-A", "P-B")
def test_a_storm_of_kills_over_embedded_keys_and_sqlite(tmp_path: Path, report: Report) -> None:
    case = "kills, embedded"
    broker = RunningBroker(embedded(tmp_path))
    try:
        broker.wait_until_ready()
        load = rage(broker, report, case)
        file = tmp_path / "state" / "state.sqlite"
        judge(broker, load, report, case, spent=lambda: spent_in_sqlite(file))
    finally:
        broker.close()


@pytest.mark.openbao
@pytest.mark.requirement("R-23", "P-A", "P-B")
def test_a_storm_of_kills_over_openbao_and_valkey(full_stand: Stand, report: Report) -> None:
    case = "kills, OpenBao and Valkey"
    load = rage(full_stand.broker, report, case)
    log = full_stand.vault.bao.audit_log
    judge(full_stand.broker, load, report, case, spent=full_stand.spent, vault_log=log)
