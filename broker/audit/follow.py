"""Following chains while they are written: every durable line once, checked as it is passed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from broker.audit.chain import MAX_LINE_BYTES, Head, decode_link, line_hash
from broker.audit.diagnosis import Fault, Misfit, Place, Wrong, diagnose
from broker.audit.durable import read_head
from broker.audit.segments import find_segments, newlines, regular


@dataclass(frozen=True, slots=True)
class Position:
    """How far a chain was followed: the segment, the bytes of it, and where the chain goes on after them."""

    number: int = 0
    offset: int = 0
    head: Head = field(default_factory=Head)


@dataclass(frozen=True, slots=True)
class Line:
    """
    A line of a chain without its newline, and where it stands: byte ``offset`` of segment ``number``.

    ``hash`` is that of the line, in hex, as the next line remembers it.
    """

    writer: str
    seq: int
    number: int
    offset: int
    content: bytes
    hash: str


class Follower:
    """
    Reads what was added to the chains of a directory, from where it was last.

    Only lines are given that fit, and that their writer has told to be durable; where no writer has told
    anything, as in a copy, that is every whole line. A chain whose next line does not fit is followed no
    further, and is in ``faults`` by the name of its writer. One that ends before what its writer has told
    is in ``short``: something was cut off, or this is a copy whose files were not copied at one moment.
    For one thread.
    """

    def __init__(self, directory: Path, positions: Mapping[str, Position] | None = None) -> None:
        self.positions: dict[str, Position] = dict(positions or {})
        self.faults: dict[str, Fault] = {}
        self.short: dict[str, Head] = {}
        self._directory = directory

    def writers(self) -> list[str]:
        """Who has a chain here or had one, in the order of their names. Raises ``OSError``."""
        return sorted({*find_segments(self._directory), *self.positions})

    def lines(self, writer: str) -> Iterator[Line]:
        """
        What is new in a chain; each line counts as read when it is given.

        Raises ``OSError`` when the files cannot be read.
        """
        if writer in self.faults:
            return
        told = read_head(self._directory, writer)
        position = self.positions.get(writer, Position())
        self.short.pop(writer, None)
        if told is not None and told.seq <= position.head.seq:
            return
        every = find_segments(self._directory).get(writer, {})
        segments = {number: path for number, path in every.items() if number >= position.number}
        if position.number and position.number not in segments:
            self.faults[writer] = _gone(self._directory, writer, position)
            return
        for number, path in segments.items():
            later = [there for other, there in segments.items() if other > number]
            yield from self._segment(writer, number, path, later, told)
            if writer in self.faults:
                return
        if told is not None and self.positions.get(writer, Position()).head.seq < told.seq:
            self.short[writer] = told

    def _segment(
        self, writer: str, number: int, path: Path, later: Sequence[Path], told: Head | None
    ) -> Iterator[Line]:
        position = self.positions.get(writer, Position())
        offset = position.offset if number == position.number else 0
        head = position.head
        torn_bytes = _torn_before(later)
        end = path.stat().st_size - (torn_bytes or 0)
        with open(path, "rb", opener=regular) as file:
            file.seek(offset)
            while offset < end and (told is None or head.seq < told.seq):
                whole = file.readline(min(MAX_LINE_BYTES, end - offset))
                content = whole[:-1]
                link = decode_link(content) if whole.endswith(b"\n") else None
                if link is None and torn_bytes is None and not whole.endswith(b"\n"):
                    # The end of the newest segment: its writer is at work, or was cut off.
                    return
                if link is None or (link.writer, link.seq, link.prev) != (writer, *_place(head)):
                    place = Place(path, _line_number(path, offset))
                    before = Place(path, place.line - 1) if place.line > 1 else None
                    rest = iter(file.readline, b"")
                    self.faults[writer] = diagnose(Misfit(place, whole, writer, head, before, rest))
                    return
                line = Line(writer, head.seq, number, offset, content, line_hash(content))
                offset += len(whole)
                head = Head(head.seq + 1, line.hash)
                self.positions[writer] = Position(number, offset, head)
                yield line


def _place(head: Head) -> tuple[int, str]:
    return head.seq, head.prev


def _torn_before(later: Sequence[Path]) -> int | None:
    """How much of a segment the next one disowns; ``None`` when there is no next one that has begun."""
    for path in later:
        with open(path, "rb", opener=regular) as file:
            opening = decode_link(file.readline(MAX_LINE_BYTES)[:-1])
        if opening is not None:
            return max(opening.torn_bytes, 0)
    return None


def _line_number(path: Path, offset: int) -> int:
    with open(path, "rb", opener=regular) as file:
        return newlines(file, 0, offset) + 1


def _gone(directory: Path, writer: str, position: Position) -> Fault:
    place = Place(directory / f"{writer}.{position.number:06d}.jsonl", 1)
    return Fault(place, Wrong.MISSING, "the segment was read before and is gone")
