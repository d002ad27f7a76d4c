"""The fast walk over one segment: begun where its first line claims the chain to be, for others to join."""

from binascii import hexlify
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from typing import Final

from broker.audit.chain import GENESIS, LEAF, MAX_LINE_BYTES, Head, Link, decode_link
from broker.audit.hashing import HASH_BYTES, HEX_BYTES, ONE_BY_ONE, PREV, Hashing
from broker.audit.segments import regular
from broker.audit.verify import Extent

_MARK: Final = b"#"

_SHORTEST: Final = len(LEAF) + len(PREV) + HEX_BYTES
"""No line of a chain is shorter, with the byte that precedes it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """
    What was found in one segment, up to its end or its first misfit.

    ``begins`` is the head that its first line claims to continue, ``ends`` the one that the next line has to.
    ``leaves`` are the hashes of the lines, one after the other, where they were asked for.
    """

    extent: Extent
    begins: Head
    ends: Head
    leaves: bytes
    first: Link | None
    last: Link | None
    last_line: bytes
    unfinished: tuple[str, ...]
    is_whole: bool

    @property
    def records(self) -> int:
        """How many lines fitted, one after the other."""
        return self.ends.seq - self.begins.seq


def walk_piece(
    extent: Extent, writer: str, *, wants_leaves: bool, hashing: Hashing = ONE_BY_ONE
) -> Piece:
    """
    Walk a segment of the chain of ``writer``.

    Every byte is hashed, and every line has to remember the one before it. Numbers and writer are read in
    the first line, in the last and in those of groups: whoever can write a wrong one between those can as
    well write the right one, and has to write all lines anew that follow. For the same reason a line may
    remember a second hash besides the right one, or be no record otherwise. Raises ``OSError``.
    """
    walk = _Walk(writer, hashing, wants_leaves=wants_leaves)
    left = extent.size
    with open(extent.path, "rb", buffering=0, opener=regular) as file:
        while left > 0 and walk.fits and (count := walk.read(file, left)):
            left -= count
    return walk.piece(extent, is_at_end=not left and walk.is_between_lines)


class _Walk:
    """
    A walk on its way through the blocks of a segment.

    In its buffer a byte comes first that precedes the content of a leaf, then the lines. Each newline becomes
    such a byte as well, so that what is hashed stands between two bounds.
    """

    def __init__(self, writer: str, hashing: Hashing, *, wants_leaves: bool) -> None:
        self.fits = True
        self._writer = writer
        self._hashing = hashing
        self._buffer = bytearray(len(LEAF) + MAX_LINE_BYTES + hashing.block_bytes)
        self._filled = len(LEAF)
        self._begins: Head | None = None
        self._seq = 0
        self._prev = GENESIS.encode()
        self._first: Link | None = None
        self._followed: Link | None = None
        self._unfinished: list[str] = []
        self._last_line = b""
        self._leaves = bytearray()
        self._wants_leaves = wants_leaves

    @property
    def is_between_lines(self) -> bool:
        """Whether nothing was read of a line that did not end."""
        return self._filled == len(LEAF)

    def read(self, file: FileIO, most: int) -> int:
        """Walk on by a block, which may end within a line; returns how many bytes were there."""
        end = self._filled + min(self._hashing.block_bytes, most)
        count = file.readinto(memoryview(self._buffer)[self._filled : end])
        self._filled += count
        bounds = self._bounds()
        if len(bounds) > 1:
            self._pass_over(bounds)
            rest = self._buffer[bounds[-1] + 1 : self._filled]
            self._filled = len(LEAF) + len(rest)
            self._buffer[len(LEAF) : self._filled] = rest
        self.fits = self.fits and self._filled < len(LEAF) + MAX_LINE_BYTES
        return count

    def _bounds(self) -> Sequence[int]:
        """The places before and after each whole line, up to one that is too short or too long to be any."""
        buffer, filled = self._buffer, self._filled
        find, bounds, start, end = buffer.find, [0], 0, 0
        while (end := find(b"\n", end, filled)) >= 0:
            if not _SHORTEST <= end - start <= MAX_LINE_BYTES:
                self.fits = False
                break
            buffer[end] = 0
            bounds.append(end)
            start = end
        return bounds

    def _pass_over(self, bounds: Sequence[int]) -> None:
        """Take in all lines that fit, one after the other."""
        lines = self._hashing.lines(self._buffer, bounds)
        # What each line has to remember, and the one that comes then.
        hashes = self._prev + hexlify(lines.leaves)
        count = self._fitting(bounds, lines.prevs, hashes)
        if count:
            self._last_line = bytes(self._buffer[bounds[count - 1] + 1 : bounds[count]])
        self.fits = self.fits and count == len(bounds) - 1
        self._prev = hashes[count * HEX_BYTES : (count + 1) * HEX_BYTES]
        if self._wants_leaves:
            self._leaves += lines.leaves[: count * HASH_BYTES]

    def _fitting(self, bounds: Sequence[int], prevs: bytes, hashes: bytes) -> int:
        """How many of the lines fit: compared all at once, or each that has to be looked at for itself."""
        count = len(bounds) - 1
        marked = self._next_mark(0)
        if marked >= bounds[-1] and prevs == hashes[: count * HEX_BYTES]:
            self._seq += count
            return count
        for number in range(count):
            end, told = bounds[number + 1], slice(number * HEX_BYTES, (number + 1) * HEX_BYTES)
            if marked < end or prevs[told] != hashes[told]:
                line = bytes(self._buffer[bounds[number] + 1 : end])
                if not self._looked_at(line, hashes[told]):
                    return number
            if marked < end or self._followed is not None:
                marked = self._next_mark(end)
            self._seq += 1
        return count

    def _next_mark(self, start: int) -> int:
        """Where the next line is that has to be decoded: the first of all, and those in and after a group."""
        if self._begins is None or self._followed is not None:
            return 0
        # Only the records of a group have such an id.
        found = self._buffer.find(_MARK, start, self._filled)
        return self._filled if found < 0 else found

    def piece(self, extent: Extent, *, is_at_end: bool) -> Piece:
        """What was found, when the walk is over."""
        if self._followed is not None and is_at_end:
            # A group is written at once, so that none goes on in the next segment.
            self._unfinished.append(self._followed.group)
        ends = Head(self._seq, self._prev.decode()) if self._begins is not None else Head()
        last = decode_link(self._last_line) if self._begins is not None else None
        # No line remembers the last one, so that it has to be a record by what it says itself.
        is_sound = self._begins is None or (
            last is not None and (last.seq, last.writer) == (self._seq - 1, self._writer)
        )
        return Piece(
            extent=extent,
            begins=self._begins or Head(),
            ends=ends,
            leaves=bytes(self._leaves),
            first=self._first,
            last=last,
            last_line=self._last_line,
            unfinished=tuple(self._unfinished),
            is_whole=self.fits and is_at_end and is_sound,
        )

    def _looked_at(self, line: bytes, prev: bytes) -> bool:
        """Whether a line fits by what it says when it is decoded."""
        link = decode_link(line)
        if link is None or link.writer != self._writer or len(line) >= MAX_LINE_BYTES:
            return False
        if self._begins is None:
            if link.seq < 0:
                return False
            self._begins, self._first, self._seq = Head(link.seq, link.prev), link, link.seq
        elif link.seq != self._seq or link.prev.encode() != prev:
            return False
        if self._followed is not None and link.group != self._followed.group:
            self._unfinished.append(self._followed.group)
        self._followed = link if link.is_followed else None
        return True
