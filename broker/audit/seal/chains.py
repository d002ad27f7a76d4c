"""All chains of a directory, walked by several processes and given leaf by leaf in the order of a tree."""

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from broker.audit.chain import MAX_LINE_BYTES, Head, Link, decode_link
from broker.audit.columns import hashing_for
from broker.audit.diagnosis import Fault, Place
from broker.audit.hashing import HASH_BYTES, Hashing
from broker.audit.pieces import Piece, walk_piece
from broker.audit.segments import find_segments, regular
from broker.audit.verify import (
    ChainReport,
    Extent,
    chain_extents,
    last_line_fault,
    verify_extents,
)

WORTH_SHARING: Final = 64 * 1024 * 1024
"""From so many bytes on the work is shared: beginning another process takes as long as reading them."""

_AHEAD: Final = 32
"""So many segments are walked ahead of the tree: each takes 32 bytes of memory for a record until then."""

Progress = Callable[[int, int], None]
"""Is told how many bytes were walked, and how many there are."""

Pieces = Callable[[], Piece]


@dataclass(frozen=True, slots=True)
class _Start:
    """The number of the first record that was found in a segment, and the segment."""

    seq: int
    path: Path


class Chain:
    """
    One chain on its way: the leaves that were not taken yet, and what will be reported of it.

    ``take`` gives leaves in the order of the chain; ``head`` is where it goes on after those.
    """

    def __init__(self, writer: str, extents: Sequence[Extent], pieces: Iterator[Pieces]) -> None:
        self.writer = writer
        self.taken = 0
        self._extents = extents
        self._pieces = pieces
        self._leaves = bytearray()
        self._last_taken = b""
        self._head = Head()
        self._starts: list[_Start] = []
        self._first: Link | None = None
        self._last: tuple[Place, Link, bytes] | None = None
        self._unfinished: list[str] = []
        self._is_over = False
        self._report: ChainReport | None = None

    @property
    def head(self) -> Head:
        """The head after the leaves that were taken."""
        return Head(self.taken, self._last_taken.hex()) if self.taken else Head()

    def take(self, seq: int) -> bytes:
        """The leaves up to the record ``seq``, or as many as fit into the chain."""
        wanted = (seq - self.taken) * HASH_BYTES
        while len(self._leaves) < wanted and self._more():
            pass
        taken = bytes(self._leaves[:wanted])
        del self._leaves[:wanted]
        if taken:
            self._last_taken = taken[-HASH_BYTES:]
            self.taken += len(taken) // HASH_BYTES
        return taken

    def place(self, seq: int) -> Place:
        """Where a record stands that was found, or would stand after the last one."""
        if not self._starts:
            path = self._extents[-1].path if self._extents else Path(f"{self.writer}.000001.jsonl")
            return Place(path, 1)
        start = next(one for one in reversed(self._starts) if one.seq <= max(seq, 0))
        return Place(start.path, seq - start.seq + 1)

    def report(self) -> ChainReport:
        """What verification found; whatever was not taken is walked to its end."""
        while self._more():
            self._leaves.clear()
        if self._report is None:
            self._report = self._whole()
        return self._report

    def _more(self) -> bool:
        """Join the next piece; whether there was one that fits."""
        if self._is_over:
            return False
        piece = next(self._pieces, None)
        if piece is None:
            self._is_over = True
            return False
        found = piece()
        fits = not found.records or found.begins == self._head
        if fits and found.records:
            self._join(found)
        if not fits or not found.is_whole:
            self._diagnose()
        return not self._is_over

    def _join(self, piece: Piece) -> None:
        self._starts.append(_Start(piece.begins.seq, piece.extent.path))
        self._head = piece.ends
        self._leaves += piece.leaves
        self._unfinished.extend(piece.unfinished)
        self._first = self._first or piece.first
        if piece.last is not None:
            place = Place(piece.extent.path, piece.records)
            self._last = place, piece.last, piece.last_line

    def _diagnose(self) -> None:
        """Something does not fit: line by line from the beginning, the first fault is named exactly."""
        self._is_over = True
        self._report = verify_extents(self.writer, self._extents)

    def _whole(self) -> ChainReport:
        last = self._last[1] if self._last is not None else None
        return ChainReport(
            writer=self.writer,
            segments=len(self._extents),
            records=self._head.seq,
            torn_bytes=sum(extent.torn_bytes for extent in self._extents),
            first_time="" if self._first is None else self._first.time,
            last_time="" if last is None else last.time,
            is_closed=last is not None and last.event == "chain.closed",
            unfinished_groups=tuple(self._unfinished),
            fault=self._last_line_fault(),
            unended_bytes=self._extents[-1].unended_bytes if self._extents else 0,
        )

    def _last_line_fault(self) -> Fault | None:
        return None if self._last is None else last_line_fault(*self._last)


