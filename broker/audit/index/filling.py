"""Writing to the index: lines in, rows out, the positions of the chains with them."""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from broker.audit.chain import Head
from broker.audit.follow import Line, Position
from broker.audit.index.entries import IndexEntry, entry_of
from broker.audit.index.schema import (
    ALL,
    ALL_WIDTHS,
    FACETS,
    SHARE_WIDTHS,
    TALLIED,
    TALLY_WIDTHS,
    TICKS,
    TIES,
)

HASH_BYTES: Final = 16
"""So much of the hash of a line is kept: more than anybody can find a second line for."""

_MOST_KEPT: Final = 50_000

_PLACE: Final = "INSERT INTO place VALUES (?, ?, ?, ?, ?, ?)"
_EVENT: Final = "INSERT INTO event VALUES (?, ?, ?, ?)"
_NAMED: Final = "INSERT OR IGNORE INTO named VALUES (?, ?)"
_TOKEN: Final = "INSERT OR IGNORE INTO token VALUES (?, ?, ?)"
_LAST_OF_MOMENT: Final = "SELECT max(id) FROM event WHERE id >= ? AND id < ?"
_COUNT: Final = """
    UPDATE combination SET first = CASE count WHEN 0 THEN ?1 ELSE min(first, ?1) END,
        last = max(last, ?2), count = count + ?3 WHERE id = ?4
"""
_SEEN: Final = """
    INSERT INTO seen VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
        count = count + excluded.count, first = min(first, excluded.first),
        last = max(last, excluded.last)
"""
_TALLY: Final = """
    INSERT INTO tally VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT DO UPDATE SET count = count + excluded.count
"""
_SHARE: Final = """
    INSERT INTO share VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count
"""
_CHAIN: Final = """
    INSERT INTO chain (writer, number, offset, seq, prev) VALUES (?, ?, ?, ?, ?)
        ON CONFLICT (writer) DO UPDATE SET number = excluded.number, offset = excluded.offset,
        seq = excluded.seq, prev = excluded.prev
"""
_COMBINATION: Final = """
    INSERT INTO combination (
        event, decision, reason, grant_type, client, mcp_client, mcp_server, resource, depth, policies
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SAME: Final = """
    SELECT id FROM combination WHERE event = ? AND decision = ? AND reason = ? AND grant_type = ?
        AND client = ? AND mcp_client = ? AND mcp_server = ? AND resource = ? AND depth = ?
        AND policies = ?
"""

_Key = TypeVar("_Key")
_Span = list[int]
"""How many, the first, the last."""


def key_of(salt: bytes, text: str) -> int:
    """What stands for an id in the index; two ids with the same are told apart by their records."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=salt)
    return int.from_bytes(digest.digest(), "big", signed=True)


def read_positions(connection: sqlite3.Connection) -> dict[str, Position]:
    """How far the index knows each chain."""
    rows = connection.execute("SELECT writer, number, offset, seq, prev FROM chain WHERE seq > 0")
    return {
        writer: Position(number, offset, Head(seq, prev))
        for writer, number, offset, seq, prev in rows
    }


def after(line: Line) -> Position:
    """How far a chain was followed with a line."""
    offset = line.offset + len(line.content) + 1
    return Position(line.number, offset, Head(line.seq + 1, line.hash))


@dataclass(frozen=True, slots=True)
class _Combination:
    """A row of ``combination``, and what it counts for in ``tally``: the kinds and the values."""

    number: int
    decision: int
    tallied: tuple[tuple[int, int], ...]


@dataclass(slots=True)
class _Batch:
    """The rows of one transaction, gathered."""

    number: int
    places: list[tuple[int, int, int, int, int, bytes]] = field(default_factory=list)
    events: list[tuple[int, int, int, int]] = field(default_factory=list)
    named: list[tuple[int, int]] = field(default_factory=list)
    tokens: list[tuple[int, int, int]] = field(default_factory=list)
    counts: dict[int, _Span] = field(default_factory=dict)
    seen: dict[tuple[int, int], _Span] = field(default_factory=dict)
    tallies: Counter[tuple[int, int, int, int, int]] = field(default_factory=Counter)
    shares: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    next_of: dict[int, int] = field(default_factory=dict)
    last_lines: dict[str, Line] = field(default_factory=dict)
    unreadable: int = 0


