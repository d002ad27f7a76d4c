"""What the index knows of a person, client, MCP server or resource."""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from broker.audit.index.questions import Pseudonyms, known_texts, moment_of, numbers
from broker.audit.query import PARTY_KINDS, Party

MOST_OTHERS: Final = 20
"""So many are told of each kind with whom a party was seen."""

_COLUMNS: Final = {
    "client": ("client", "mcp_client"),
    "mcp_server": ("mcp_server",),
    "resource": ("resource",),
}
_OF_COMBINATIONS: Final = """
    SELECT c.decision, c.client, c.mcp_client, c.mcp_server, c.resource, c.count, c.first, c.last
    FROM combination AS c WHERE c.count > 0 AND ({where})
"""
_OF_PERSON: Final = """
    SELECT c.decision, c.client, c.mcp_client, c.mcp_server, c.resource, s.count, s.first, s.last
    FROM seen AS s CROSS JOIN combination AS c ON c.id = s.combination WHERE s.subject IN ({names})
"""
_PEOPLE: Final = """
    SELECT s.subject, sum(s.count) AS times FROM combination AS c
    CROSS JOIN seen AS s INDEXED BY seen_in ON s.combination = c.id WHERE {where}
    GROUP BY s.subject ORDER BY times DESC, s.subject LIMIT {most}
"""


@dataclass(slots=True)
class _Seen:
    first: int | None = None
    last: int = 0
    decisions: Counter[int] = field(default_factory=Counter)
    others: dict[str, Counter[int]] = field(
        default_factory=lambda: {kind: Counter() for kind in PARTY_KINDS}
    )

    def add(self, row: Sequence[int]) -> None:
        decision, client, mcp_client, mcp_server, resource, count, first, last = row
        self.first = first if self.first is None else min(self.first, first)
        self.last = max(self.last, last)
        self.decisions[decision] += count
        for one in {client, mcp_client}:
            self.others["client"][one] += count
        self.others["mcp_server"][mcp_server] += count
        self.others["resource"][resource] += count


def party_of(
    connection: sqlite3.Connection, kind: str, name: str, *, pseudonyms_of: Pseudonyms
) -> Party | None:
    """All that is known of a party of one of the kinds; ``None`` where nothing is."""
    names = [name, *pseudonyms_of(name)] if kind == "person" else [name]
    known = known_texts(connection, names)
    if not known:
        return None
    chosen = numbers(known)
    seen = _Seen()
    if kind == "person":
        rows = connection.execute(_OF_PERSON.format(names=chosen))
    else:
        where = " OR ".join(f"c.{column} IN ({chosen})" for column in _COLUMNS[kind])
        rows = connection.execute(_OF_COMBINATIONS.format(where=where))
    for row in rows:
        seen.add(row)
    if seen.first is None:
        return None
    if kind != "person":
        people = connection.execute(_PEOPLE.format(where=where, most=MOST_OTHERS))
        seen.others["person"].update(dict(people))
    return _told(connection, kind, name, set(known), seen)


def _told(
    connection: sqlite3.Connection, kind: str, name: str, itself: set[int], seen: _Seen
) -> Party:
    others = {}
    for other, counts in seen.others.items():
        for one in {0} | (itself if other == kind else set()):
            counts.pop(one, None)
        others[other] = [
            (_text(connection, number), count) for number, count in counts.most_common(MOST_OTHERS)
        ]
    decisions = {
        _text(connection, number): count for number, count in seen.decisions.items() if number
    }
    return Party(
        kind=kind,
        name=name,
        first_seen=moment_of(seen.first or 0),
        last_seen=moment_of(seen.last),
        permitted=decisions.get("permit", 0),
        denied=decisions.get("deny", 0),
        others=others,
    )


def _text(connection: sqlite3.Connection, number: int) -> str:
    (value,) = connection.execute("SELECT value FROM text WHERE id = ?", (number,)).fetchone()
    return str(value)
