"""Records counted by time."""

import sqlite3
from datetime import timedelta
from typing import Final

from broker.audit.index.filling import TALLIES
from broker.audit.index.questions import Conditions, numbers
from broker.audit.index.schema import TIES
from broker.audit.query import Bucket, QueryRefused

MOST_BUCKETS: Final = 2_000
"""No answer has more of them."""

_SECOND: Final = 1_000_000
_DECISIONS: Final = "SELECT id, value FROM text WHERE value IN ('permit', 'deny', 'info')"
_EDGES: Final = "SELECT min(id), max(id) FROM event WHERE id >= ? AND id < ?"

_ONE_BY_ONE: Final = """
    SELECT e.id / {ticks} AS bucket, c.decision, count(*) FROM {source}
    WHERE {where} GROUP BY bucket, c.decision
"""
_COUNTED: Final = """
    SELECT t.start / {share} AS bucket, c.decision, sum(t.count)
    FROM tally AS t CROSS JOIN combination AS c ON c.id = t.combination
    WHERE t.width = {width} AND t.start >= {first} AND t.start < {last} AND {where}
    GROUP BY bucket, c.decision
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
    "(SELECT DISTINCT event FROM token WHERE key IN ({tokens}) AND event >= {low} AND event < {high}) AS t"
    " CROSS JOIN event AS e ON e.id = t.event CROSS JOIN combination AS c ON c.id = e.combination"
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
    first, last = connection.execute(_EDGES, (asked.low, asked.high)).fetchone()
    if asked.is_empty or first is None:
        return []
    if (last - first) // (TIES * _SECOND * seconds) >= MOST_BUCKETS:
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
    """What is counted already is added up; the rest, at both ends, is counted one by one."""
    fitting = [one for one in TALLIES if seconds % one == 0]
    if asked.tokens is not None or asked.subjects is not None or not fitting:
        return [_one_by_one(asked, asked.low, asked.high, seconds)]
    tally = max(fitting)
    ticks = TIES * _SECOND * tally
    first, last = -(-asked.low // ticks), asked.high // ticks
    if first >= last:
        return [_one_by_one(asked, asked.low, asked.high, seconds)]
    counted = _COUNTED.format(
        share=seconds // tally, width=tally, first=first, last=last, where=asked.where
    )
    return [
        _one_by_one(asked, asked.low, first * ticks, seconds),
        counted,
        _one_by_one(asked, last * ticks, asked.high, seconds),
    ]


def _one_by_one(asked: Conditions, low: int, high: int, seconds: int) -> str:
    bounds = {"low": low, "high": high}
    if asked.tokens is not None:
        source = _OF_TOKENS.format(tokens=numbers(asked.tokens), **bounds)
    elif asked.subjects is not None:
        source = _OF_SUBJECTS.format(subjects=numbers(asked.subjects), **bounds)
    else:
        # Between the first and the last moment, or by what the records have in common.
        source = (_IN_COMBINATIONS if asked.clauses else _EVENTS).format(**bounds)
    return _ONE_BY_ONE.format(
        ticks=TIES * _SECOND * seconds, source=source, where=asked.with_subject
    )
