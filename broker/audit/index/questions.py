"""A query as conditions on the tables of the index."""

import math
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from broker.audit.index.filling import key_of
from broker.audit.index.schema import LAST_EVENT, TALLIED, TICKS, TIES
from broker.audit.query import Query
from broker.audit.record import READING_EVENTS

Pseudonyms = Callable[[str], Sequence[str]]
"""What a person may be called in the records, by the name that people know."""

_SECOND: Final = 1_000_000
DEEPEST: Final = 2**31
"""No chain of actors is known to be longer."""
_WALK: Final = 4_000
"""So many of the newest records are looked at one by one before the indexes are asked."""

_IN: Final = {
    "events": ("event",),
    "decisions": ("decision",),
    "reasons": ("reason",),
    "grant_types": ("grant_type",),
    "clients": ("client", "mcp_client"),
    "mcp_servers": ("mcp_server",),
    "resources": ("resource",),
}
"""The filters on what records have in common, and the columns of ``combination`` that meet each."""

# In each, ``{where}`` is on ``c``, and ids are those of events between two bounds.
_WALKED: Final = """
    SELECT e.id FROM (
        SELECT id, combination, subject FROM event WHERE id >= :low AND id < :high
        ORDER BY id DESC LIMIT :walk
    ) AS e CROSS JOIN combination AS c ON c.id = e.combination
    WHERE {where} ORDER BY e.id DESC LIMIT :limit
"""
_BY_COMBINATION: Final = """
    SELECT e.id FROM combination AS c CROSS JOIN event AS e ON e.id IN (
        SELECT id FROM event INDEXED BY event_in
        WHERE combination = c.id AND id >= :low AND id < :high ORDER BY id DESC LIMIT :limit
    )
    WHERE c.first < :high AND c.last >= :low AND {where} ORDER BY e.id DESC LIMIT :limit
"""
_BY_SUBJECT: Final = """
    SELECT e.id FROM seen AS s CROSS JOIN combination AS c ON c.id = s.combination
    CROSS JOIN event AS e ON e.id IN (
        SELECT id FROM event INDEXED BY event_of
        WHERE subject = s.subject AND subject > 0 AND combination = s.combination
        AND id >= :low AND id < :high ORDER BY id DESC LIMIT :limit
    )
    WHERE s.subject IN ({subjects}) AND s.first < :high AND s.last >= :low AND {where}
    ORDER BY e.id DESC LIMIT :limit
"""
_BY_TOKEN: Final = """
    SELECT DISTINCT e.id FROM token AS t CROSS JOIN event AS e ON e.id = t.event
    CROSS JOIN combination AS c ON c.id = e.combination
    WHERE t.key IN ({tokens}) AND t.event >= :low AND t.event < :high AND {where}
    ORDER BY e.id DESC LIMIT :limit
"""
_BY_POLICIES: Final = "SELECT combination FROM combination_policy WHERE policy IN ({})"
_ALL: Final = "SELECT id FROM event WHERE id >= :low AND id < :high ORDER BY id DESC LIMIT :limit"


@dataclass(slots=True)
class Conditions:
    """
    What the tables are asked for.

    ``where`` is on a row ``c`` of ``combination``; ``subjects`` and ``tokens`` are numbers to choose
    from, where they say anything. ``is_empty`` tells that nothing can meet the query. Events are
    numbered from ``low`` to before ``high``. ``tallied`` and ``decided`` say the same as ``where`` on a row
    ``t`` of ``tally``, as far as that can be said: ``None`` tells that it cannot.
    """

    low: int = 0
    high: int = LAST_EVENT
    is_empty: bool = False
    subjects: list[int] | None = None
    tokens: list[int] | None = None
    clauses: list[str] = field(default_factory=list)
    tallied: list[tuple[int, str]] | None = field(default_factory=list)
    decided: str = "1"

    def tally(self, name: str, condition: str, *, is_sum: bool = True) -> None:
        """
        Say a condition on ``tally``.

        ``is_sum`` tells that no record counts for several values that meet it.
        """
        if self.tallied is not None and is_sum:
            self.tallied.append((TALLIED[name], condition))
        else:
            self.tallied = None

    @property
    def where(self) -> str:
        """The conditions on ``c``."""
        return " AND ".join(self.clauses) or "1"

    @property
    def with_subject(self) -> str:
        """The conditions on ``c`` and an event ``e``."""
        if self.subjects is None:
            return self.where
        return f"{self.where} AND e.subject IN ({numbers(self.subjects)})"


def numbers(values: Iterable[int]) -> str:
    """Numbers as they stand in a statement; nothing that is not a number can come there."""
    return ",".join(str(int(value)) for value in values)


