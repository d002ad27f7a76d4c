"""A copy that somebody else kept, read as a stream: one line at a time, whatever stands in it."""

import csv
import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from msgspec import Struct

from broker.audit.chain import LEAF, MAX_LINE_BYTES, NOT_A_LINK
from broker.audit.hashing import HASH_BYTES
from broker.audit.log_id import LOG_ID
from broker.audit.segments import WRITER
from broker.audit.telling.ocsf import PRODUCT

LONGEST_LINE: Final = 16 * MAX_LINE_BYTES
"""In bytes: a record, what formats repeat of it, and what a log of somebody else may have put before it."""

STANDARD_INPUT: Final = "-"
"""What stands for standard input where a file is named."""

_PACKED: Final = b"\x1f\x8b"
"""How a file begins that gzip made."""

_RECORD: Final = b'{"'
_BEGUN: Final = b'"decision":"'
_MARK_OF_TEXT: Final = b"\xef\xbb\xbf"
_LARGEST_NUMBER: Final = 2**63
_IN_CSV: Final = ("writer", "seq", "line_hash")
_CEF: Final = f"CEF:0|{PRODUCT}|{PRODUCT}|".encode()
# An equals sign within a value is escaped, so that nothing in one looks like a member.
_IN_CEF: Final = tuple(
    # To the next blank and no further back, so that no line takes longer than its length.
    re.compile(rb"(?<=[ |])%b=([^ ]*)" % key)
    for key in (b"deviceExternalId", b"cn1", b"flexString2")
)


class CopyPacked(Exception):
    """A copy is compressed, so that no line of it can be read; it is named."""


@dataclass(frozen=True, slots=True)
class Copied:
    """
    One record of a copy: its place in its chain, and the hash of its line.

    ``line`` is the line as it was received, and empty where only its hash was. ``prev`` is what the line
    remembers of the one before it, in hex, and ``log_id`` the log that it names, where it does.
    """

    writer: str
    seq: int
    hash: bytes
    line: bytes = b""
    prev: str = ""
    log_id: str = ""


class NoRecord(StrEnum):
    """Why a line is no record."""

    TOO_LONG = "it is longer than a record can be"
    CUT_OFF = "it begins as a record and does not end as one"
    SOMETHING_ELSE = "it is no record"


class _Told(Struct, gc=False):
    """What is read of a line. What stands for a record that was not taken has a hash of it instead."""

    writer: str
    seq: int
    prev: str = ""
    hash: str = ""
    cut_bytes: int = 0
    log_id: str = ""


class _Metadata(Struct, gc=False):
    """Where a record stands, in an event of OCSF."""

    log_name: str
    sequence: int


class _Unmapped(Struct, gc=False):
    """What OCSF has no place for."""

    line_hash: str


class _Event(Struct, gc=False):
    """What is read of an event of OCSF."""

    metadata: _Metadata
    unmapped: _Unmapped


_DECODER: Final = msgspec.json.Decoder(_Told)
_EVENT_DECODER: Final = msgspec.json.Decoder(_Event)


@dataclass(frozen=True, slots=True)
class Copy:
    """
    A copy that is open to be read once: its name, and its size in bytes as far as that is known.

    No line is read that begins behind the first ``most`` bytes: it came later.

    What surrounds the records does not matter: each stands in a line of its own, from its first brace to
    the end of the line, or is one of our own exports' rows of CSV, events of OCSF or lines of CEF.
    """

    name: Path
    file: BinaryIO
    size: int
    most: int | None = None

    def entries(self) -> Iterator[tuple[int, Copied | NoRecord | None]]:
        """
        How many bytes of each line were kept, and what it is: ``None`` for what nobody misses.

        Raises ``CopyPacked`` and ``OSError``.
        """
        head: bytes | None = None
        columns: Sequence[int] = ()
        for line in _lines(self):
            if line is None:
                yield LONGEST_LINE, NoRecord.TOO_LONG
                continue
            content = line.removeprefix(_MARK_OF_TEXT).rstrip(b"\r\n")
            if head is None and content:
                # Anybody may have written what looks like a head further on, or be named like a column.
                head, columns = content, _csv_columns(content)
            if not content or (columns and content == head):
                yield len(line), None
                continue
            # In a table anybody's text may look like CEF.
            entry = _read_object(content) if columns else read_line(content)
            if columns and not isinstance(entry, Copied):
                entry = _read_row(content, columns)
            yield len(line), entry


