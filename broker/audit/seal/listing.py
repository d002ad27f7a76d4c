"""The list of checkpoints read back by whoever trusts nobody: each signed, each following the one before."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from broker.audit.chain import GENESIS
from broker.audit.checkpoints import Checkpoint, CheckpointRefused
from broker.audit.diagnosis import Fault, Place, Wrong
from broker.audit.notes import LARGEST_NOTE, NoteKey, NoteRefused, open_note, strangers
from broker.audit.segments import regular

LONGEST_LINE: Final = 2 * LARGEST_NOTE

_FOLDER: Final = "checkpoints"
_NAME: Final = re.compile(r"(?:[0-9]{6}|[1-9][0-9]{6,})\.jsonl", re.ASCII)


class ListingBroken(Exception):
    """The list goes on no further; the fault says where and why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class NotedLine(Struct, forbid_unknown_fields=True):
    """A line of the list."""

    note: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A checkpoint that somebody known has signed, the note that it came in, and where that stands."""

    place: Place
    note: str
    checkpoint: Checkpoint


class Listing:
    """
    The checkpoints of a directory as far as they were written when this was made.

    So a record that is read afterwards has everything that they seal, while it is being written to.
    """

    def __init__(self, directory: Path) -> None:
        self._files = [(path, path.stat().st_size) for path in _files(directory / _FOLDER)]
        self.folder = directory / _FOLDER

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to read."""
        return not any(size for _, size in self._files)

    def lines(self) -> Iterator[tuple[Place, bytes]]:
        """
        Every line with its end; one that its writer has not ended yet, at the very end, is left out.

        One that is too long comes in pieces.
        """
        for index, (path, size) in enumerate(self._files):
            is_newest = index == len(self._files) - 1
            left, number = size, 0
            with open(path, "rb", opener=regular) as file:
                while left > 0 and (line := file.readline(min(LONGEST_LINE, left))):
                    left -= len(line)
                    number += 1
                    if left or line.endswith(b"\n") or not is_newest or len(line) == LONGEST_LINE:
                        yield Place(path, number), line

    def checked(self, keys: Sequence[NoteKey]) -> Iterator[Listed]:
        """
        The checkpoints from the first, each held against the one before it.

        Raises ``ListingBroken`` at the first that does not fit, ``OSError``.
        """
        before: Listed | None = None
        for place, line in self.lines():
            listed = _opened(place, line, keys)
            self._check_link(listed, before)
            if before is not None:
                _check_growth(listed, before.checkpoint)
            yield listed
            before = listed

    def _check_link(self, listed: Listed, before: Listed | None) -> None:
        last = None if before is None else before.checkpoint
        if last is not None and listed.checkpoint.origin != last.origin:
            sentence = f"it is a checkpoint of another log, {listed.checkpoint.origin}"
            raise _broken(listed.place, Wrong.FOREIGN, sentence)
        if listed.checkpoint.previous != (GENESIS if last is None else last.digest):
            raise ListingBroken(self._unlinked(listed, last))

    def _unlinked(self, listed: Listed, last: Checkpoint | None) -> Fault:
        """What has become of the checkpoint that this one follows: the others on the list tell."""
        place, found = listed.place, listed.checkpoint
        if last is not None and found.digest == last.digest:
            return Fault(place, Wrong.REPEATED, "the checkpoint stands here again")
        is_passed = False
        for other, line in self.lines():
            is_passed = is_passed or other == place
            checkpoint = _peeked(line)
            if checkpoint is None or other == place:
                continue
            if is_passed and checkpoint.digest == found.previous:
                sentence = "the checkpoint stands before the one that it follows"
                return Fault(place, Wrong.REORDERED, sentence)
            if not is_passed and checkpoint.digest in {found.digest, found.previous}:
                sentence = "the checkpoint does not follow the one before it, but an earlier one"
                return Fault(place, Wrong.REPEATED, sentence)
        sentence = "the checkpoints that came before this one are missing"
        return Fault(place, Wrong.MISSING, sentence)


def moment(checkpoint: Checkpoint) -> float:
    """When a checkpoint says that it was made, in unix seconds."""
    return datetime.fromisoformat(checkpoint.time).timestamp()


def opened_note(note: str, keys: Sequence[NoteKey]) -> Checkpoint:
    """
    The checkpoint in a note that a key of its log has signed, one of ``keys``.

    A signature does not cover the name that it stands under, and one key may sign for several logs: what
    is put under the name of another is no checkpoint of that. Raises ``NoteRefused`` or
    ``CheckpointRefused``.
    """
    checkpoint = Checkpoint.read(open_note(note, keys))
    ours = [key for key in keys if key.name == checkpoint.origin]
    if strangers(note, ours):
        raise NoteRefused(f"it is of another log, {checkpoint.origin}")
    open_note(note, ours)
    return checkpoint


def _opened(place: Place, line: bytes, keys: Sequence[NoteKey]) -> Listed:
    try:
        note = msgspec.json.decode(line, type=NotedLine).note
    except (ValueError, RecursionError):
        note = ""
    # There is one way to write a line, so that nothing about it can be changed unseen.
    if not note or msgspec.json.encode(NotedLine(note)) + b"\n" != line:
        raise _broken(place, Wrong.CHANGED, "the line is no checkpoint")
    try:
        checkpoint = opened_note(note, keys)
    except NoteRefused as refused:
        raise ListingBroken(_refused(place, note, keys, str(refused))) from None
    except CheckpointRefused as refused:
        raise _broken(place, Wrong.CHANGED, f"it is signed and no checkpoint: {refused}") from None
    return Listed(place, note, checkpoint)


def _refused(place: Place, note: str, keys: Sequence[NoteKey], sentence: str) -> Fault:
    others = strangers(note, keys)
    if others:
        told = f"the checkpoint is signed by {', '.join(others)}, and by none of the keys given"
        return Fault(place, Wrong.FOREIGN, told)
    return Fault(
        place, Wrong.CHANGED, f"the checkpoint was changed after it was signed: {sentence}"
    )


def _check_growth(listed: Listed, last: Checkpoint) -> None:
    place, found = listed.place, listed.checkpoint
    if moment(found) < moment(last):
        sentence = f"the checkpoint is of {found.time}, before the one that it follows"
        raise _broken(place, Wrong.REWRITTEN, sentence)
    for writer, head in last.heads.items():
        now = found.heads.get(writer)
        if now is None or now.seq < head.seq:
            kept = 0 if now is None else now.seq
            sentence = f"it seals {kept} records of {writer}, and the one before it {head.seq}"
            raise _broken(place, Wrong.REWRITTEN, sentence)


def _peeked(line: bytes) -> Checkpoint | None:
    """What a line says, whoever has signed it."""
    try:
        note = msgspec.json.decode(line, type=NotedLine).note
        return Checkpoint.read(note.rpartition("\n\n")[0] + "\n")
    except (ValueError, RecursionError):
        return None


def _files(folder: Path) -> Sequence[Path]:
    try:
        names = [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = sorted((len(name), name) for name in names if _NAME.fullmatch(name))
    return [folder / name for _, name in found]


def _broken(place: Place, wrong: Wrong, sentence: str) -> ListingBroken:
    return ListingBroken(Fault(place, wrong, sentence))
