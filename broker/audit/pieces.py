"""The fast walk over one segment: begun where its first line claims the chain to be, for others to join."""

from binascii import hexlify
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from broker.audit.chain import LEAF, MAX_LINE_BYTES, Head, Link, decode_link
from broker.audit.segments import regular
from broker.audit.verify import Extent

_BLOCK: Final = 96 * 1024
_MARK: Final = b"#"
_PREV: Final = b'"prev":"'


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


def walk_piece(extent: Extent, writer: str, *, wants_leaves: bool) -> Piece:
    """
    Walk a segment of the chain of ``writer``.

    Every byte is hashed, and every line has to remember the one before it. Numbers and writer are read in
    the first line, in the last and in those of groups: whoever can write a wrong one between those can as
    well write the right one, and has to write all lines anew that follow. Raises ``OSError``.
    """
    walk = _Walk(writer, wants_leaves=wants_leaves)
    left, rest = extent.size, b""
    with open(extent.path, "rb", buffering=0, opener=regular) as file:
        while left > 0 and walk.fits and (block := file.read(min(_BLOCK, left))):
            left -= len(block)
            data = rest + block
            rest = data[walk.pass_over(data) :]
            if len(rest) >= MAX_LINE_BYTES:
                break
    return walk.piece(extent, is_at_end=not left and not rest)


class _Walk:
    """A walk on its way through the blocks of a segment."""

    def __init__(self, writer: str, *, wants_leaves: bool) -> None:
        self.fits = True
        self._writer = writer
        self._begins: Head | None = None
        self._seq = 0
        self._prev = b""
        self._first: Link | None = None
        self._followed: Link | None = None
        self._unfinished: list[str] = []
        self._last_line = b""
        self._leaves = bytearray()
        self._wants_leaves = wants_leaves
        # Where a line remembers the one before it, from its end, by its length: a guess that is checked.
        self._shapes: dict[int, int] = {}

    def pass_over(self, data: bytes) -> int:
        """How many bytes of the data are lines that fit. This loop runs once for every record."""
        find, looks, shape_of = data.find, data.startswith, self._shapes.get
        view = memoryview(data)
        begin_leaf = sha256(LEAF).copy
        seq, prev, start, before = self._seq, self._prev, 0, 0
        hashes: list[bytes] = []
        # Only the records of a group have such an id, and what belongs to one has to be decoded.
        marked = 0 if self._followed is not None else _next_mark(data, 0)
        while (end := find(b"\n", start)) >= 0:
            told = _PREV + prev
            # A guess that is wrong costs a search; no line has what is looked for at its very end.
            if marked < end or not (
                looks(told, end - shape_of(end - start, 0)) or self._found(told, data, start, end)
            ):
                link = self._looked_at(data[start:end], seq, prev)
                if link is None:
                    self.fits = False
                    break
                # The line after one of a group has to be decoded as well.
                seq, marked = link.seq, end if self._followed is not None else _next_mark(data, end)
            hashed = begin_leaf()
            hashed.update(view[start:end])
            leaf = hashed.digest()
            prev = hexlify(leaf)
            hashes.append(leaf)
            before, start, seq = start, end + 1, seq + 1
        if start:
            self._last_line = data[before : start - 1]
        self._seq, self._prev = seq, prev
        if self._wants_leaves:
            self._leaves += b"".join(hashes)
        return start

    def _found(self, told: bytes, data: bytes, start: int, end: int) -> bool:
        """Whether a line remembers the one before it anywhere, and not what looks like it."""
        at = data.rfind(_PREV, start, end)
        if self._begins is None or at < 0 or not data.startswith(told, at):
            return False
        self._shapes[end - start] = end - at
        return True

    def piece(self, extent: Extent, *, is_at_end: bool) -> Piece:
        """What was found, when the walk is over."""
        if self._followed is not None and is_at_end:
            # A group is written at once, so that none goes on in the next segment.
            self._unfinished.append(self._followed.group)
        ends = Head(self._seq, self._prev.decode()) if self._begins is not None else Head()
        last = decode_link(self._last_line) if self._begins is not None else None
        is_sound = last is None or (last.seq, last.writer) == (self._seq - 1, self._writer)
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

    def _looked_at(self, line: bytes, seq: int, prev: bytes) -> Link | None:
        """The place of a line that has to be decoded, when it fits."""
        link = decode_link(line)
        if link is None or link.writer != self._writer or len(line) >= MAX_LINE_BYTES:
            return None
        if self._begins is None:
            if link.seq < 0:
                return None
            self._begins, self._first = Head(link.seq, link.prev), link
        elif link.seq != seq or link.prev.encode() != prev:
            return None
        if self._followed is not None and link.group != self._followed.group:
            self._unfinished.append(self._followed.group)
        self._followed = link if link.is_followed else None
        return link


def _next_mark(data: bytes, start: int) -> int:
    found = data.find(_MARK, start)
    return len(data) if found < 0 else found
