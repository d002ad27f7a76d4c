from pathlib import Path

import cedarpy
import pytest

from broker.policy.policy_set import read_policy_set
from broker.policy.tables import Findings, RowResult, check, run_rows

ROOT = Path(__file__).parents[2]
FOLDERS = ("policies", "examples/interop/policies", "examples/policies")
SETS = {name: read_policy_set(ROOT / name) for name in FOLDERS}
REPORTS = {name: run_rows(found) for name, found in SETS.items()}

every_folder = pytest.mark.parametrize("folder", FOLDERS)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=f"{name}: {Path(row.file).stem}: {row.name}")
        for name, report in REPORTS.items()
        for row in report.rows
    ],
)
def test_the_row_is_decided_as_it_says(row: RowResult) -> None:
    assert row.faults == ()


@every_folder
def test_nothing_is_wrong_with_the_shipped_policies(folder: str) -> None:
    assert check(ROOT / folder) == Findings()


@every_folder
def test_every_shipped_policy_decides_a_row_and_refusals_outnumber_grants(folder: str) -> None:
    report = REPORTS[folder]
    assert report.uncovered == ()
    refusals = [row for row in report.rows if row.expected != "permit"]
    assert len(refusals) > len(report.rows) / 2


@every_folder
def test_the_shipped_policies_are_formatted(folder: str) -> None:
    for path in sorted((ROOT / folder).glob("*.cedar")):
        text = path.read_text()
        assert cedarpy.format_policies(text, 100, 2) == text, path


@pytest.mark.parametrize(
    ("folder", "policy_id"),
    [
        (name, policy_id)
        for name, found in SETS.items()
        for policy_id in sorted(found.whole.policies)
    ],
)
def test_without_any_one_policy_some_row_comes_out_otherwise(folder: str, policy_id: str) -> None:
    assert run_rows(SETS[folder].without(frozenset({policy_id}))).wrong_rows


@every_folder
def test_every_folder_is_read_by_the_same_schema(folder: str) -> None:
    delivered = (ROOT / "policies" / "broker.cedarschema").read_text()
    assert (ROOT / folder / "broker.cedarschema").read_text() == delivered
