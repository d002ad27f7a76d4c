"""Where a record stands in the tree that checkpoints are signed for."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from broker.audit.checkpoints import Checkpoint


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
        return f"sealed in the checkpoint of {self.time}, leaf {self.index} of {self.size}"


class Seals(Protocol):
    """The checkpoints of a log, as they were written."""

    def placement(self, writer: str, seq: int, /) -> Placement | None:
        """Where a record stands, or ``None`` while no checkpoint is over it. Raises ``OSError``."""
        ...

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint. Raises ``OSError``."""
        ...


class Unsealed:
    """A log without checkpoints."""

    def placement(self, _writer: str, _seq: int, /) -> Placement | None:
        return None

    def latest(self) -> Checkpoint | None:
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
