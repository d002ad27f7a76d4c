"""Verification of one chain: every line remembers the line before, or the first misfit is named."""

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from broker.audit.chain import (
    LEAF,
    LINK_DECODER,
    MAX_LINE_BYTES,
    NOT_A_LINK,
    Head,
    Link,
    decode_link,
    encode,
)
from broker.audit.diagnosis import Fault, Misfit, Place, Wrong, diagnose, torn
from broker.audit.record import RECORD_DECODER, VERSION
from broker.audit.segments import regular

_LOOKS: Final = 20
_MOMENT: Final = 0.01


@dataclass(frozen=True, slots=True)
class Extent:
    """
    The part of a segment that belongs to its chain, in bytes from the start.

    ``torn_bytes`` are what the next segment declares to come after that: the leavings of a crash or
    of a failed disk, none of which was ever acknowledged. ``unended_bytes`` come after the last line of the
    newest segment, where nothing can declare them yet.
    """

    path: Path
    size: int
    torn_bytes: int = 0
    unended_bytes: int = 0

    def lines(self) -> Iterator[bytes]:
        """The lines, each with its newline; what is too long to be one comes in pieces."""
        left = self.size
        with open(self.path, "rb", opener=regular) as file:
            while left > 0 and (line := file.readline(min(MAX_LINE_BYTES, left))):
                left -= len(line)
                yield line


@dataclass(frozen=True, slots=True)
class ChainReport:
    """
    What verification found in one chain, up to its first fault if it has one.

    ``is_closed`` tells that the writer stopped in order after the last record. ``unfinished_groups`` are
    those that a crash cut short, which is no fault: nothing of what they record was ever given away.
    ``unended_bytes`` come after the last line and are none: their writer is at work, or died at it.
    """

    writer: str
    segments: int
    records: int
    torn_bytes: int
    first_time: str
    last_time: str
    is_closed: bool
    unfinished_groups: tuple[str, ...]
    fault: Fault | None
    unended_bytes: int = 0


def chain_extents(segments: dict[int, Path]) -> Sequence[Extent]:
    """
    The extent of each segment of a chain, in order.

    A segment without a single whole line comes of a beginning that failed, and is passed over; so is the
    newest, whose writer is at work or died at its first line.
    """
    extents: list[Extent] = []
    torn_bytes = unended_bytes = 0
    for path in reversed(segments.values()):
        with open(path, "rb", opener=regular) as file:
            first = file.readline(MAX_LINE_BYTES)
        if first.endswith(b"\n") or (len(first) == MAX_LINE_BYTES and not extents):
            extents.append(_older(path, torn_bytes) if extents else _newest(path, unended_bytes))
            opening = decode_link(first[:-1])
            torn_bytes = 0 if opening is None else max(opening.torn_bytes, 0)
        elif not extents:
            unended_bytes += len(first)
    if unended_bytes and not extents:
        return [Extent(next(iter(segments.values())), 0, unended_bytes=unended_bytes)]
    return extents[::-1]


def _older(path: Path, torn_bytes: int) -> Extent:
    return Extent(path, max(path.stat().st_size - torn_bytes, 0), torn_bytes)


def _newest(path: Path, unended_bytes: int) -> Extent:
    """
    The segment up to its last whole line, unless what comes after that is too long for one.

    ``unended_bytes`` are in the segments after it, none of which has a line.
    """
    size = _settled_size(path)
    with open(path, "rb", opener=regular) as file:
        start = max(size - MAX_LINE_BYTES, 0)
        data = os.pread(file.fileno(), size - start, start)
    end = start + data.rfind(b"\n") + 1
    if end == start and len(data) >= MAX_LINE_BYTES:
        return Extent(path, size)
    return Extent(path, end, unended_bytes=size - end + unended_bytes)


def _settled_size(path: Path) -> int:
    """
    The size of the newest segment, at the end of a line where there is one.

    A writer that is at work may just have a line half written; it is given a moment to end it.
    """
    for _ in range(_LOOKS):
        size = path.stat().st_size
        with open(path, "rb", opener=regular) as file:
            if os.pread(file.fileno(), 1, max(size - 1, 0)) == b"\n":
                break
        time.sleep(_MOMENT)
    return size


