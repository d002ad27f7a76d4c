"""The table of what standards ask, of what the broker does about it, and of the tests that show it."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from docs import threats_tables
from docs.markers import STANDARDS, Shown
from docs.tables import table

_DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True)
class Row:
    """
    A requirement: where it is from, how binding it is there, and what the broker does.

    ``not_offered`` says why there is nothing to show, where there is nothing. ``otherwise`` says what
    the source has, where the broker deliberately does something else.
    """

    requirement: str
    source: str
    level: str
    rule: str
    not_offered: str = ""
    otherwise: str = ""


@cache
def groups() -> Mapping[str, tuple[Row, ...]]:
    """All requirements by the title of their group."""
    listed = tomllib.loads((_DATA / "conformance.toml").read_text(encoding="utf-8"))["group"]
    return {group["title"]: tuple(_rows(group["rows"])) for group in listed}


def rows() -> list[Row]:
    """All requirements in their order."""
    return [row for group in groups().values() for row in group]


def shown_by(row: Row) -> Sequence[Shown]:
    """
    The tests that name a requirement.

    A bare id that the attack catalogue has as well means the attack.
    """
    found = set(threats_tables.shown().get(STANDARDS + row.requirement, ()))
    if row.requirement not in _attacks():
        found.update(threats_tables.shown().get(row.requirement, ()))
    return sorted(found)


def gaps() -> list[Row]:
    """The requirements that the broker claims to meet and that no test shows."""
    return [row for row in rows() if not row.not_offered and not shown_by(row)]


def requirement_tables() -> str:
    """How many requirements are shown, then a table for each group."""
    listed = rows()
    absent = sum(bool(row.not_offered) for row in listed)
    tested = len(listed) - absent - len(gaps())
    counts = (
        f"{len(listed)} requirements: {tested} are shown by tests, {absent} are not offered, and for"
        f" {len(gaps())} there is no test that names them.\n"
    )
    tables = (f"### {title}\n\n{_group_table(group)}" for title, group in groups().items())
    return "\n".join([counts, *tables])


def deviations_table() -> str:
    """What the broker deliberately does otherwise than its source has it."""
    return table(
        ("Id", "From", "The broker", "What is written"),
        ((row.requirement, row.source, row.rule, row.otherwise) for row in rows() if row.otherwise),
    )


def requirement_gaps_table() -> str:
    """The requirements that no test shows."""
    missing = [(row.requirement, row.source, row.rule) for row in gaps()]
    return table(("Id", "From", "The broker"), missing) if missing else "None.\n"


def _rows(listed: Mapping[str, Any]) -> Iterator[Row]:
    for requirement, members in listed.items():
        yield Row(requirement, **members)


@cache
def _attacks() -> frozenset[str]:
    return frozenset(row.requirement for group in threats_tables.groups().values() for row in group)


def _group_table(group: Sequence[Row]) -> str:
    return table(
        ("Id", "From", "Level", "The broker", "Shown by"),
        ((row.requirement, row.source, row.level, row.rule, _evidence(row)) for row in group),
    )


def _evidence(row: Row) -> str:
    absent = [f"Not offered: {row.not_offered}."] if row.not_offered else []
    return "<br>".join([*absent, *(test.link for test in shown_by(row))]) or "**none**"
