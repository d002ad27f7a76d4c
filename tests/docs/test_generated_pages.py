"""Pages that follow from the code agree with it, and what they are made from is complete."""

import ast
from pathlib import Path

import pytest

from broker.audit.record import Record
from broker.errors import OAuthError, Reason
from docs import conformance_tables
from docs.errors_tables import BY_SLOT, INACTIVE, ON_A_PAGE, error_classes, remedies
from docs.generate import FOLDER, REGIONS, pages
from docs.markers import STANDARDS, requirements
from docs.operations_tables import events, record
from docs.regions import fill, names_in
from docs.source import attribute_uses, modules
from docs.threats_tables import faults, gaps, groups, shown
from tests.docs.markdown import ROOT

_SLOTS = {"invalid_request", "invalid_client", "invalid_grant", "invalid_dpop_proof"}
_LEVELS = {
    *("MUST", "MUST NOT", "REQUIRED", "SHOULD", "SHOULD NOT", "MAY"),
    *("proposed", "rule"),
}


def test_the_generated_pages_are_up_to_date() -> None:
    """Regenerate with ``make docs``."""
    stale = [
        page.name
        for page, text in pages().items()
        if not page.exists() or page.read_text(encoding="utf-8") != text
    ]

    assert not stale


def test_every_region_stands_in_one_place() -> None:
    found = [
        region
        for page in sorted(FOLDER.glob("*.md"))
        for region in names_in(page.read_text(encoding="utf-8"))
    ]

    assert sorted(found) == sorted(REGIONS)


def test_only_what_is_between_the_marks_is_made_anew() -> None:
    page = "before\n<!-- generated: a -->\nold\n<!-- end of generated -->\nafter\n"

    assert fill(page, {"a": lambda: "new\n"}) == page.replace("old\n", "\nnew\n\n")


def test_a_region_that_nobody_makes_is_an_error() -> None:
    with pytest.raises(KeyError):
        fill("<!-- generated: b -->\n<!-- end of generated -->\n", {})


def test_every_reason_has_a_remedy_and_stands_in_the_order_of_the_list() -> None:
    assert [code for group in remedies() for code in group["reasons"]] == [
        reason.code for reason in Reason
    ]


def test_every_answer_that_a_reason_is_said_to_get_is_an_answer() -> None:
    codes = {one.error for one in error_classes()}

    for answers in _answers().values():
        assert answers in (BY_SLOT, INACTIVE, ON_A_PAGE) or codes.issuperset(answers)


def test_a_reason_is_said_to_be_used_exactly_if_it_is() -> None:
    uses = attribute_uses(ROOT)

    used = {reason.code: bool(uses.get(reason.name, frozenset())) for reason in Reason}

    assert used == {code: bool(answers) for code, answers in _answers().items()}


def test_a_reason_is_answered_with_what_the_code_raises_it_in() -> None:
    answers = _answers()
    classes: dict[str, type[OAuthError]] = {one.__name__: one for one in error_classes()}
    for raised, reason in _raised():
        said = answers[reason.lower()]
        if raised == "TokenRejected":
            assert said in (BY_SLOT, INACTIVE, ON_A_PAGE) or _SLOTS.intersection(said), reason
        elif raised in classes:
            assert classes[raised].error in said, reason


def test_every_member_of_a_record_has_a_meaning() -> None:
    assert set(record()["fields"]) == set(Record.__struct_fields__)
    assert set(record()["events"]) == set(events())


def test_every_row_that_a_test_names_is_in_the_catalogue() -> None:
    rows = {row.requirement for group in groups().values() for row in group}
    prefixes = {row.rpartition("-")[0] for row in rows} - {"POP"}

    named = {one for one in shown() if one.rpartition("-")[0] in prefixes}

    assert named <= rows


def test_every_fault_is_shown_by_a_test() -> None:
    assert [fault["what"] for fault in faults() if not any(map(shown().get, fault["rows"]))] == []


def test_the_worst_attacks_have_tests() -> None:
    """A gap among these would be a hole in the product, not in a page."""
    essential = ("JWS", "CLM", "KEY", "TEX", "ACT", "SGN", "RPL", "POL-0")

    missing = [row.requirement for row in gaps() if row.requirement.startswith(essential)]

    assert set(missing) <= {"POL-08"}


def test_every_requirement_that_a_test_names_is_listed() -> None:
    listed = {row.requirement for row in conformance_tables.rows()}
    prefixes = {_prefix(one) for one in listed}

    named = {one.removeprefix(STANDARDS) for one in shown()}

    assert {one for one in named if _prefix(one) in prefixes} <= listed


def test_every_requirement_is_listed_once() -> None:
    listed = [row.requirement for row in conformance_tables.rows()]

    assert len(listed) == len(set(listed))


def test_every_must_has_a_test_or_is_not_offered() -> None:
    """A gap among these would be a hole in the product, not in a page."""
    binding = {"MUST", "MUST NOT", "REQUIRED"}

    missing = [row.requirement for row in conformance_tables.gaps() if row.level in binding]

    assert not missing


def test_a_requirement_says_how_binding_it_is_and_a_rule_of_ours_binds_nobody_else() -> None:
    for row in conformance_tables.rows():
        assert row.level in _LEVELS, row.requirement
        assert row.source != "our rule" or row.level == "rule", row.requirement
        assert not (row.not_offered and row.otherwise), row.requirement


def test_a_bare_id_that_an_attack_has_too_means_the_attack() -> None:
    row = next(one for one in conformance_tables.rows() if one.requirement == "ACT-01")

    assert conformance_tables.shown_by(row) == sorted(shown()[f"{STANDARDS}ACT-01"])


def test_marks_are_found_on_functions_modules_and_single_parameters(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text(
        "pytestmark = pytest.mark.requirement('A-1')\n"
        "@pytest.mark.requirement('A-2', 'sec:B-1', 'std:B-1')\n"
        "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.requirement('A-3'))])\n"
        "def test_one(x): ...\n"
        "def helper(): ...\n"
    )

    found = requirements(tmp_path)

    assert sorted(found) == ["A-1", "A-2", "A-3", "B-1", "std:B-1"]
    assert {test.name for tests in found.values() for test in tests} == {"test_one"}


def test_a_mark_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text(
        "@pytest.mark.requirement(ROW)\ndef test_one(): ...\n"
    )

    with pytest.raises(ValueError, match=r"test_a\.py:1:"):
        requirements(tmp_path)


def _prefix(requirement: str) -> str:
    return requirement.rpartition("-")[0]


def _answers() -> dict[str, list[str] | str]:
    return {
        code: entry["answers"] for group in remedies() for code, entry in group["reasons"].items()
    }


def _raised() -> set[tuple[str, str]]:
    """Each call in the code that is given a reason by name, as callee and reason."""
    return {
        (call.func.id, reason.attr)
        for tree in modules(ROOT).values()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.args
        for reason in [call.args[0]]
        if isinstance(reason, ast.Attribute)
        and isinstance(reason.value, ast.Name)
        and reason.value.id == "Reason"
    }