class Chains(Mapping[str, Chain]):
    """
    The chains of a directory by their writers, as they are at this moment.

    A context: what walks them ends with it. ``processes`` is how many walk at a time; they are forked only
    where there is enough for them to do, and are for programs that have no threads. They are threads where
    that is as good for who computes the hashes, which is whoever does it best unless ``hashing`` is given.
    Raises ``OSError``.
    """

    def __init__(
        self,
        directory: Path,
        *,
        wants_leaves: bool,
        processes: int = 1,
        hashing: Hashing | None = None,
        progress: Progress | None = None,
    ) -> None:
        found = find_segments(directory)
        self._extents = {name: chain_extents(segments) for name, segments in found.items()}
        self._wants_leaves = wants_leaves
        self._progress = progress
        self._walked = 0
        self._bytes = sum(one.size for every in self._extents.values() for one in every)
        self.hashing = hashing_for(self._bytes) if hashing is None else hashing
        self._pool = self._started(processes)
        self._waiting = self._in_order_of_time() if self._pool is not None else {}
        self._shared: dict[Path, Future[Piece]] = {}
        self._submit()
        self._chains = {
            name: Chain(name, every, self._pieces(name, every))
            for name, every in self._extents.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _raised: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __getitem__(self, writer: str) -> Chain:
        return self._chains[writer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._chains)

    def __len__(self) -> int:
        return len(self._chains)

    def _started(self, processes: int) -> Executor | None:
        segments = sum(map(len, self._extents.values()))
        if processes < 2 or segments < 2 or self._bytes < WORTH_SHARING:
            return None
        if not self.hashing.takes_turns:
            return ThreadPoolExecutor(min(processes, segments))
        # One that is begun anew takes as long to come up as to walk a segment.
        context = multiprocessing.get_context("fork")
        return ProcessPoolExecutor(min(processes, segments), mp_context=context)

    def _in_order_of_time(self) -> dict[Path, tuple[Extent, str]]:
        """What others can be asked to walk, in the order of time, which is about that of the tree."""
        every = [(one, name) for name, extents in self._extents.items() for one in extents]
        every.sort(key=lambda work: _first_time(work[0]))
        return {extent.path: (extent, name) for extent, name in every}

    def _submit(self) -> None:
        """Have other processes walk on, as far ahead as there is room for what they find."""
        while self._pool is not None and self._waiting and self._has_room:
            path = next(iter(self._waiting))
            extent, name = self._waiting.pop(path)
            self._shared[path] = self._pool.submit(
                walk_piece, extent, name, wants_leaves=self._wants_leaves, hashing=self.hashing
            )

    @property
    def _has_room(self) -> bool:
        # Without leaves what is found is small.
        return not self._wants_leaves or len(self._shared) < _AHEAD

    def _pieces(self, writer: str, extents: Sequence[Extent]) -> Iterator[Pieces]:
        for extent in extents:
            yield partial(self._piece, writer, extent)

    def _piece(self, writer: str, extent: Extent) -> Piece:
        self._waiting.pop(extent.path, None)
        work = self._shared.pop(extent.path, None)
        self._submit()
        walk = partial(
            walk_piece, extent, writer, wants_leaves=self._wants_leaves, hashing=self.hashing
        )
        piece = walk() if work is None else work.result()
        self._walked += extent.size
        if self._progress is not None:
            self._progress(self._walked, self._bytes)
        return piece


def _first_time(extent: Extent) -> str:
    with open(extent.path, "rb", opener=regular) as file:
        opening = decode_link(file.readline(MAX_LINE_BYTES)[:-1])
    return "" if opening is None else opening.time
