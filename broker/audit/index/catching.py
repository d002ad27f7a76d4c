"""Catching up: what was added to the chains since, into the index, by time."""

import heapq
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from broker.audit.chain import MAX_LINE_BYTES, line_hash
from broker.audit.follow import Follower, Line, Position
from broker.audit.index.entries import IndexEntry
from broker.audit.index.filling import Filler, read_entry, read_positions
from broker.audit.index.location import sole_writer
from broker.audit.index.store import IndexDamaged, IndexFile
from broker.audit.segments import find_segments, regular, segment_name

Progress = Callable[[int, int], None]
"""Is told after each step how many bytes of the segments are known to the index, and how many there are."""

_BATCH: Final = 20_000
_BATCH_BYTES: Final = 32 * 1024 * 1024
_AT_ONCE: Final = 2.0
_BLOCK: Final = 4_096

_Item = tuple[Line, IndexEntry | None]


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """
    How many records were entered, and what is wrong with chains, by the names of their writers.

    ``rebuilt`` tells why the index was thrown away before, if it was.
    """

    records: int
    faults: Mapping[str, str]
    rebuilt: str = ""


def catch_up(
    file: IndexFile,
    directory: Path,
    *,
    progress: Progress | None = None,
    patience: float = 60.0,
    is_ending: Callable[[], bool] = lambda: False,
) -> CaughtUp:
    """
    Enter all that was added to the chains of a directory, a bounded number of records at a time.

    Whatever ends it in the middle, the index is as if that had been the end of the chains. Waits for at
    most ``patience`` seconds for others who catch up, and ends early once ``is_ending``. A chain that cannot
    be read is a fault of that chain. Raises ``OSError``.
    """
    work = _Work(file, directory, progress, is_ending)
    with sole_writer(file.path, patience=patience):
        try:
            rebuilt = file.prepare()
            return replace(_fill(work), rebuilt=rebuilt)
        except IndexDamaged as damaged:
            rebuilt = damaged.strerror or "it is damaged"
        except IndexAhead as ahead:
            rebuilt = str(ahead)
        file.throw_away(rebuilt)
        return replace(_fill(work), rebuilt=rebuilt)


@dataclass(frozen=True, slots=True)
class _Work:
    file: IndexFile
    directory: Path
    progress: Progress | None
    is_ending: Callable[[], bool]


class IndexAhead(Exception):
    """The index knows a record that the files do not have."""


def _fill(work: _Work) -> CaughtUp:
    with work.file.writing() as connection:
        positions = read_positions(connection)
        unreadable = check_known(work.directory, positions)
        follower = Follower(work.directory, positions)
        follower.faults |= work.file.faults.known()
        lines = _by_time(follower, unreadable)
        filler = Filler(connection)
        records = 0
        while batch := _next(lines):
            connection.execute("BEGIN IMMEDIATE")
            filler.enter(batch)
            connection.execute("COMMIT")
            records += len(batch)
            if work.progress is not None:
                work.progress(*_extent(work.directory, read_positions(connection)))
            if work.is_ending():
                return CaughtUp(records, faults_of(follower) | unreadable)
        connection.execute("UPDATE meta SET value = 1 WHERE name = 'is_whole' AND value = 0")
        work.file.faults.keep(follower.faults)
        faults = faults_of(follower) | unreadable
        _keep_faults(connection, faults)
        return CaughtUp(records, faults)


def check_known(directory: Path, positions: Mapping[str, Position]) -> dict[str, str]:
    """
    Raises ``IndexAhead`` unless the last known line of every chain stands where it stood.

    Returns by their writers which chains cannot be read, and why.
    """
    unreadable = {}
    for writer, position in positions.items():
        path = directory / segment_name(writer, position.number)
        try:
            last = _line_before(path, position.offset)
        except OSError as failure:
            unreadable[writer] = _why(failure)
            continue
        if last != position.head.prev:
            number = position.head.seq - 1
            raise IndexAhead(f"it knows record {number} of {writer}, and the files do not")
    return unreadable


def faults_of(follower: Follower) -> dict[str, str]:
    """What is wrong with the chains, in sentences."""
    faults = {writer: str(fault) for writer, fault in follower.faults.items()}
    for writer, told in follower.short.items():
        sentence = (
            f"the chain ends before record {told.seq - 1}, which its writer told to be on disk"
        )
        faults.setdefault(writer, sentence)
    return faults


def _line_before(path: Path, end: int) -> str:
    """The hash of the line that ends at this offset, or nothing."""
    size = _BLOCK
    try:
        with open(path, "rb", opener=regular) as file:
            while True:
                start = max(end - size, 0)
                data = os.pread(file.fileno(), end - start, start)
                first = data.rfind(b"\n", 0, -1) + 1
                if first or start == 0 or size > MAX_LINE_BYTES:
                    break
                size *= 8
    except FileNotFoundError:
        return ""
    whole = len(data) == end - start and data.endswith(b"\n")
    return line_hash(data[first:-1]) if whole else ""


def _by_time(follower: Follower, unreadable: dict[str, str]) -> Iterator[_Item]:
    writers = [writer for writer in follower.writers() if writer not in unreadable]
    chains = [_readable(follower, writer, unreadable) for writer in writers]
    return heapq.merge(*chains, key=_moment)


def _readable(follower: Follower, writer: str, unreadable: dict[str, str]) -> Iterator[_Item]:
    """What can be read of a chain; what is wrong with the files of one keeps no other out of the index."""
    try:
        yield from map(read_entry, follower.lines(writer))
    except OSError as failure:
        unreadable[writer] = _why(failure)


def _why(failure: OSError) -> str:
    return f"the chain cannot be read: {failure.strerror}"


def _moment(item: _Item) -> tuple[int, str]:
    line, entry = item
    return (0 if entry is None else entry.moment, line.writer)


def _next(lines: Iterator[_Item]) -> list[_Item]:
    """As many as are entered in one transaction: it is short, so that others can write too."""
    until = time.monotonic() + _AT_ONCE
    batch: list[_Item] = []
    size = 0
    for item in lines:
        batch.append(item)
        size += len(item[0].content)
        if len(batch) >= _BATCH or size >= _BATCH_BYTES or time.monotonic() >= until:
            break
    return batch


def _extent(directory: Path, positions: Mapping[str, Position]) -> tuple[int, int]:
    known = total = 0
    for writer, segments in find_segments(directory).items():
        at = positions.get(writer, Position())
        for number, path in segments.items():
            size = path.stat().st_size
            total += size
            known += size if number < at.number else at.offset if number == at.number else 0
    return known, total


def _keep_faults(connection: sqlite3.Connection, faults: Mapping[str, str]) -> None:
    before = dict(connection.execute("SELECT writer, fault FROM chain WHERE fault <> ''"))
    if before == faults:
        return
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE chain SET fault = ''")
    connection.executemany(
        "INSERT INTO chain (writer, number, offset, seq, prev, fault) VALUES (?, 0, 0, 0, '', ?)"
        " ON CONFLICT (writer) DO UPDATE SET fault = excluded.fault",
        faults.items(),
    )
    connection.execute("COMMIT")
