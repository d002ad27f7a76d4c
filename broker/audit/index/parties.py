"""What the index knows of a person, client, MCP server or resource."""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from broker.audit.index.questions import Pseudonyms, known_texts, moment_of, numbers, readings
from broker.audit.index.schema import TALLIED, TICKS
from broker.audit.query import PARTY_KINDS, Party

MOST_OTHERS: Final = 20
"""So many are told of each kind with whom a party was seen."""

MOST_COUNTED: Final = 5_000
"""Of a party with more records, people are counted among the newest ones only."""

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
        AND c.event NOT IN ({readings})
"""
_BY_HOUR: Final = """
    SELECT start, sum(count) FROM tally WHERE width = 3600 AND facet = {facet} AND value IN ({names})
    GROUP BY start ORDER BY start DESC
"""
_PEOPLE: Final = """
    SELECT e.subject, count(*) AS times FROM combination AS c
    CROSS JOIN event AS e ON e.id IN (
        SELECT id FROM event INDEXED BY event_in WHERE combination = c.id AND id >= {low}
    )
    WHERE c.last >= {low} AND e.subject > 0 AND ({where})
    GROUP BY e.subject ORDER BY times DESC, e.subject LIMIT {most}
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
        rows = connection.execute(_OF_PERSON.format(names=chosen, readings=readings(connection)))
    else:
        where = " OR ".join(f"c.{column} IN ({chosen})" for column in _COLUMNS[kind])
        rows = connection.execute(_OF_COMBINATIONS.format(where=where))
    for row in rows:
        seen.add(row)
    if seen.first is None:
        return None
    people_from = seen.first
    if kind != "person":
        low = _newest(connection, kind, chosen)
        people_from = max(low, seen.first)
        people = connection.execute(_PEOPLE.format(where=where, low=low, most=MOST_OTHERS))
        seen.others["person"].update(dict(people))
    return _told(
        connection,
        Party(
            kind=kind,
            name=name,
            first_seen=moment_of(seen.first),
            last_seen=moment_of(seen.last),
            permitted=0,
            denied=0,
            others={},
            people_from=moment_of(people_from),
        ),
        set(known),
        seen,
    )


def _newest(connection: sqlite3.Connection, kind: str, names: str) -> int:
    """From which event on the people are counted: by the hour, as many records as are looked at."""
    so_many = 0
    for start, count in connection.execute(_BY_HOUR.format(facet=TALLIED[kind], names=names)):
        so_many += count
        if so_many >= MOST_COUNTED:
            return int(start) * 3_600 * TICKS
    return 0


def _told(connection: sqlite3.Connection, party: Party, itself: set[int], seen: _Seen) -> Party:
    others = {}
    for other, counts in seen.others.items():
        for one in {0} | (itself if other == party.kind else set()):
            counts.pop(one, None)
        others[other] = [
            (_text(connection, number), count)
            for number, count in sorted(counts.items(), key=_most_first)[:MOST_OTHERS]
        ]
    decisions = {
        _text(connection, number): count for number, count in seen.decisions.items() if number
    }
    return replace(
        party,
        permitted=decisions.get("permit", 0),
        denied=decisions.get("deny", 0),
        others=others,
    )


def _text(connection: sqlite3.Connection, number: int) -> str:
    (value,) = connection.execute("SELECT value FROM text WHERE id = ?", (number,)).fetchone()
    return str(value)


def _most_first(counted: tuple[int, int]) -> tuple[int, int]:
    number, count = counted
    return -count, number