class Filler:
    """
    Enters lines into the index, through a connection that nobody else writes by.

    It remembers numbers that others may not give away meanwhile: with another index, or after anybody
    else wrote to this one, another filler is needed.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        (self._salt,) = connection.execute("SELECT value FROM meta WHERE name = 'salt'").fetchone()
        self._texts: dict[str, int] = {}
        self._combinations: dict[tuple[object, ...], _Combination] = {}
        self._chains: dict[str, int] = {}
        (last,) = connection.execute("SELECT max(id) FROM event").fetchone()
        self._last = -1 if last is None else last

    def enter(self, lines: Sequence[tuple[Line, IndexEntry | None]]) -> None:
        """Add the lines, in the transaction that is open."""
        (number,) = self._connection.execute("SELECT max(number) FROM place").fetchone()
        batch = _Batch((number or 0) + 1)
        for line, entry in lines:
            event = 0
            if entry is None:
                batch.unreadable += 1
            else:
                event = self._event(batch, entry)
            digest = bytes.fromhex(line.hash[: 2 * HASH_BYTES])
            chain = self._chain(line.writer)
            batch.places.append((batch.number, event, chain, line.number, line.offset, digest))
            batch.number += 1
            batch.last_lines[line.writer] = line
        self._write(batch)

    def _event(self, batch: _Batch, entry: IndexEntry) -> int:
        event = self._number(batch, entry.moment)
        combination = self._combination(entry)
        subject = self._text(entry.subject)
        batch.events.append((event, combination.number, subject, batch.number))
        batch.named.append((key_of(self._salt, entry.event_id), event))
        for jti, relation in entry.tokens.items():
            batch.tokens.append((key_of(self._salt, jti), event, relation))
        _count(batch.counts, combination.number, event)
        if subject:
            _count(batch.seen, (subject, combination.number), event)
        _tally(batch, combination, event // TICKS)
        return event

    def _number(self, batch: _Batch, moment: int) -> int:
        """The next number of a moment, or of one after it when there are too many."""
        first = moment * TIES
        if first > self._last:
            batch.next_of[moment] = first + 1
        else:
            first = self._number_between(batch, moment)
        self._last = max(self._last, first)
        return first

    def _number_between(self, batch: _Batch, moment: int) -> int:
        """The same where there are later ones already."""
        while True:
            first = moment * TIES
            number = batch.next_of.get(moment)
            if number is None:
                bounds = (first, first + TIES)
                (last,) = self._connection.execute(_LAST_OF_MOMENT, bounds).fetchone()
                number = first if last is None else last + 1
            if number < first + TIES:
                batch.next_of[moment] = number + 1
                return int(number)
            batch.next_of[moment] = number
            moment += 1

    def _combination(self, entry: IndexEntry) -> _Combination:
        key = (*entry.facets, entry.depth, entry.policies)
        known = self._combinations.get(key)
        if known is None:
            known = self._find_combination(entry)
            if len(self._combinations) >= _MOST_KEPT:
                self._combinations.clear()
            self._combinations[key] = known
        return known

    def _find_combination(self, entry: IndexEntry) -> _Combination:
        policies = sorted(self._text(policy) for policy in entry.policies)
        row = (*map(self._text, entry.facets), entry.depth, ",".join(map(str, policies)))
        found = self._connection.execute(_SAME, row).fetchone()
        if found is not None:
            (number,) = found
        else:
            number = self._connection.execute(_COMBINATION, row).lastrowid
            self._connection.executemany(
                "INSERT INTO combination_policy VALUES (?, ?)",
                [(policy, number) for policy in policies],
            )
        texts = dict(zip(FACETS, map(self._text, entry.facets), strict=True))
        values = {(TALLIED[name], texts[name]) for name in FACETS if name in TALLIED}
        values |= {(TALLIED["client"], texts["mcp_client"]), (TALLIED["depth"], entry.depth + 1)}
        values |= {(TALLIED["policy"], policy) for policy in policies}
        tallied = tuple(sorted(pair for pair in values if pair[1] > 0))
        return _Combination(number, texts["decision"], tallied)

    def _text(self, value: str) -> int:
        """The number of a text; zero for none."""
        if not value:
            return 0
        known = self._texts.get(value)
        if known is None:
            if len(self._texts) >= _MOST_KEPT:
                self._texts.clear()
            known = self._texts[value] = self._find_text(value)
        return known

    def _find_text(self, value: str) -> int:
        found = self._connection.execute("SELECT id FROM text WHERE value = ?", (value,)).fetchone()
        if found is not None:
            return int(found[0])
        entered = self._connection.execute("INSERT INTO text (value) VALUES (?)", (value,))
        return int(entered.lastrowid or 0)

    def _chain(self, writer: str) -> int:
        known = self._chains.get(writer)
        if known is None:
            self._connection.execute(
                "INSERT OR IGNORE INTO chain (writer, number, offset, seq, prev) VALUES (?, 0, 0, 0, '')",
                (writer,),
            )
            question = "SELECT id FROM chain WHERE writer = ?"
            (known,) = self._connection.execute(question, (writer,)).fetchone()
            self._chains[writer] = known
        return known

    def _write(self, batch: _Batch) -> None:
        many = self._connection.executemany
        many(_PLACE, batch.places)
        many(_EVENT, batch.events)
        # In their own order, so that neighbours are written together.
        many(_NAMED, sorted(batch.named))
        many(_TOKEN, sorted(batch.tokens))
        counts = batch.counts.items()
        many(_COUNT, [(first, last, count, number) for number, (count, first, last) in counts])
        many(_SEEN, [(*key, *span) for key, span in sorted(batch.seen.items())])
        many(_TALLY, [(*key, count) for key, count in sorted(batch.tallies.items())])
        many(_SHARE, [(*key, count) for key, count in sorted(batch.shares.items())])
        ends = {writer: after(line) for writer, line in batch.last_lines.items()}
        many(
            _CHAIN,
            [
                (writer, at.number, at.offset, at.head.seq, at.head.prev)
                for writer, at in ends.items()
            ],
        )
        self._connection.execute(
            "UPDATE meta SET value = value + ? WHERE name = 'unreadable'", (batch.unreadable,)
        )


def read_entry(line: Line) -> tuple[Line, IndexEntry | None]:
    """A line and what is to be kept of it."""
    return line, entry_of(line)


def _count(spans: dict[_Key, _Span], key: _Key, event: int) -> None:
    span = spans.setdefault(key, [0, event, event])
    span[0] += 1
    span[1] = min(span[1], event)
    span[2] = max(span[2], event)


def _tally(batch: _Batch, combination: _Combination, second: int) -> None:
    decision = combination.decision
    for width in ALL_WIDTHS:
        batch.tallies[width, ALL, 0, second // width, decision] += 1
    for width in TALLY_WIDTHS:
        start = second // width
        for facet, value in combination.tallied:
            batch.tallies[width, facet, value, start, decision] += 1
    for width in SHARE_WIDTHS:
        batch.shares[width, combination.number, second // width] += 1
