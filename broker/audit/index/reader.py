"""Answers about the audit record, from the index and the files."""

import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from broker.audit.index.catching import CaughtUp, Progress, catch_up
from broker.audit.index.counting import count_by_time
from broker.audit.index.descent import Descent
from broker.audit.index.entries import issued_token, presented_tokens
from broker.audit.index.filling import key_of
from broker.audit.index.lines import Spot, is_as_indexed, read_found
from broker.audit.index.location import index_path
from broker.audit.index.parties import party_of
from broker.audit.index.questions import (
    Conditions,
    Pseudonyms,
    conditions,
    find_events,
    moment_of,
    numbers,
)
from broker.audit.index.schema import ISSUED, LAST_EVENT, PRESENTED
from broker.audit.index.store import IndexFile
from broker.audit.query import (
    CURSOR,
    MOST_ROWS,
    PARTY_KINDS,
    Bucket,
    Extent,
    Found,
    Lineage,
    Page,
    Party,
    Query,
    QueryRefused,
    RecordChanged,
)

DEFAULT_LIMIT: Final = 2.0
"""In seconds: no question takes longer."""

_MOST_CHANGED: Final = 100
_LOOK_AGAIN: Final = 5.0
"""In seconds: no more often is looked whether what was met is still as it was."""
_LAST: Final = "SELECT coalesce(max(id), 0) FROM event"
_SPOTS: Final = """
    SELECT place.event, chain.writer, place.segment, place.offset, place.hash, place.number
    FROM event CROSS JOIN place ON place.number = event.place
    CROSS JOIN chain ON chain.id = place.chain WHERE event.id IN ({})
"""
_NEWER: Final = """
    SELECT e.id FROM place AS p CROSS JOIN event AS e ON e.id = p.event
    CROSS JOIN combination AS c ON c.id = e.combination
    WHERE p.number > ? AND p.event > 0 {} AND {} ORDER BY p.number LIMIT ?
"""
_ONE_OF_TOKENS: Final = " AND e.id IN (SELECT event FROM token WHERE key IN ({}))"
_DERIVED: Final = """
    SELECT t.event FROM token AS t CROSS JOIN event AS e ON e.id = t.event
    CROSS JOIN combination AS c ON c.id = e.combination
    WHERE t.key = ? AND t.relation & ?
    AND c.event = (SELECT id FROM text WHERE value = 'token.issue')
    AND c.decision = (SELECT id FROM text WHERE value = 'permit') ORDER BY t.event LIMIT ?
"""
_NEWER_IN_TIME: Final = """
    SELECT e.id FROM event AS e CROSS JOIN combination AS c ON c.id = e.combination
    WHERE e.id > ? AND {} AND {} ORDER BY e.id LIMIT ?
"""


def no_pseudonyms(_name: str) -> Sequence[str]:
    """People have the names in the records that they have elsewhere."""
    return ()


@dataclass(frozen=True, slots=True)
class _Index:
    """An index while it is asked: a connection, and what the index is known by."""

    connection: sqlite3.Connection
    generation: str
    salt: bytes


