"""The performance page says what the results say, and marks what is not meant to be believed."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bench.results import PARTS, read
from docs.bars import Bar, chart
from docs.performance_plots import plots
from docs.performance_tables import is_trial
from docs.performance_targets import TARGETS, Target


@pytest.mark.parametrize(
    ("value", "is_floor", "said"),
    [
        (1.0, False, "good"),
        (2.0, False, "good"),
        (2.1, False, "enough"),
        (3.1, False, "**missed**"),
        (3.0, True, "good"),
        (2.5, True, "enough"),
        (1.9, True, "**missed**"),
    ],
)
def test_a_figure_is_said_to_reach_what_it_reaches(
    value: float, said: str, *, is_floor: bool
) -> None:
    goals = (2.0, 3.0) if is_floor else (3.0, 2.0)

    assert Target("", *goals, find=lambda _: value, is_floor=is_floor).verdict(value) == said


def test_no_target_is_met_by_results_that_are_not_there() -> None:
    assert [target.measure for target in TARGETS if target.value({}) is not None] == []


@pytest.mark.parametrize("part", PARTS)
def test_every_part_was_measured_and_says_how(part: str) -> None:
    found = read(part)

    assert found["part"] == part
    assert found["durability"]
    assert {"date", "processor", "cores", "python", "libraries"} <= set(found["conditions"])


@pytest.mark.parametrize("changed", [{"is_quick": True}, {"rounds": 2}, {"seconds": 0.5}], ids=str)
def test_a_short_run_is_called_a_trial(changed: dict[str, Any]) -> None:
    conditions = {"is_quick": False, "rounds": 5, "seconds": 2.0}

    assert not is_trial({"conditions": conditions})
    assert is_trial({"conditions": conditions | changed})


def test_every_target_is_found_in_results_that_are_no_trial() -> None:
    """A line of the results that was renamed would otherwise pass for one that was not measured."""
    results = {part: read(part) for part in PARTS}
    if any(map(is_trial, results.values())):
        pytest.skip("the results are those of a trial")

    assert [target.measure for target in TARGETS if target.value(results) is None] == []


def test_results_tell_nothing_of_the_machine_but_what_it_is(tmp_path: Path) -> None:
    for part in PARTS:
        text = (Path(read.__code__.co_filename).parent / "results" / f"{part}.json").read_text()
        assert str(Path.home()) not in text
        assert str(tmp_path.parents[-2]) not in text


def test_plots_are_well_formed_and_escape_their_labels() -> None:
    drawn = [*plots().values(), chart("a < b", "x & y", [Bar("<1>", 2.0, 1.0, 3.0)], mark=1.0)]

    for text in drawn:
        assert ET.fromstring(text).tag.endswith("svg")  # noqa: S314 - made right here.
