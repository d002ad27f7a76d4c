"""Lines read back from where the index knows them, and compared with what it knows."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from broker.audit.chain import MAX_LINE_BYTES, NOT_A_LINK, line_hash
from broker.audit.index.filling import HASH_BYTES
from broker.audit.query import Found, RecordChanged
from broker.audit.record import RECORD_DECODER, Record
from broker.audit.segments import newlines, segment_name


@dataclass(frozen=True, slots=True)
class Spot:
    """Where the index knows a line to be, the first half of its hash, and how to go on from it."""

    writer: str
    segment: int
    offset: int
    hash: bytes
    cursor: str


@dataclass(slots=True)
class _Segment:
    """A file that is read, and how many lines begin where: counted only for what is wrong in it."""

    file: BinaryIO
    _offset: int = 0
    _line: int = 1

    def line_at(self, offset: int) -> int:
        """The number of the line that begins at an offset, counted on from the last that was asked for."""
        if offset < self._offset:
            self._line -= newlines(self.file, offset, self._offset)
        else:
            self._line += newlines(self.file, self._offset, offset)
        self._offset = offset
        return self._line


def read_found(directory: Path, spots: Iterable[Spot]) -> Iterator[Found | RecordChanged]:
    """
    The records at these places, or what is wrong with them; each file is opened once.

    Raises ``OSError`` for a file that is there and cannot be read.
    """
    with ExitStack() as stack:
        files: dict[str, _Segment | None] = {}
        for spot in spots:
            name = segment_name(spot.writer, spot.segment)
            if name not in files:
                files[name] = _opened(stack, directory / name)
            yield _read(name, files[name], spot)


def is_as_indexed(directory: Path, spot: Spot) -> bool:
    """Whether the record at a place is there again as the index knows it; not where it cannot be read."""
    try:
        with (directory / segment_name(spot.writer, spot.segment)).open("rb") as file:
            return isinstance(_judged(_line(file, spot), spot), Record)
    except OSError:
        return False


def _opened(stack: ExitStack, path: Path) -> _Segment | None:
    try:
        return _Segment(stack.enter_context(path.open("rb")))
    except FileNotFoundError:
        return None


def _read(name: str, segment: _Segment | None, spot: Spot) -> Found | RecordChanged:
    if segment is None:
        return RecordChanged(name, spot.offset, "the file is gone")
    line = _line(segment.file, spot)
    record = _judged(line, spot)
    if isinstance(record, Record):
        return Found(record, line[:-1], name, spot.offset, spot.cursor)
    return RecordChanged(name, spot.offset, record, line=segment.line_at(spot.offset))


def _line(file: BinaryIO, spot: Spot) -> bytes:
    file.seek(spot.offset)
    return file.readline(MAX_LINE_BYTES)


def _judged(line: bytes, spot: Spot) -> Record | str:
    """The record of a line, or what is wrong with it."""
    if not line.endswith(b"\n"):
        return "the file ends before the record does"
    content = line[:-1]
    if bytes.fromhex(line_hash(content)[: 2 * HASH_BYTES]) != spot.hash:
        return "the record was changed after it was indexed"
    try:
        return RECORD_DECODER.decode(content)
    except NOT_A_LINK:
        return "the record is of a version that is not known here"


def sound(results: Iterable[Found | RecordChanged]) -> tuple[Sequence[Found], Sequence[str]]:
    """The records, and sentences about what is wrong with others."""
    found, wrong = [], []
    for one in results:
        if isinstance(one, RecordChanged):
            wrong.append(str(one))
        else:
            found.append(one)
    return found, wrong
