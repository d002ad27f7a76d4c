"""Checkpoints on disk: one signed note a line, in files that only grow."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from broker.audit.chain import GENESIS
from broker.audit.checkpoints import Checkpoint, CheckpointRefused
from broker.audit.notes import LARGEST_NOTE
from broker.audit.seal.lines import append_line, end_of_whole, first_line
from broker.audit.segments import AuditLogRefused, prepare_directory, regular

FOLDER: Final = "checkpoints"
"""Where they are, in the directory of the record."""

FILE_BYTES: Final = 64 * 1024 * 1024
"""The size from which on the next checkpoint begins a new file."""

LONGEST_LINE: Final = 2 * LARGEST_NOTE
"""No line is longer, in bytes and its end included."""

_NAME: Final = re.compile(r"([0-9]{6}|[1-9][0-9]{6,})\.jsonl", re.ASCII)


class CheckpointsDamaged(AuditLogRefused):
    """A file of checkpoints holds what nobody wrote like that; the sentence names the line."""


class _Line(Struct, forbid_unknown_fields=True):
    """A line of a file of checkpoints."""

    note: str


@dataclass(frozen=True, slots=True, order=True)
class Spot:
    """A place between two checkpoints: the number of a file, and the bytes of it before the place."""

    number: int = 1
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """
    A checkpoint as it is kept: the note, what it says, and where it ends.

    The signatures of the note were not looked at.
    """

    note: str
    checkpoint: Checkpoint
    end: Spot


class CheckpointStore:
    """
    The checkpoints of a record, in ``checkpoints/000001.jsonl`` and so on.

    Each line is an object with one member, ``note``, in compact JSON and UTF-8: a signed note (C2SP
    signed-note) whose text is a ``Checkpoint``. A file that has ``FILE_BYTES`` or more is followed by a
    new one. The first checkpoint of all has ``GENESIS`` for its ``previous``, and every other one the digest
    of the one before it, in another file as well. Readers pass over a last line without an end. Everything
    that reads raises ``CheckpointsDamaged`` for whatever else does not fit, and ``OSError``. One process
    writes, which is for its caller to see to.
    """

    def __init__(self, directory: Path, *, file_bytes: int = FILE_BYTES) -> None:
        self.directory = directory / FOLDER
        self._file_bytes = file_bytes

    def files(self) -> dict[int, Path]:
        """The files by their numbers, in order."""
        try:
            names = sorted(path.name for path in self.directory.iterdir())
        except FileNotFoundError:
            return {}
        found = {int(match[1]): match[0] for match in map(_NAME.fullmatch, names) if match}
        return {number: self.directory / found[number] for number in sorted(found)}

    def all(self, *, since: Spot | None = None) -> Iterator[Kept]:
        """The checkpoints in the order in which they were written, from a place on."""
        spot, files = since or Spot(), self.files()
        if files and list(files) != list(range(1, len(files) + 1)):
            raise CheckpointsDamaged(f"{self.directory}: a file is missing: {_missing(files)}")
        before: Checkpoint | None = None
        for number, path in files.items():
            if number < spot.number:
                continue
            offset = spot.offset if number == spot.number else 0
            for kept in _read(path, number, offset, is_newest=number == len(files)):
                _check_follows(kept, before, path, is_first=since is None)
                before = kept.checkpoint
                yield kept

    def last(self) -> Kept | None:
        """The newest checkpoint, read without those before it."""
        for number, path in reversed(self.files().items()):
            last = self._last_of(path, number)
            if last is not None:
                return last
        return None

    def _last_of(self, path: Path, number: int) -> Kept | None:
        start = _last_start(path, path.stat().st_size)
        return None if start is None else next(_read(path, number, start, is_newest=True), None)

    def first(
        self, is_there: Callable[[Checkpoint], bool]
    ) -> tuple[Checkpoint | None, Kept] | None:
        """
        The first checkpoint of which something is so that is so of all later ones, and the one before it.

        Reads few of them, however many there are.
        """
        before: Checkpoint | None = None
        for number, path in self.files().items():
            last = self._last_of(path, number)
            if last is None or not is_there(last.checkpoint):
                before = before if last is None else last.checkpoint
                continue
            with open(path, "rb", opener=regular) as file:
                start, line = first_line(
                    file, last.end.offset, lambda one: is_there(_whole(one).checkpoint)
                )
            earlier = next(_read_before(path, number, start), None)
            kept = _kept(line, number, start + len(line))
            if kept is not None:
                return (earlier.checkpoint if earlier else before), kept
        return None

    def holds(self, note: str) -> bool:
        """Whether this very note is among the checkpoints."""
        line = _line_of(note)
        for path in reversed(self.files().values()):
            if path.stat().st_size == 0:
                continue
            with (
                open(path, "rb", opener=regular) as file,
                mmap(file.fileno(), 0, access=ACCESS_READ) as content,
            ):
                found = content.rfind(line)
                if found == 0 or (found > 0 and content[found - 1 : found] == b"\n"):
                    return True
        return False

    def append(self, note: str, checkpoint: Checkpoint) -> Kept:
        """
        Have a note on disk after all others.

        What a crash has left of a line is cut off before. Raises ``OSError`` when it could not be kept: then
        it is not there, or what is left of it has no end, unless the disk would not even tell that.
        """
        prepare_directory(self.directory)
        number = self._number()
        path = self.directory / f"{number:06d}.jsonl"
        data = _line_of(note)
        if len(data) > LONGEST_LINE:
            raise AuditLogRefused("the checkpoint is too large to be kept: too many chains")
        return Kept(note, checkpoint, Spot(number, append_line(path, data)))

    def _number(self) -> int:
        """The number of the file that the next checkpoint is for."""
        files = self.files()
        number = max(files, default=1)
        # A torn line does not count: it is cut off where the next one goes.
        last = self._last_of(files[number], number) if files else None
        is_full = last is not None and last.end.offset >= self._file_bytes
        return number + 1 if is_full else number


def _line_of(note: str) -> bytes:
    return msgspec.json.encode(_Line(note)) + b"\n"


def text_of(note: str) -> str:
    """The text of a note, whoever has signed it."""
    return note.rpartition("\n\n")[0] + "\n"


def _read(path: Path, number: int, offset: int, *, is_newest: bool) -> Iterator[Kept]:
    with open(path, "rb", opener=regular) as file:
        file.seek(offset)
        while line := file.readline(LONGEST_LINE):
            is_ended = line.endswith(b"\n") and b"\0" not in line
            if not is_ended and len(line) < LONGEST_LINE and is_newest and not file.peek(1):
                return
            kept = _kept(line, number, offset + len(line))
            if kept is None:
                raise CheckpointsDamaged(f"{path}: no checkpoint begins at byte {offset}")
            offset += len(line)
            yield kept


def _kept(line: bytes, number: int, end: int) -> Kept | None:
    """The checkpoint in a line, which can be written in one way alone."""
    try:
        found = msgspec.json.decode(line, type=_Line)
        checkpoint = Checkpoint.read(text_of(found.note))
    except (ValueError, CheckpointRefused):
        return None
    if _line_of(found.note) != line:
        return None
    return Kept(found.note, checkpoint, Spot(number, end))


def _check_follows(kept: Kept, before: Checkpoint | None, path: Path, *, is_first: bool) -> None:
    if before is None and not is_first:
        return
    expected = GENESIS if before is None else before.digest
    if kept.checkpoint.previous != expected:
        raise CheckpointsDamaged(
            f"{path}: the checkpoint that ends at byte {kept.end.offset} does not follow the one before"
        )


def _missing(files: dict[int, Path]) -> str:
    number = next(one for one in range(1, len(files) + 1) if one not in files)
    return f"{number:06d}.jsonl"


def _last_start(path: Path, size: int) -> int | None:
    """Where the last whole line in so many bytes of a file begins; ``None`` when there is none."""
    with open(path, "rb", opener=regular) as file:
        start = max(size - 2 * LONGEST_LINE, 0)
        data = os.pread(file.fileno(), size - start, start)
    end = end_of_whole(data) - 1
    if end < 0:
        if start:
            raise CheckpointsDamaged(f"{path}: it ends with what is no checkpoint")
        return None
    return start + data.rfind(b"\n", 0, end) + 1


def _read_before(path: Path, number: int, offset: int) -> Iterator[Kept]:
    """The checkpoint that ends at a byte of a file, if one does."""
    start = _last_start(path, offset) if offset else None
    if start is not None:
        yield from islice(_read(path, number, start, is_newest=True), 1)


def _whole(line: bytes) -> Kept:
    kept = _kept(line, 1, 0)
    if kept is None:
        raise CheckpointsDamaged("a line among the checkpoints is none")
    return kept
