"""What stands in the files of a log now: the hash of every line, by chain and number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from broker.audit.chain import LEAF, decode_link
from broker.audit.diagnosis import Fault, Place
from broker.audit.hashing import HASH_BYTES
from broker.audit.log_id import read_log_id
from broker.audit.seal.chains import Chain, Chains, Progress
from broker.audit.segments import AuditLogRefused, find_segments
from broker.audit.verify import Extent, chain_extents

_STEP: Final = 65_536
"""So many hashes are taken from a chain at once."""
_WIDEST_GAPS: Final = 1_000_000
"""So many records may be missing within a chain that does not fit; what stands behind them is left out."""
_ABSENT: Final = bytes(HASH_BYTES)


@dataclass(frozen=True, slots=True)
class Standing:
    """
    The lines of one chain: 32 bytes of memory for each, and one that is for whoever marks them.

    ``fault`` is the first misfit. Behind it each line stands where it says itself that it does.
    """

    writer: str
    hashes: bytearray
    chain: Chain
    fault: Fault | None
    marks: bytearray = field(repr=False)

    @property
    def numbers(self) -> int:
        """One more than the highest number; without a fault there are as many records."""
        return len(self.marks)

    @property
    def records(self) -> int:
        """How many records there are."""
        return self.numbers - self.marks.count(GAP)

    def hash_of(self, seq: int) -> bytes | None:
        """The hash of a record, where there is one."""
        found = bytes(self.hashes[seq * HASH_BYTES : (seq + 1) * HASH_BYTES])
        return found if found and found != _ABSENT else None

    def place(self, seq: int) -> Place | None:
        """The file and the line of a record, as far as the chain fits."""
        return self.chain.place(seq) if seq < self.chain.taken else None


UNMARKED: Final = 0
"""The mark of a record that nobody has marked."""
GAP: Final = 255
"""The mark of a number that no record has."""


@dataclass(frozen=True, slots=True)
class StandingLog:
    """All chains of a log by their writers, and its name where it has one."""

    chains: Mapping[str, Standing]
    log_id: str | None

    @property
    def faults(self) -> Sequence[Fault]:
        """The first misfit of each chain that has one."""
        return [one.fault for one in self.chains.values() if one.fault is not None]


def read_log(
    directory: Path, *, processes: int = 1, progress: Progress | None = None
) -> StandingLog:
    """
    Hash every line of a log; nothing that was derived or remembered about it is looked at.

    More ``processes`` are for programs without threads. Raises ``OSError``.
    """
    try:
        log_id = read_log_id(directory)
    except AuditLogRefused:
        log_id = None
    with Chains(directory, wants_leaves=True, processes=processes, progress=progress) as chains:
        return StandingLog(
            {name: _standing(directory, one) for name, one in chains.items()}, log_id
        )


def _standing(directory: Path, chain: Chain) -> Standing:
    hashes = bytearray()
    while leaves := chain.take(chain.taken + _STEP):
        hashes += leaves
    fault = chain.report().fault
    if fault is None:
        return Standing(chain.writer, hashes, chain, None, bytearray(chain.taken))
    extents = chain_extents(find_segments(directory).get(chain.writer, {}))
    hashes = _loose(chain.writer, extents)
    marks = bytearray(len(hashes) // HASH_BYTES)
    for seq in range(len(marks)):
        if hashes.startswith(_ABSENT, seq * HASH_BYTES):
            marks[seq] = GAP
    return Standing(chain.writer, hashes, chain, fault, marks)


def _loose(writer: str, extents: Sequence[Extent]) -> bytearray:
    """The hashes of a chain that does not fit, each where its line says that it stands."""
    hashes, gaps = bytearray(), _WIDEST_GAPS
    for line in (line for extent in extents for line in extent.lines()):
        content = line.removesuffix(b"\n")
        link = decode_link(content)
        if link is None or link.writer != writer or link.seq < 0:
            continue
        missing = link.seq - len(hashes) // HASH_BYTES
        if missing > gaps:
            continue
        if missing > 0:
            gaps -= missing
            hashes += bytes(missing * HASH_BYTES)
        start = link.seq * HASH_BYTES
        hashes[start : start + HASH_BYTES] = sha256(LEAF + content).digest()
    return hashes
