"""What is wrong with the first line of a chain that does not fit, and where."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from broker.audit.chain import MAX_LINE_BYTES, Head, Link, decode_link, line_hash


class Wrong(StrEnum):
    """What can be wrong with a chain, or with the checkpoints over all of them."""

    CHANGED = "changed"
    """A line is not what was written."""
    MISSING = "missing"
    """Lines or whole segments are not there."""
    REORDERED = "reordered"
    """A line stands before one that was written earlier."""
    REPEATED = "repeated"
    """A line stands again after its place."""
    FOREIGN = "foreign"
    """A line is no record of this chain."""
    TRUNCATED = "truncated"
    """A segment that is not the last ends too early."""
    TORN = "torn"
    """A segment ends in the middle of a line, and nothing accounts for it."""
    REWRITTEN = "rewritten"
    """Lines fit together and are not those that were sealed."""
    ROLLED_BACK = "rolled back"
    """What somebody kept is newer than all that is there, or was never a part of it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, counted from 1."""

    file: Path
    line: int


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing wrong in a chain: where, what, and a sentence for whoever reads it."""

    place: Place
    wrong: Wrong
    sentence: str

    def __str__(self) -> str:
        return f"{self.place.file}:{self.place.line}: {self.sentence}"


@dataclass(frozen=True, slots=True)
class Misfit:
    """
    A line that does not fit, what was expected in its place, and what stands around it.

    ``whole`` includes the newline where there is one. ``before`` is the place of the last line that
    fitted, if any. ``following`` are the lines after it, to the end of the chain.
    """

    place: Place
    whole: bytes
    writer: str
    expected: Head
    before: Place | None
    following: Iterator[bytes]


def diagnose(misfit: Misfit) -> Fault:
    """
    Name the first line that is wrong, which may be the one before the misfit.

    A changed line shows at the line after it, whose memory of it no longer agrees; the lines that
    follow tell which of the two was changed.
    """
    if not misfit.whole.endswith(b"\n"):
        return _unended(misfit)
    link = decode_link(misfit.whole[:-1])
    if link is None or link.writer != misfit.writer:
        return _strange(misfit, link)
    if link.prev == misfit.expected.prev:
        return _changed(misfit.place)
    if link.seq == misfit.expected.seq:
        return _unlinked(misfit)
    return _displaced(misfit, link)


def torn(place: Place) -> Fault:
    """The fault of a segment that ends within a line."""
    sentence = "the line has no end: its writer was cut off here, or is writing at this moment"
    return Fault(place, Wrong.TORN, sentence)


def _unended(misfit: Misfit) -> Fault:
    if len(misfit.whole) < MAX_LINE_BYTES:
        return torn(misfit.place)
    return Fault(misfit.place, Wrong.FOREIGN, "the line is longer than any record")


def _changed(place: Place) -> Fault:
    return Fault(place, Wrong.CHANGED, "the record was changed after it was written")


def _strange(misfit: Misfit, link: Link | None) -> Fault:
    """A line that is no record of this chain was put in, or was one before it was changed."""
    after = decode_link(next(misfit.following, b""))
    is_put_in = after is not None and after.seq == misfit.expected.seq
    was_ours = link is None or link.prev == misfit.expected.prev
    if was_ours and not is_put_in:
        return _changed(misfit.place)
    return Fault(misfit.place, Wrong.FOREIGN, "the line is no record of this chain")


def _unlinked(misfit: Misfit) -> Fault:
    """The line has the right number, but remembers another line before it."""
    after = decode_link(next(misfit.following, b""))
    is_changed = after is not None and after.prev != line_hash(misfit.whole[:-1])
    if misfit.before is None or is_changed:
        return _changed(misfit.place)
    return _changed(misfit.before)


def _displaced(misfit: Misfit, link: Link) -> Fault:
    """The line is a record of this chain in the wrong place."""
    number = misfit.expected.seq
    if link.seq < number:
        return Fault(
            misfit.place, Wrong.REPEATED, f"the record with seq {link.seq} stands here again"
        )
    later = (decode_link(line) for line in misfit.following)
    if any(one is not None and one.seq == number for one in later):
        sentence = f"the record with seq {link.seq} stands before the one with seq {number}"
        return Fault(misfit.place, Wrong.REORDERED, sentence)
    lost = (
        f"the record with seq {number} is"
        if link.seq == number + 1
        else f"the records with seq {number} to {link.seq - 1} are"
    )
    if misfit.before is not None and link.event == "chain.opened":
        sentence = f"the segment ends too early or the next is gone: {lost} missing"
        return Fault(misfit.before, Wrong.TRUNCATED, sentence)
    return Fault(misfit.place, Wrong.MISSING, f"{lost} missing before this line")
