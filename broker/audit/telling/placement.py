"""Where a record stands in the tree that checkpoints are signed for."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from broker.audit.chain import Head
from broker.audit.checkpoints import Checkpoint
from broker.audit.notes import NoteKey, NoteRefused, open_note
from broker.audit.query import Extent
from broker.audit.record import Record
from broker.audit.seal.store import CheckpointStore
from broker.audit.telling.words import value


@dataclass(frozen=True, slots=True)
class Placement:
    """
    The first checkpoint over a record, and which leaf the record is of how many in its tree.

    ``time`` and ``digest`` are those of the checkpoint. Nothing here is proved: that takes the tree.
    """

    index: int
    size: int
    time: str
    digest: str

    def __str__(self) -> str:
        number = f"{self.index + 1:,} of {self.size:,}"
        return f"record {number} under the checkpoint of {self.time}"


def numbered(record: Record, extent: Extent) -> str:
    """
    Which record of its chain one is, of how many that are known, for people: they count from 1.

    ``seq``, which the record has in its line, counts from 0 and is told as well.
    """
    seq = record.seq
    known = max(extent.chains.get(record.writer, 0), seq + 1)
    return f"record {seq + 1:,} of {known:,} in chain {value(record.writer)} (seq {seq})"


class Seals:
    """
    The checkpoints of the record in a directory, as they were written; nobody's signature is looked at.

    Everything raises ``AuditLogRefused`` when they are damaged, and ``OSError``.
    """

    def __init__(self, directory: Path) -> None:
        self._store = CheckpointStore(directory)

    def placement(self, writer: str, seq: int) -> Placement | None:
        """Where a record stands, or ``None`` while no checkpoint is over it. Reads few of them."""
        found = self._store.first(lambda one: one.heads.get(writer, Head()).seq > seq)
        if found is None:
            return None
        before, kept = found
        known = [kept.checkpoint] if before is None else [before, kept.checkpoint]
        return placement_in(known, writer, seq)

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint."""
        last = self._store.last()
        return None if last is None else last.checkpoint

    def signed_by(self, keys: Sequence[NoteKey]) -> NoteKey | None:
        """Which of the keys has signed the newest checkpoint."""
        last = self._store.last()
        if last is None:
            return None
        for key in keys:
            with suppress(NoteRefused):
                open_note(last.note, [key])
                return key
        return None


def placement_in(checkpoints: Iterable[Checkpoint], writer: str, seq: int) -> Placement | None:
    """
    Where a record stands by the checkpoints of its log, in their order.

    What came since the checkpoint before stands after all that is in it, chain by chain in the order of the
    writers' names. It may begin with any checkpoint that is not yet over the record, or with the first.
    """
    before: Checkpoint | None = None
    for checkpoint in checkpoints:
        head = checkpoint.heads.get(writer)
        if head is not None and head.seq > seq:
            index = _index(checkpoint, before, writer, seq)
            return Placement(index, checkpoint.size, checkpoint.time, checkpoint.digest)
        before = checkpoint
    return None


def _index(checkpoint: Checkpoint, before: Checkpoint | None, writer: str, seq: int) -> int:
    known = {} if before is None else before.heads
    begins = {name: known[name].seq if name in known else 0 for name in checkpoint.heads}
    earlier = [head.seq - begins[name] for name, head in checkpoint.heads.items() if name < writer]
    return (0 if before is None else before.size) + sum(earlier) + seq - begins[writer]
