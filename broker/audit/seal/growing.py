"""The tree while it grows, with the heads of the chains whose lines are its leaves."""

from dataclasses import dataclass, field

from broker.audit.chain import Head
from broker.audit.merkle import Frontier


@dataclass(slots=True)
class GrowingTree:
    """The tree and the heads of the chains that are in it; ``leaves`` are those that were added last."""

    frontier: Frontier = field(default_factory=Frontier)
    heads: dict[str, Head] = field(default_factory=dict)
    leaves: list[bytes] = field(default_factory=list)

    def grown(self) -> "GrowingTree":
        """A copy to add to, so that this one is still there when that comes to nothing."""
        return GrowingTree(Frontier(self.frontier.size, self.frontier.peaks), dict(self.heads))

    def head(self, writer: str) -> Head:
        """How far a chain is in the tree."""
        return self.heads.get(writer) or Head()

    def add(self, writer: str, seq: int, line_hash: str) -> None:
        """Put a line at the end."""
        leaf = bytes.fromhex(line_hash)
        self.frontier.append(leaf)
        self.leaves.append(leaf)
        self.heads[writer] = Head(seq + 1, line_hash)