def verify_chain(writer: str, segments: dict[int, Path]) -> ChainReport:
    """Walk the chain of one writer from its first line until its end or its first fault."""
    return verify_extents(writer, chain_extents(segments))


def verify_extents(writer: str, extents: Sequence[Extent]) -> ChainReport:
    """The same for segments that were looked up before."""
    return _Walk(writer, extents).run()


def last_line_fault(place: Place, last: Link, line: bytes) -> Fault | None:
    """No line remembers the last one, so it is held at least to the form that we write."""
    if last.v != VERSION:
        return None
    try:
        is_canonical = encode(RECORD_DECODER.decode(line)) == line
    except NOT_A_LINK:
        is_canonical = False
    if is_canonical:
        return None
    return Fault(place, Wrong.CHANGED, "the record is not in the form it is written in")


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Lines that fit, one after the other: where they lead, the last of them, and the misfit."""

    head: Head
    count: int = 0
    first: Link | None = None
    last: Link | None = None
    last_line: bytes = b""
    misfit: bytes | None = None
    unfinished: tuple[str, ...] = ()


def _stretch(lines: Iterator[bytes], head: Head, *, writer: str) -> _Stretch:
    """As many of the lines as continue the chain. This loop runs once for every record."""
    decode, sha256 = LINK_DECODER.decode, hashlib.sha256
    seq, prev = head.seq, head.prev
    first = last = followed = None
    last_line, misfit, unfinished = b"", None, []
    for line in lines:
        try:
            link = decode(line[:-1])
        except NOT_A_LINK:
            misfit = line
            break
        if link.seq != seq or link.prev != prev or link.writer != writer:
            misfit = line
            break
        if followed is not None and link.group != followed.group:
            unfinished.append(followed.group)
        followed = link if link.group and link.is_followed else None
        first, last, last_line = first or link, link, line
        seq, prev = seq + 1, sha256(LEAF + line[:-1]).hexdigest()
    if followed is not None:
        # A group is written at once, so that none goes on in the next segment.
        unfinished.append(followed.group)
    whole = Head(seq, prev)
    return _Stretch(whole, seq - head.seq, first, last, last_line, misfit, tuple(unfinished))


class _Walk:
    """A verification on its way: where the chain goes on, and the last line that fitted."""

    def __init__(self, writer: str, extents: Sequence[Extent]) -> None:
        self._writer = writer
        self._extents = extents
        self._first: Link | None = None
        self._latest = _Stretch(Head())
        self._unfinished: list[str] = []
        self._place: Place | None = None

    def run(self) -> ChainReport:
        fault = None
        for index, extent in enumerate(self._extents):
            fault = self._walk(extent, self._extents[index + 1 :])
            if fault is not None:
                break
        return self._report(fault or self._last_line_fault())

    def _walk(self, extent: Extent, others: Sequence[Extent]) -> Fault | None:
        lines = extent.lines()
        stretch = _stretch(lines, self._latest.head, writer=self._writer)
        if stretch.last is not None:
            self._first = self._first or stretch.first
            self._unfinished.extend(stretch.unfinished)
            self._latest = stretch
            self._place = Place(extent.path, stretch.count)
            if not stretch.last_line.endswith(b"\n"):
                return torn(self._place)
        if stretch.misfit is None:
            return None
        following = chain(lines, chain.from_iterable(other.lines() for other in others))
        return diagnose(
            Misfit(
                place=Place(extent.path, stretch.count + 1),
                whole=stretch.misfit,
                writer=self._writer,
                expected=stretch.head,
                before=self._place,
                following=following,
            )
        )

    def _last_line_fault(self) -> Fault | None:
        last = self._latest.last
        if last is None or self._place is None:
            return None
        return last_line_fault(self._place, last, self._latest.last_line[:-1])

    def _report(self, fault: Fault | None) -> ChainReport:
        last = self._latest.last
        return ChainReport(
            writer=self._writer,
            segments=len(self._extents),
            records=self._latest.head.seq,
            torn_bytes=sum(extent.torn_bytes for extent in self._extents),
            first_time="" if self._first is None else self._first.time,
            last_time="" if last is None else last.time,
            is_closed=last is not None and last.event == "chain.closed",
            unfinished_groups=tuple(self._unfinished),
            fault=fault,
            unended_bytes=self._extents[-1].unended_bytes if self._extents else 0,
        )
