"""The tree while it grows, with the heads of the chains whose lines are its leaves."""

from dataclasses import dataclass, field

from broker.audit.chain import Head
from broker.audit.merkle import Added, Frontier


@dataclass(slots=True)
class GrowingTree:
    """The tree, the heads of the chains that are in it, and ``waiting``, the leaves that it will grow by."""

    frontier: Frontier = field(default_factory=Frontier)
    heads: dict[str, Head] = field(default_factory=dict)
    waiting: bytearray = field(default_factory=bytearray)

    def copied(self) -> "GrowingTree":
        """A copy to add to, so that this one is still there when that comes to nothing."""
        return GrowingTree(Frontier(self.frontier.size, self.frontier.peaks), dict(self.heads))

    def head(self, writer: str) -> Head:
        """How far a chain is in the tree, with the leaves that wait."""
        return self.heads.get(writer) or Head()

    def add(self, writer: str, seq: int, line_hash: str) -> None:
        """Have a line wait at the end."""
        self.waiting += bytes.fromhex(line_hash)
        self.heads[writer] = Head(seq + 1, line_hash)

    def grow(self) -> Added:
        """Take in what waits."""
        added = self.frontier.extend(bytes(self.waiting))
        self.waiting.clear()
        return added
