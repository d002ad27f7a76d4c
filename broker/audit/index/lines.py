"""Lines read back from where the index knows them, and compared with what it knows."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from broker.audit.chain import MAX_LINE_BYTES, NOT_A_LINK, line_hash
from broker.audit.index.filling import HASH_BYTES
from broker.audit.query import Found, RecordChanged
from broker.audit.record import RECORD_DECODER
from broker.audit.segments import segment_name


@dataclass(frozen=True, slots=True)
class Spot:
    """Where the index knows a line to be, the first half of its hash, and how to go on from it."""

    writer: str
    segment: int
    offset: int
    hash: bytes
    cursor: str


def read_found(directory: Path, spots: Iterable[Spot]) -> Iterator[Found | RecordChanged]:
    """
    The records at these places, or what is wrong with them; each file is opened once.

    Raises ``OSError`` for a file that is there and cannot be read.
    """
    with ExitStack() as stack:
        files: dict[str, BinaryIO | None] = {}
        for spot in spots:
            name = segment_name(spot.writer, spot.segment)
            if name not in files:
                files[name] = _opened(stack, directory / name)
            yield _read(name, files[name], spot)


def _opened(stack: ExitStack, path: Path) -> BinaryIO | None:
    try:
        return stack.enter_context(path.open("rb"))
    except FileNotFoundError:
        return None


def _read(name: str, file: BinaryIO | None, spot: Spot) -> Found | RecordChanged:
    if file is None:
        return RecordChanged(name, spot.offset, "the file is gone")
    file.seek(spot.offset)
    line = file.readline(MAX_LINE_BYTES)
    if not line.endswith(b"\n"):
        return RecordChanged(name, spot.offset, "the file ends before the record does")
    content = line[:-1]
    if bytes.fromhex(line_hash(content)[: 2 * HASH_BYTES]) != spot.hash:
        return RecordChanged(name, spot.offset, "the record was changed after it was indexed")
    try:
        record = RECORD_DECODER.decode(content)
    except NOT_A_LINK:
        return RecordChanged(name, spot.offset, "the record is of a version that is not known here")
    return Found(record, content, name, spot.offset, spot.cursor)


def sound(results: Iterable[Found | RecordChanged]) -> tuple[Sequence[Found], Sequence[str]]:
    """The records, and sentences about what is wrong with others."""
    found, wrong = [], []
    for one in results:
        if isinstance(one, RecordChanged):
            wrong.append(str(one))
        else:
            found.append(one)
    return found, wrong
