"""A log of a real run with its checkpoints: two writers, several lives, groups, and one that crashed."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.audit.chain import Head, decode_link, link
from broker.audit.disk import DiskChain
from broker.audit.notes import NoteKey
from broker.audit.record import RECORD_DECODER, Record
from broker.audit.seal.evidence import Evidence, verify_log
from broker.audit.seal.listing import opened_note
from broker.audit.seal.sealed import Anchor, Trust
from broker.audit.seal.sealer import Sealer
from broker.audit.seal.store import CheckpointStore, Kept
from tests.audit.chains import NOW, group, record
from tests.audit.seal.signers import ORIGIN, KeysInMemory, signer_of

STAGES = 4
"""How many checkpoints there are; records come between them, and some after the last."""


class Run:
    """A log while it is written and sealed, with a clock that counts up by a second each time it is asked."""

    def __init__(self, directory: Path, keys: KeysInMemory, began: int = NOW) -> None:
        self.directory = directory
        self.keys = keys
        self.seconds = began
        self.count = 0
        self.chains: dict[str, DiskChain] = {}
        self.sealer = Sealer(directory, signer_of(keys), origin=ORIGIN, now=self.now)

    def now(self) -> float:
        self.seconds += 1
        return float(self.seconds)

    def begin(self, writer: str) -> None:
        chain = DiskChain(self.directory, writer=writer, now=self.now, segment_bytes=5_000)
        chain.open("start")
        self.chains[writer] = chain

    def write(self, writer: str, count: int) -> None:
        chain = self.chains[writer]
        for _ in range(count):
            self.count += 1
            records = group(f"g-{self.count}", 3) if self.count % 5 == 0 else [record(self.count)]
            chain.append(records)
            if not chain.is_open:
                chain.open("rotation")

    def crash(self, writer: str, left: bytes = b"") -> None:
        """Nobody writes on after what is left of a line."""
        chain = self.chains.pop(writer)
        chain._leave_segment()
        chain._lock.release()
        with max(self.directory.glob(f"{writer}.*.jsonl")).open("ab") as file:
            file.write(left)

    def seal(self) -> None:
        assert self.sealer.step() is not None

    def end(self) -> None:
        for chain in self.chains.values():
            chain.close()
        self.sealer.close()


def real_run(directory: Path, keys: KeysInMemory, *, began: int = NOW) -> None:
    """Two writers and four checkpoints; one writer crashes and comes back, and a third is never ended."""
    run = Run(directory, keys, began)
    run.begin("grpc-0")
    run.begin("http-0")
    run.write("http-0", 12)
    run.seal()
    run.write("grpc-0", 9)
    run.write("http-0", 7)
    run.crash("grpc-0", b'{"client_id":"half a li')
    run.seal()
    run.begin("grpc-0")
    run.write("grpc-0", 8)
    run.begin("keys")
    run.write("keys", 2)
    run.seal()
    run.write("http-0", 9)
    run.write("grpc-0", 1)
    run.seal()
    run.write("http-0", 4)
    run.crash("keys")
    run.end()


@dataclass(frozen=True, slots=True)
class SealedLog:
    """A log that nobody touches: tests take copies."""

    directory: Path
    key: NoteKey

    def copy(self, to: Path) -> "SealedLog":
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(self.directory, to)
        return SealedLog(to, self.key)

    def verify(self, *anchors: Path, processes: int = 1) -> Evidence:
        return verify_log(
            self.directory,
            Trust(keys=[self.key], anchors=[self.anchor(one) for one in anchors]),
            processes=processes,
        )

    def anchor(self, file: Path) -> Anchor:
        return Anchor(file, opened_note(file.read_text(), [self.key]))

    def heads(self, stage: int) -> dict[str, Head]:
        """What a checkpoint seals, counted from 0."""
        return dict(self.kept()[stage].checkpoint.heads)

    def kept(self) -> Sequence[Kept]:
        return list(CheckpointStore(self.directory).all())

    @property
    def checkpoints(self) -> Path:
        return self.directory / "checkpoints" / "000001.jsonl"

    def edit(self, name: str, edit: Callable[[list[bytes]], object]) -> None:
        """Edit the lines of a file."""
        path = self.directory / name
        lines = path.read_bytes().splitlines(keepends=True)
        edit(lines)
        path.write_bytes(b"".join(lines))

    def forge(self, writer: str, seq: int, edit: Callable[[Record], object]) -> None:
        """Change a record, and make all that comes after it in its chain fit again."""
        head = Head()
        for path in sorted(self.directory.glob(f"{writer}.*.jsonl")):
            *lines, left = path.read_bytes().split(b"\n")
            records = [RECORD_DECODER.decode(line) for line in lines]
            for one in records:
                if one.seq == seq:
                    edit(one)
            data, head = link(records, head, writer=writer)
            path.write_bytes(data + left)

    def place_of(self, writer: str, seq: int) -> tuple[str, int]:
        """The file and the line of a record."""
        for path in sorted(self.directory.glob(f"{writer}.*.jsonl")):
            for number, line in enumerate(path.read_bytes().splitlines(), start=1):
                told = decode_link(line)
                if told is not None and told.seq == seq:
                    return path.name, number
        raise LookupError(seq)