@contextmanager
def opened(path: Path) -> Iterator[Copy]:
    """
    A copy, open to be read: a file, a pipe, or standard input for ``-``.

    Raises ``OSError``.
    """
    if str(path) == STANDARD_INPUT:
        yield Copy(path, sys.stdin.buffer, 0)
        return
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        most = found.st_size if stat.S_ISREG(found.st_mode) else None
        yield Copy(path, file, found.st_size, most)


def read_line(content: bytes) -> Copied | NoRecord:
    """The record that a line holds, after whatever its carrier has put before it."""
    start = content.find(_RECORD)
    head = content.find(_CEF, 0, None if start < 0 else start) if start else -1
    # What looks like an object behind that is a value of it.
    return _read_object(content, start) if head < 0 else _read_cef(content[head:])


def _read_object(content: bytes, start: int | None = None) -> Copied | NoRecord:
    """The record that a line ends with as an object: our own line, or an event of OCSF."""
    begin = content.find(_RECORD) if start is None else start
    line = content[begin:] if begin > 0 else content
    try:
        told = _DECODER.decode(line)
    except NOT_A_LINK:
        return _read_event(line)
    if not _is_place(told.writer, told.seq):
        return NoRecord.SOMETHING_ELSE
    if told.cut_bytes and not told.prev:
        hashed = _hash_of(told.hash)
        return Copied(told.writer, told.seq, hashed) if hashed else NoRecord.SOMETHING_ELSE
    if not told.prev:
        return NoRecord.SOMETHING_ELSE
    log_id = told.log_id if LOG_ID.fullmatch(told.log_id) else ""
    return Copied(told.writer, told.seq, sha256(LEAF + line).digest(), line, told.prev, log_id)


def _read_event(line: bytes) -> Copied | NoRecord:
    try:
        told = _EVENT_DECODER.decode(line)
    except NOT_A_LINK:
        return NoRecord.CUT_OFF if _BEGUN in line else NoRecord.SOMETHING_ELSE
    return _by_hash(told.metadata.log_name, told.metadata.sequence, told.unmapped.line_hash)


def _read_cef(line: bytes) -> Copied | NoRecord:
    found = [one.findall(line) for one in _IN_CEF]
    if any(len(values) > 1 for values in found):
        return NoRecord.SOMETHING_ELSE
    if not all(found):
        return NoRecord.CUT_OFF
    writer, number, told = (values[0].decode("utf-8", "replace") for values in found)
    return _by_hash(writer, _number(number), told)


def _lines(copy: Copy) -> Iterator[bytes | None]:
    """The lines with their ends that begin so early, and ``None`` for each that is too long to be kept."""
    file, read = copy.file, 0
    while (copy.most is None or read < copy.most) and (line := file.readline(LONGEST_LINE)):
        if not read and line.startswith(_PACKED):
            raise CopyPacked(copy.name)
        read += len(line)
        is_whole = len(line) < LONGEST_LINE or line.endswith(b"\n")
        while not is_whole:
            rest = file.readline(LONGEST_LINE)
            read += len(rest)
            is_whole, line = not rest or rest.endswith(b"\n"), b""
        yield line or None


def _csv_columns(content: bytes) -> Sequence[int]:
    """Where a row that is the head of our table has what matters; nothing for any other line."""
    if _RECORD in content or b"line_hash" not in content:
        return ()
    cells = _cells(content)
    return [cells.index(name) for name in _IN_CSV] if set(_IN_CSV) <= set(cells) else ()


def _read_row(content: bytes, columns: Sequence[int]) -> Copied | NoRecord:
    cells = _cells(content)
    if len(cells) <= max(columns):
        return NoRecord.SOMETHING_ELSE
    writer, number, told = [cells[column] for column in columns]
    return _by_hash(writer, _number(number), told)


def _by_hash(writer: str, seq: int, told: str) -> Copied | NoRecord:
    """A record of which the copy has its place and its hash alone."""
    hashed = _hash_of(told)
    is_one = hashed and _is_place(writer, seq)
    return Copied(writer, seq, hashed) if is_one else NoRecord.SOMETHING_ELSE


def _number(text: str) -> int:
    """The number that digits say, and -1 for what no record has."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1


def _cells(content: bytes) -> Sequence[str]:
    try:
        return next(csv.reader([content.decode("utf-8", "replace")]), [])
    except csv.Error:
        return []


def _is_place(writer: str, seq: int) -> bool:
    return 0 <= seq < _LARGEST_NUMBER and WRITER.fullmatch(writer) is not None


def _hash_of(text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        return b""
    return found if len(found) == HASH_BYTES and len(text) == 2 * HASH_BYTES else b""
