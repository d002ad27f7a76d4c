"""The table of attacks and of the tests that say no, and of faults and the tests that show them."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from docs.markers import Shown, requirements
from docs.tables import table

ROOT = Path(__file__).parents[1]
_DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True)
class Row:
    """An attack; ``absent`` says why there is nothing to attack, where there is nothing."""

    requirement: str
    attack: str
    absent: str = ""


@cache
def groups() -> Mapping[str, tuple[Row, ...]]:
    """All attacks by the title of their group."""
    listed = tomllib.loads((_DATA / "threats.toml").read_text(encoding="utf-8"))["group"]
    return {group["title"]: tuple(_rows(group["rows"])) for group in listed}


@cache
def faults() -> tuple[Mapping[str, Any], ...]:
    """All faults with what the broker does."""
    return tuple(tomllib.loads((_DATA / "faults.toml").read_text(encoding="utf-8"))["fault"])


@cache
def shown() -> Mapping[str, tuple[Shown, ...]]:
    """The tests by the ids that they show."""
    return requirements(ROOT)


def gaps() -> list[Row]:
    """The attacks that could be tried and that no test shows."""
    return [row for rows in groups().values() for row in rows if _is_gap(row)]


def attack_tables() -> str:
    """How many attacks are shown, then a table for each group."""
    rows = [row for group in groups().values() for row in group]
    absent = sum(bool(row.absent) for row in rows)
    tested = len(rows) - absent - len(gaps())
    counts = (
        f"{len(rows)} attacks: {tested} are shown by tests, {absent} find nothing to attack, and for"
        f" {len(gaps())} there is no test that names them.\n"
    )
    tables = (f"### {title}\n\n{_attack_table(group)}" for title, group in groups().items())
    return "\n".join([counts, *tables])


def gaps_list() -> str:
    """The attacks that no test shows, as a list."""
    return "".join(f"- {row.requirement}: {row.attack}.\n" for row in gaps()) or "None.\n"


def faults_table() -> str:
    """What happens when something fails, and the tests that show it."""
    return table(
        ("When", "The broker", "It recovers", "Shown by"),
        (
            (
                fault["what"],
                fault["effect"],
                fault["recovery"],
                ", ".join(f"`{file}`" for file in _files(fault["rows"])),
            )
            for fault in faults()
        ),
    )


def _rows(listed: Mapping[str, Any]) -> Iterator[Row]:
    for requirement, row in listed.items():
        known = {"attack": row} if isinstance(row, str) else row
        yield Row(requirement, **known)


def _is_gap(row: Row) -> bool:
    return not row.absent and row.requirement not in shown()


def _attack_table(rows: Sequence[Row]) -> str:
    return table(
        ("Id", "Somebody tries to", "The test that says no"),
        ((row.requirement, row.attack, _evidence(row)) for row in rows),
    )


def _evidence(row: Row) -> str:
    if row.absent:
        return f"Nothing to attack: {row.absent}."
    tests = shown().get(row.requirement, ())
    return "<br>".join(test.link for test in tests) or "**none**"


def _files(rows: Sequence[str]) -> list[str]:
    return sorted({test.file for row in rows for test in shown().get(row, ())})
