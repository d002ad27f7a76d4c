"""Records counted by time."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from broker.audit.index.questions import Conditions, numbers
from broker.audit.index.schema import ALL, ALL_WIDTHS, SHARE_WIDTHS, TALLY_WIDTHS, TICKS
from broker.audit.query import Bucket, QueryRefused

MOST_BUCKETS: Final = 2_000
"""No answer has more of them."""

_LONG: Final = 86_400 * TICKS
_DECISIONS: Final = "SELECT id, value FROM text WHERE value IN ('permit', 'deny', 'info')"
# Each by itself, since SQLite finds only one of them at once without looking at all rows.
_EDGES: Final = """
    SELECT (SELECT min(id) FROM event WHERE id >= :low AND id < :high),
        (SELECT max(id) FROM event WHERE id >= :low AND id < :high)
"""

_ONE_BY_ONE: Final = """
    SELECT e.id / {ticks} AS bucket, c.decision, count(*) FROM {source}
    WHERE {where} GROUP BY bucket, c.decision
"""
_TALLIED: Final = """
    SELECT t.start / {share} AS bucket, t.decision, sum(t.count) FROM tally AS t
    WHERE t.width = {width} AND t.facet = {facet} AND {value} AND t.start >= {first}
    AND t.start < {last} AND {decided} GROUP BY bucket, t.decision
"""
_SHARED: Final = """
    SELECT t.start / {share} AS bucket, c.decision, sum(t.count) FROM combination AS c
    CROSS JOIN share AS t ON t.width = {width} AND t.combination = c.id
    AND t.start >= {first} AND t.start < {last} WHERE {where} GROUP BY bucket, c.decision
"""
_EVENTS: Final = (
    "event AS e CROSS JOIN combination AS c ON c.id = e.combination"
    " AND e.id >= {low} AND e.id < {high}"
)
_IN_COMBINATIONS: Final = (
    "combination AS c CROSS JOIN event AS e INDEXED BY event_in"
    " ON e.combination = c.id AND e.id >= {low} AND e.id < {high}"
)
_OF_SUBJECTS: Final = (
    "seen AS s CROSS JOIN combination AS c ON c.id = s.combination AND s.subject IN ({subjects})"
    " CROSS JOIN event AS e INDEXED BY event_of ON e.subject = s.subject AND e.subject > 0"
    " AND e.combination = s.combination AND e.id >= {low} AND e.id < {high}"
)
_OF_TOKENS: Final = (
    "(SELECT DISTINCT event FROM token WHERE key IN ({tokens})"
    " AND event >= {low} AND event < {high}) AS t CROSS JOIN event AS e ON e.id = t.event"
    " CROSS JOIN combination AS c ON c.id = e.combination"
)


def count_by_time(
    connection: sqlite3.Connection, asked: Conditions, *, width: timedelta
) -> list[Bucket]:
    """
    How many records meet the conditions in each span of ``width`` seconds since 1970, in order.

    Raises ``QueryRefused`` for a width that is no whole number of seconds, or too small for the time.
    """
    seconds = int(width.total_seconds())
    if seconds < 1 or width != timedelta(seconds=seconds):
        raise QueryRefused("width: not a whole number of seconds")
    first, last = connection.execute(_EDGES, {"low": asked.low, "high": asked.high}).fetchone()
    if asked.is_empty or first is None:
        return []
    if (last - first) // (TICKS * seconds) >= MOST_BUCKETS:
        raise QueryRefused(f"width: more than {MOST_BUCKETS} spans of it are in that time")
    asked.low, asked.high = max(asked.low, first), min(asked.high, last + 1)
    counts: dict[int, dict[str, int]] = {}
    decisions = dict(connection.execute(_DECISIONS))
    for statement in _statements(asked, seconds):
        for bucket, decision, count in connection.execute(statement):
            in_bucket = counts.setdefault(bucket, {})
            name = decisions[decision]
            in_bucket[name] = in_bucket.get(name, 0) + count
    return [_bucket(number * seconds, counts[number]) for number in sorted(counts)]


def _bucket(start: float, counts: dict[str, int]) -> Bucket:
    told = (counts.get(name, 0) for name in ("permit", "deny", "info"))
    permitted, denied, informed = told
    return Bucket(float(start), permitted=permitted, denied=denied, informed=informed)


def _statements(asked: Conditions, seconds: int) -> list[str]:
    """
    What is counted already is added up, by the widest spans that fit; the rest is counted one by one.

    So both ends of a long time are made up of shorter and shorter spans.
    """
    counted = _counted(asked)
    fitting = [one for one in counted.widths if seconds % one == 0]
    statements = []
    spans = [(asked.low, asked.high)]
    for width in sorted(fitting, reverse=True):
        left = []
        for low, high in spans:
            first, last = -(-low // (TICKS * width)), high // (TICKS * width)
            if first >= last:
                left.append((low, high))
                continue
            statements.append(counted.asking(seconds, width=width, first=first, last=last))
            left += [(low, first * TICKS * width), (last * TICKS * width, high)]
        spans = left
    return statements + [_one_by_one(asked, *span, seconds) for span in spans if span[0] < span[1]]


@dataclass(frozen=True, slots=True)
class _Counted:
    """What is counted already: by which widths, and how it is asked for."""

    widths: Sequence[int]
    statement: str = ""
    members: Mapping[str, object] = field(default_factory=dict)

    def asking(self, seconds: int, *, width: int, first: int, last: int) -> str:
        """How spans of so many seconds are asked for, from those of a width that are counted."""
        share = seconds // width
        return self.statement.format(
            share=share, width=width, first=first, last=last, **self.members
        )


def _counted(asked: Conditions) -> _Counted:
    if asked.tokens is not None or asked.subjects is not None:
        return _Counted(())
    if asked.tallied is None or len(asked.tallied) > 1:
        return _Counted(SHARE_WIDTHS, _SHARED, {"where": asked.where})
    ((facet, value),) = asked.tallied or [(ALL, "t.value = 0")]
    members = {"facet": facet, "value": value, "decided": asked.decided}
    return _Counted(TALLY_WIDTHS if asked.tallied else ALL_WIDTHS, _TALLIED, members)


def _one_by_one(asked: Conditions, low: int, high: int, seconds: int) -> str:
    bounds = {"low": low, "high": high}
    if asked.tokens is not None:
        source = _OF_TOKENS.format(tokens=numbers(asked.tokens), **bounds)
    elif asked.subjects is not None:
        source = _OF_SUBJECTS.format(subjects=numbers(asked.subjects), **bounds)
    elif asked.clauses and high - low > _LONG:
        source = _IN_COMBINATIONS.format(**bounds)
    else:
        source = _EVENTS.format(**bounds)
    return _ONE_BY_ONE.format(ticks=TICKS * seconds, source=source, where=asked.with_subject)
