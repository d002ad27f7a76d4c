from pathlib import Path

import cedarpy
import pytest

from broker.policy.policy_set import read_policy_set
from broker.policy.tables import RowResult, check, run_rows

POLICIES = Path(__file__).parents[2] / "policies"
SET = read_policy_set(POLICIES)
REPORT = run_rows(SET)


@pytest.mark.parametrize("row", REPORT.rows, ids=lambda row: f"{Path(row.file).stem}: {row.name}")
def test_the_row_is_decided_as_it_says(row: RowResult) -> None:
    assert row.faults == ()


def test_nothing_is_wrong_with_the_shipped_policies() -> None:
    assert check(POLICIES) == []


def test_every_shipped_policy_decides_a_row_and_refusals_outnumber_grants() -> None:
    assert REPORT.uncovered == ()
    refusals = [row for row in REPORT.rows if row.expected != "permit"]
    assert len(refusals) > len(REPORT.rows) / 2


@pytest.mark.parametrize("path", sorted(POLICIES.glob("*.cedar")), ids=lambda path: path.name)
def test_the_shipped_policies_are_formatted(path: Path) -> None:
    text = path.read_text()
    assert cedarpy.format_policies(text, 100, 2) == text


@pytest.mark.parametrize("policy_id", sorted(SET.whole.policies))
def test_without_any_one_policy_some_row_comes_out_otherwise(policy_id: str) -> None:
    assert run_rows(SET.without(frozenset({policy_id}))).wrong_rows