class SqliteAuditReader:
    """
    An ``AuditReader`` over the index of an audit directory.

    It answers from what the index knew at the last ``catch_up``, by whomever; before the first there is
    none, which raises ``OSError``. Every record is read from its file and compared with what the index
    knows of it. ``limit`` is how many seconds a question may take, ``cache`` where the index goes when
    the directory cannot be written, instead of the user's own cache. For all threads of one process.
    """

    def __init__(
        self,
        directory: Path,
        *,
        pseudonyms_of: Pseudonyms = no_pseudonyms,
        cache: Path | None = None,
        limit: float = DEFAULT_LIMIT,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.directory = directory
        self._pseudonyms_of = pseudonyms_of
        self._cache = cache
        self._limit = limit
        self._opened: IndexFile | None = None
        self._monotonic = monotonic
        self._changed: dict[tuple[str, int], tuple[Spot, RecordChanged]] = {}
        self._looked_at = -math.inf
        self._lock = threading.Lock()
        self._ending = threading.Event()

    @property
    def _file(self) -> IndexFile:
        with self._lock:
            if self._opened is None:
                # Only now, since the writers make the directory when they begin.
                path = index_path(self.directory, cache=self._cache)
                self._opened = IndexFile(path, self.directory, limit=self._limit)
            return self._opened

    @property
    def path(self) -> Path:
        """The file of the index."""
        return self._file.path

    def catch_up(self, *, progress: Progress | None = None, patience: float = 60.0) -> CaughtUp:
        """
        Let the index know all that is durable by now; a damaged or foreign one is made anew.

        Waits for at most ``patience`` seconds for others who do so, then raises ``Busy``, an ``OSError``.
        """
        return catch_up(
            self._file,
            self.directory,
            progress=progress,
            patience=patience,
            is_ending=self._ending.is_set,
        )

    def ask_to_end(self) -> None:
        """Have ``catch_up`` end after the records that it is at; another goes on from there."""
        self._ending.set()

    def throw_away(self, *, patience: float = 60.0) -> None:
        """Forget the index, so that the next ``catch_up`` makes it anew from the files alone."""
        self._file.forget("asked to", patience=patience)

    def close(self) -> None:
        """Close the files that are open."""
        if self._opened is not None:
            self._opened.close()

    def find(self, query: Query, *, limit: int = 50, cursor: str = "") -> Page:
        most = _bounded(limit)
        names = self._names_of(query.names)
        with self._asking() as index:
            asked = _conditions(index, query, names)
            if cursor:
                generation, event, _ = _parsed(cursor)
                if generation != index.generation:
                    raise QueryRefused("cursor: the index was made anew since; begin again")
                asked.high = min(asked.high, event)
            events = find_events(index.connection, asked, limit=most + 1)
            spots = _spots(index, events)
        found, changed = self._read(spots[:most])
        more = spots[most - 1].cursor if len(spots) > most else ""
        return Page(found, more, changed)

    def newer(self, query: Query, *, than: str, limit: int = 50) -> Sequence[Found]:
        most = _bounded(limit)
        names = self._names_of(query.names)
        while True:
            with self._asking() as index:
                asked = _conditions(index, query, names)
                events = [] if asked.is_empty else _newer(index, asked, than=than, limit=most)
                spots = _spots(index, events)
            found = self._read(spots)[0]
            if found or not spots:
                return found
            than = spots[-1].cursor

    def latest(self) -> str:
        with self._asking() as index:
            question = "SELECT event, number FROM place ORDER BY number DESC LIMIT 1"
            event, number = index.connection.execute(question).fetchone() or (0, 0)
            if number and not event:
                # A line of another version: after an index made anew, all would come again.
                (event,) = index.connection.execute(_LAST).fetchone()
        return _cursor(index.generation, event, number)

    def get(self, event_id: str) -> Found | None:
        with self._asking() as index:
            question = "SELECT event FROM named WHERE key = ? ORDER BY event DESC LIMIT 4"
            spots = _spots(index, _ids(index, question, key_of(index.salt, event_id)))
        return self._one(spots, lambda found: found.record.event_id == event_id)

    def of_token(self, jti: str) -> Found | None:
        with self._asking() as index:
            question = (
                "SELECT event FROM token WHERE key = ? AND relation & ? ORDER BY event LIMIT 4"
            )
            spots = _spots(index, _ids(index, question, key_of(index.salt, jti), ISSUED))
        return self._one(spots, lambda found: issued_token(found.record) == jti)

    def presented(self, jti: str, *, limit: int = 50) -> Sequence[Found]:
        """The first records in which a token was presented to get something for it."""
        most = _bounded(limit)
        with self._asking() as index:
            question = (
                "SELECT event FROM token WHERE key = ? AND relation & ? ORDER BY event LIMIT ?"
            )
            key = key_of(index.salt, jti)
            spots = _spots(index, _ids(index, question, key, PRESENTED, most))
        found, _ = self._read(spots)
        return [one for one in found if jti in presented_tokens(one.record)]

    def derived(self, jti: str, *, limit: int = 50) -> Sequence[Found]:
        """The first records in which something was issued for a token, whatever else was refused for it."""
        most = _bounded(limit)
        with self._asking() as index:
            spots = _spots(index, _ids(index, _DERIVED, key_of(index.salt, jti), PRESENTED, most))
        found, _ = self._read(spots)
        return [
            one for one in found if jti in presented_tokens(one.record) and issued_token(one.record)
        ]

    def withdrawal(self, jti: str) -> Found | None:
        """The record in which a token itself was withdrawn, the newest if there are several."""
        asked = Query(tokens=(jti,), events=("token.revoke",), decisions=("permit",))
        return next(iter(self.find(asked, limit=1).found), None)

    def lineage(self, jti: str) -> Lineage:
        return Descent(self).lineage(jti)

    def parents(self, found: Found) -> Sequence[Found]:
        tokens = dict.fromkeys(presented_tokens(found.record))
        return [one for one in map(self.of_token, tokens) if one is not None]

    def children(self, found: Found, *, limit: int = 50) -> Sequence[Found]:
        jti = issued_token(found.record)
        return self.presented(jti, limit=limit) if jti else []

    def buckets(self, query: Query, *, width: timedelta) -> Sequence[Bucket]:
        names = self._names_of(query.names)
        with self._asking() as index:
            asked = _conditions(index, query, names)
            return count_by_time(index.connection, asked, width=width)

    def party(self, kind: str, name: str) -> Party | None:
        if kind not in PARTY_KINDS:
            raise QueryRefused(f"kind: not one of {', '.join(PARTY_KINDS)}")
        names = self._names_of([name] if kind == "person" else [])
        with self._asking() as index:
            return party_of(index.connection, kind, name, pseudonyms_of=names)

    def extent(self) -> Extent:
        with self._asking() as index:
            ask = index.connection.execute
            chains = dict(ask("SELECT writer, seq FROM chain"))
            (last,) = ask(_LAST).fetchone()
            faults = dict(ask("SELECT writer, fault FROM chain WHERE fault <> ''"))
            (unreadable,) = ask("SELECT value FROM meta WHERE name = 'unreadable'").fetchone()
            (is_whole,) = ask("SELECT value FROM meta WHERE name = 'is_whole'").fetchone()
        if not is_whole:
            faults["index"] = "the index is being made anew and does not know all records yet"
        elif unreadable:
            faults["index"] = f"{unreadable} records are of a version that is not known here"
        faults |= {one.place: str(one) for one in self._still_changed()}
        return Extent(sum(chains.values()), moment_of(last), faults, chains)

    def changed(self) -> Mapping[str, str]:
        """
        What questions have met that is not as it was indexed, by its place; bounded, the first of all.

        What was put back as it was is forgotten within seconds.
        """
        return {one.place: one.sentence for one in self._still_changed()}

    def _still_changed(self) -> Sequence[RecordChanged]:
        with self._lock:
            now = self._monotonic()
            is_due = now >= self._looked_at + _LOOK_AGAIN
            if is_due:
                self._looked_at = now
            seen = dict(self._changed) if is_due else {}
        # The files are read without the lock, since questions wait for it.
        mended = [key for key, (spot, _) in seen.items() if is_as_indexed(self.directory, spot)]
        with self._lock:
            for key in mended:
                self._changed.pop(key, None)
            return [one for _, one in self._changed.values()]

    @contextmanager
    def _asking(self) -> Iterator[_Index]:
        with self._file.asking() as connection:
            meta = dict(
                connection.execute(
                    "SELECT name, value FROM meta WHERE name IN ('generation', 'salt')"
                )
            )
            yield _Index(connection, meta["generation"], meta["salt"])

    def _names_of(self, people: Sequence[str]) -> Pseudonyms:
        """The pseudonyms of these people, had before the index is opened: their keys may be far away."""
        found = {person: self._pseudonyms_of(person) for person in people}
        return found.__getitem__

    def _read(self, spots: Sequence[Spot]) -> tuple[list[Found], list[str]]:
        found, changed = [], []
        for spot, one in zip(spots, read_found(self.directory, spots), strict=True):
            if isinstance(one, RecordChanged):
                changed.append(str(one))
                self._remember(spot, one)
            else:
                found.append(one)
        return found, changed

    def _remember(self, spot: Spot, changed: RecordChanged) -> None:
        with self._lock:
            if len(self._changed) < _MOST_CHANGED:
                # The first word about a place stands, so that it is told once.
                self._changed.setdefault((changed.file, changed.offset), (spot, changed))

    def _one(self, spots: Sequence[Spot], is_wanted: Callable[[Found], bool]) -> Found | None:
        """The first of the records that is wanted; raises ``RecordChanged`` when it cannot be told."""
        changed = None
        for spot, one in zip(spots, read_found(self.directory, spots), strict=True):
            if isinstance(one, RecordChanged):
                changed = one
                self._remember(spot, one)
            elif is_wanted(one):
                return one
        if changed is not None:
            raise changed
        return None


def _conditions(index: _Index, query: Query, names: Pseudonyms) -> Conditions:
    return conditions(index.connection, query, salt=index.salt, pseudonyms_of=names)


def _newer(index: _Index, asked: Conditions, *, than: str, limit: int) -> list[int]:
    generation, event, number = _parsed(than)
    bounds = f"AND e.id >= {asked.low} AND e.id < {asked.high}"
    where = asked.with_subject
    if asked.tokens is not None:
        where += _ONE_OF_TOKENS.format(numbers(asked.tokens))
    if generation == index.generation:
        return _ids(index, _NEWER.format(bounds, where), number, limit)
    # The index was made anew meanwhile: what came when is known no more, but what is of when is.
    return _ids(index, _NEWER_IN_TIME.format(bounds.removeprefix("AND "), where), event, limit)


def _ids(index: _Index, question: str, *values: int) -> list[int]:
    return [event for (event,) in index.connection.execute(question, values)]


def _spots(index: _Index, events: Sequence[int]) -> list[Spot]:
    """Where the events stand, in the same order."""
    rows = index.connection.execute(_SPOTS.format(numbers(events)))
    spots = {
        event: Spot(writer, segment, offset, digest, _cursor(index.generation, event, number))
        for event, writer, segment, offset, digest, number in rows
    }
    return [spots[event] for event in events if event in spots]


def _bounded(limit: int) -> int:
    if not 1 <= limit <= MOST_ROWS:
        raise QueryRefused(f"limit: not from 1 to {MOST_ROWS}")
    return limit


def _cursor(generation: str, event: int, number: int) -> str:
    return f"{generation}-{event:x}-{number:x}"


def _parsed(cursor: str) -> tuple[str, int, int]:
    told = CURSOR.fullmatch(cursor)
    if told is None or int(told[2], 16) > LAST_EVENT:
        raise QueryRefused("cursor: it was not given by an answer")
    return told[1], int(told[2], 16), int(told[3], 16)
