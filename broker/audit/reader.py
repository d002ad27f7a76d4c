"""Reading the audit log back: is it whole, and what does it say."""

import heapq
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO, Final

from broker.audit.chain import MAX_LINE_BYTES, NOT_A_LINK
from broker.audit.diagnosis import Fault, Place, Wrong
from broker.audit.durable import read_head
from broker.audit.record import RECORD_DECODER, Record
from broker.audit.segments import find_locks, find_segments, regular
from broker.audit.verify import ChainReport, Extent, chain_extents, verify_chain


class Mode(Enum):
    """With what a log is verified."""

    CHAINS = "its chains alone"
    SEALED = "the key of its checkpoints"
    ANCHORED = "the key, and checkpoints kept or time-stamped elsewhere"


UNDETECTED: Final[Mapping[Mode, Sequence[str]]] = {
    Mode.CHAINS: (
        "records cut from the very end of a chain",
        "a change to the last record of a chain that leaves it a valid record",
        "a whole chain removed together with its lock or head file",
        "a chain rewritten from some record to its end by somebody who can write its files",
        "whether a token on record reached whoever asked: its answer came after, and may have been a refusal",
    ),
    Mode.SEALED: (
        "what is done to records that came after the last checkpoint, beyond what their chains show",
        "record and checkpoints put back together to what they were at an earlier checkpoint",
        "record and checkpoints written anew by somebody who can sign with the key",
        "what was not true, or not recorded, in the first place",
        "whether a token on record reached whoever asked: its answer came after, and may have been a refusal",
    ),
    Mode.ANCHORED: (
        "what is done to records that came after the last checkpoint, beyond what their chains show",
        "record and checkpoints put back together to a state since the newest one that was kept or stamped",
        "what is written anew after that one by somebody who can sign with the key",
        "what was not true, or not recorded, in the first place",
        "whether a token on record reached whoever asked: its answer came after, and may have been a refusal",
    ),
}
"""What stays undetected however sound a log is found to be, for want of anything that remembers."""

_BLOCK: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Report:
    """What verification found in an audit directory, chain by chain."""

    chains: tuple[ChainReport, ...]

    @property
    def is_intact(self) -> bool:
        """Whether no chain has a fault. ``UNDETECTED`` tells what this cannot mean."""
        return all(chain.fault is None for chain in self.chains)

    @property
    def records(self) -> int:
        """How many records fit into their chains."""
        return sum(chain.records for chain in self.chains)


def undetected(mode: Mode) -> Sequence[str]:
    """What stays undetected when a log is verified with that."""
    return UNDETECTED[mode]


def verify_directory(directory: Path) -> Report:
    """
    Verify every chain of an audit directory, line by line, in constant memory.

    A writer whose lock file is there and whose segments are not counts as a chain with a fault.
    """
    found = find_segments(directory)
    chains = [verify_chain(writer, segments) for writer, segments in found.items()]
    return Report(tuple(sorted([*chains, *lost_chains(directory)], key=lambda one: one.writer)))


def lost_chains(directory: Path) -> Sequence[ChainReport]:
    """The chains of which nothing but the lock is left."""
    found = find_segments(directory)
    locks = [(writer, lock) for writer, lock in find_locks(directory) if writer not in found]
    return [_lost(writer, lock) for writer, lock in locks if _has_written(directory, writer)]


def _has_written(directory: Path, writer: str) -> bool:
    """Whether a writer ever had a line on disk: one that found the disk full has left its lock alone."""
    told = read_head(directory, writer, of_any_boot=True)
    return told is not None and told.seq > 0


def read_records(directory: Path, *, newest_first: bool = False) -> Iterator[Record]:
    """
    The records of all chains, by their times.

    Within a chain their order is that of the chain. Lines that are no records are passed over;
    telling whether all is well is the business of ``verify_directory``.
    """
    chains = [
        _chain_records(chain_extents(segments), newest_first=newest_first)
        for segments in find_segments(directory).values()
    ]
    return heapq.merge(*chains, key=lambda record: record.time, reverse=newest_first)


def _chain_records(extents: Sequence[Extent], *, newest_first: bool) -> Iterator[Record]:
    for extent in reversed(extents) if newest_first else extents:
        for line in _lines_backwards(extent) if newest_first else extent.lines():
            try:
                record = RECORD_DECODER.decode(line)
            except NOT_A_LINK:
                continue
            yield record


def _lines_backwards(extent: Extent) -> Iterator[bytes]:
    """The lines of a segment from its last to its first, read in blocks from the end."""
    rest = b""
    with open(extent.path, "rb", opener=regular) as file:
        for block in _blocks_backwards(file, extent.size):
            first, *lines = (block + rest).split(b"\n")
            yield from reversed(lines)
            rest = first if len(first) <= MAX_LINE_BYTES else b""
    yield rest


def _blocks_backwards(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0:
        start = max(size - _BLOCK, 0)
        yield os.pread(file.fileno(), size - start, start)
        size = start


def _lost(writer: str, lock: Path) -> ChainReport:
    sentence = "the whole chain is missing: the lock of its writer is here, and no segment"
    return missing_chain(writer, Fault(Place(lock, 1), Wrong.MISSING, sentence))


def missing_chain(writer: str, fault: Fault) -> ChainReport:
    """What is found of a chain that is gone."""
    return ChainReport(
        writer=writer,
        segments=0,
        records=0,
        torn_bytes=0,
        first_time="",
        last_time="",
        is_closed=False,
        unfinished_groups=(),
        fault=fault,
    )
