"""A Merkle tree that grows by many leaves at once."""

from hashlib import sha256
from typing import Final

from broker.audit.merkle import EMPTY_ROOT, HASH_BYTES

_PAIR: Final = 2 * HASH_BYTES
_NODE: Final = sha256(b"\1")


class Growth:
    """
    The same tree as ``Frontier``, level by level: about one hash for each leaf.

    ``size`` is the number of leaves; what is kept is one hash for each of its binary digits.
    """

    __slots__ = ("_peaks", "size")

    def __init__(self) -> None:
        self.size = 0
        self._peaks: dict[int, bytes] = {}

    def extend(self, leaves: bytes) -> None:
        """Add the hashes of leaves, one after the other, at the end."""
        level, nodes = 0, leaves
        self.size += len(leaves) // HASH_BYTES
        while nodes:
            # A full subtree that waited for its neighbour has found it.
            nodes = self._peaks.pop(level, b"") + nodes
            if len(nodes) % _PAIR:
                self._peaks[level] = nodes[-HASH_BYTES:]
            nodes = _parents(nodes)
            level += 1

    def root(self) -> bytes:
        """The hash of the tree as it is now."""
        root = b""
        for level in sorted(self._peaks):
            peak = self._peaks[level]
            root = _parents(peak + root) if root else peak
        return root or EMPTY_ROOT


def _parents(nodes: bytes) -> bytes:
    """The hashes of all whole pairs."""
    copy = _NODE.copy
    made = []
    for start in range(0, len(nodes) - HASH_BYTES, _PAIR):
        hashed = copy()
        hashed.update(nodes[start : start + _PAIR])
        made.append(hashed.digest())
    return b"".join(made)