def conditions(
    connection: sqlite3.Connection, query: Query, *, salt: bytes, pseudonyms_of: Pseudonyms
) -> Conditions:
    """What the tables have to be asked for an answer."""
    asked = Conditions(low=lowest(query.since), high=highest(query.until))
    if asked.low >= asked.high:
        asked.is_empty = True
    for name, columns in _IN.items():
        _choose(connection, asked, getattr(query, name), columns)
    if query.policies:
        chosen = numbers(known_texts(connection, query.policies))
        one_of = _BY_POLICIES.format(chosen)
        asked.clauses.append(f"c.id IN ({one_of})")
        asked.tally("policy", f"t.value IN ({chosen})", is_sum=len(query.policies) == 1)
    if query.min_depth is not None or query.max_depth is not None:
        least, most = query.min_depth or 0, query.max_depth
        bounds = f"BETWEEN {max(int(least), 0)} AND {DEEPEST if most is None else int(most)}"
        asked.clauses.append(f"c.depth {bounds}")
        asked.tally("depth", f"t.value - 1 {bounds}")
    if query.names:
        _choose_names(connection, asked, query, pseudonyms_of)
    if query.tokens:
        asked.tokens = [key_of(salt, token) for token in query.tokens]
    return asked


def _choose(
    connection: sqlite3.Connection,
    asked: Conditions,
    values: Sequence[str],
    columns: Sequence[str],
) -> None:
    if not values:
        return
    chosen = known_texts(connection, values)
    asked.is_empty |= not chosen
    one_of = numbers(chosen)
    asked.clauses.append("(" + " OR ".join(f"c.{column} IN ({one_of})" for column in columns) + ")")
    if columns == ("decision",):
        asked.decided = f"t.decision IN ({one_of})"
    else:
        is_sum = len(columns) == 1 or len(values) == 1
        asked.tally(columns[0], f"t.value IN ({one_of})", is_sum=is_sum)


def _choose_names(
    connection: sqlite3.Connection, asked: Conditions, query: Query, pseudonyms_of: Pseudonyms
) -> None:
    names = [name for one in query.names for name in (one, *pseudonyms_of(one))]
    asked.subjects = known_texts(connection, names)
    # A record is about somebody, or about somebody who reads the record, and never both.
    asked.is_empty |= not asked.subjects or bool(query.people and query.auditors)
    asked.clauses.append(f"c.event {'IN' if query.auditors else 'NOT IN'} ({readings(connection)})")


def readings(connection: sqlite3.Connection) -> str:
    """The events in whose records the index has auditors in place of subjects, as numbers."""
    return numbers(known_texts(connection, sorted(READING_EVENTS)))


def known_texts(connection: sqlite3.Connection, values: Iterable[str]) -> list[int]:
    """The numbers of those texts that the index knows."""
    found = []
    for value in dict.fromkeys(values):
        if not _is_text(value):
            continue
        row = connection.execute("SELECT id FROM text WHERE value = ?", (value,)).fetchone()
        if row is not None:
            found.append(row[0])
    return found


def find_events(connection: sqlite3.Connection, asked: Conditions, *, limit: int) -> list[int]:
    """The newest events that meet the conditions, the newest first."""
    if asked.is_empty:
        return []
    bounds = {"low": asked.low, "high": asked.high, "limit": limit, "walk": _WALK}
    for statement in _statements(asked):
        events = [event for (event,) in connection.execute(statement, bounds)]
        if len(events) >= limit:
            return events
    return events


def _statements(asked: Conditions) -> list[str]:
    """
    What to ask, one after the other, until there are enough; the last finds all that there is.

    What is common is found among the newest records; what is rare has few combinations.
    """
    if asked.tokens is not None:
        return [_BY_TOKEN.format(tokens=numbers(asked.tokens), where=asked.with_subject)]
    walked = _WALKED.format(where=asked.with_subject)
    if asked.subjects is not None:
        subjects = numbers(asked.subjects)
        return [walked, _BY_SUBJECT.format(subjects=subjects, where=asked.where)]
    if asked.clauses:
        return [walked, _BY_COMBINATION.format(where=asked.where)]
    return [_ALL]


def lowest(since: float | None) -> int:
    """The lowest number that an event of this moment or a later one can have."""
    if since is None:
        return 0
    return max(0, min(math.ceil(since * _SECOND) * TIES, LAST_EVENT))


def highest(until: float | None) -> int:
    """The lowest number that no event before this moment has."""
    return LAST_EVENT if until is None else lowest(until)


def moment_of(event: int) -> float:
    """The moment of an event in unix seconds."""
    return event / TICKS


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
