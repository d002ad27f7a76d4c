"""A record that is at work while it is sealed, for the tests of what seals it."""

from collections.abc import Sequence
from pathlib import Path

from broker.audit.chain import line_hash
from broker.audit.checkpoints import Checkpoint
from broker.audit.disk import DiskChain
from broker.audit.seal.sealer import Sealer
from broker.audit.seal.store import CheckpointStore, Kept
from broker.audit.segments import find_segments
from tests.audit.chains import NOW, record
from tests.audit.seal.signers import ORIGIN, KeysInMemory, signer_of


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


class Log:
    """A directory with the chains of two writers that are at work, and its sealer."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.keys = KeysInMemory()
        self.clock = Clock()
        self.chains = {
            name: DiskChain(directory, writer=name, now=self.clock, segment_bytes=4_000)
            for name in ("a", "b")
        }
        for chain in self.chains.values():
            chain.open("start")
        self.count = 0
        self.sealer = self.new_sealer()

    def new_sealer(self, *, most_lines: int = 50_000, directory: Path | None = None) -> Sealer:
        """Another sealer with the same key, of a copy where one is named."""
        return Sealer(
            directory or self.directory,
            signer_of(self.keys),
            origin=ORIGIN,
            now=self.clock,
            most_lines=most_lines,
        )

    def write(self, writer: str, count: int = 3) -> None:
        chain = self.chains[writer]
        for _ in range(count):
            self.count += 1
            chain.append([record(self.count)])
            if not chain.is_open:
                chain.open("rotation")

    def restart(self) -> Sealer:
        """The sealer after its process died: nothing of it is left but what is on disk."""
        self.sealer.close()
        self.sealer = self.new_sealer()
        return self.sealer

    def checkpoints(self) -> Sequence[Kept]:
        return list(CheckpointStore(self.directory).all())

    def close(self) -> None:
        self.sealer.close()
        for chain in self.chains.values():
            chain.close()


def lines_of(directory: Path, writer: str) -> list[bytes]:
    segments = find_segments(directory)[writer].values()
    return [line for path in segments for line in path.read_bytes().splitlines()]


def leaves_by_definition(directory: Path, checkpoints: Sequence[Checkpoint]) -> list[bytes]:
    """The leaves in the order that a checkpoint's docstring tells, straight from the files."""
    leaves: list[bytes] = []
    heads: dict[str, int] = {}
    for checkpoint in checkpoints:
        for writer in sorted(checkpoint.heads):
            lines = lines_of(directory, writer)
            after = checkpoint.heads[writer].seq
            fresh = lines[heads.get(writer, 0) : after]
            leaves += [bytes.fromhex(line_hash(line)) for line in fresh]
            heads[writer] = after
    return leaves
