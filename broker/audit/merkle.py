"""Merkle trees over records (RFC 6962 2.1): one hash stands for all of them, and a short proof for one."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from broker.audit.chain import LEAF
from broker.audit.hashing import HASH_BYTES, NODE, ONE_BY_ONE, Hashing

LONGEST_PROOF: Final = 63
"""No proof has more hashes: a tree has less than 2^63 leaves."""

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""


class ProofRefused(ValueError):
    """A proof shows nothing: its length, a hash in it or the place it tells cannot be right."""


def leaf_hash(content: bytes) -> bytes:
    """The hash of a leaf, which no inner node can have."""
    return hashlib.sha256(LEAF + content).digest()


class Frontier:
    """
    A tree that only grows, of which the least is remembered that its root and its growth take.

    ``size`` is the number of leaves. One that was left goes on from its size and ``peaks``; raises
    ``ProofRefused`` for such that do not go together.
    """

    __slots__ = ("_hashing", "_peaks", "size")

    def __init__(
        self, size: int = 0, peaks: Sequence[bytes] = (), *, hashing: Hashing = ONE_BY_ONE
    ) -> None:
        _check_hashes(peaks)
        if len(peaks) != size.bit_count():
            raise ProofRefused("a tree has one peak for each binary digit 1 of its size")
        self.size = size
        self._hashing = hashing
        # Each binary digit 1 of the size is a full subtree of that height.
        self._peaks = dict(zip(_heights(size), peaks, strict=True))

    @property
    def peaks(self) -> Sequence[bytes]:
        """The hashes of its full subtrees, the largest first; with the size they are all of it."""
        return tuple(self._peaks[height] for height in _heights(self.size))

    def extend(self, leaves: bytes) -> "Added":
        """Add the hashes of leaves at the end, one after the other; about one hash is made for each."""
        added = Added(self.size, leaves, dict(self._peaks), self._hashing)
        self.size = added.size
        self._peaks = dict(zip(_heights(self.size), added.peaks(self.size), strict=True))
        return added

    def root(self) -> bytes:
        """The hash of the tree as it is now."""
        return _root(self.peaks)


class Added:
    """
    What came into a tree at once.

    ``size`` is that of the tree then. ``levels`` are the new full subtrees by their height: the place of the
    first among those of its height, and their hashes one after the other. The first may be an old one.
    """

    __slots__ = ("_before", "_old_peaks", "levels", "size")

    def __init__(
        self, before: int, leaves: bytes, old_peaks: Mapping[int, bytes], hashing: Hashing
    ) -> None:
        self.size = before + len(leaves) // HASH_BYTES
        self.levels: list[tuple[int, bytes]] = []
        self._before = before
        self._old_peaks = old_peaks
        first, nodes = before, leaves
        while nodes:
            if first & 1:
                # A full subtree that waited for its neighbour has found it.
                first, nodes = first - 1, old_peaks[len(self.levels)] + nodes
            self.levels.append((first, nodes))
            first, nodes = first >> 1, hashing.parents(nodes)

    def peaks(self, size: int) -> Sequence[bytes]:
        """The hashes of the full subtrees that the tree had at a size on the way, the largest first."""
        if not self._before <= size <= self.size:
            raise IndexError(f"the tree did not have {size} leaves on the way")
        return [self._peak(size, height) for height in _heights(size)]

    def root(self, size: int) -> bytes:
        """The hash of the tree when it had that size on the way."""
        return _root(self.peaks(size))

    def _peak(self, size: int, height: int) -> bytes:
        if height >= len(self.levels):
            return self._old_peaks[height]
        first, nodes = self.levels[height]
        # The last subtree of its height without a neighbour has an even place.
        start = ((size >> (height + 1) << 1) - first) * HASH_BYTES
        return nodes[start : start + HASH_BYTES]


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root of the tree with these hashes of leaves."""
    frontier = Frontier()
    frontier.extend(b"".join(leaves))
    return frontier.root()


def root_by_inclusion(leaf: bytes, *, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """
    The root of the tree of ``size`` leaves that has ``leaf`` at ``index``, by the path beside it.

    Whoever knows the root by other means compares. Raises ``ProofRefused`` for a path that is none.
    """
    if not 0 <= index < size:
        raise ProofRefused("the leaf is not in the tree")
    _check_hashes([leaf, *path])
    node = leaf
    for beside, is_left in _climb(index, size - 1, path):
        node = node_hash(beside, node) if is_left else node_hash(node, beside)
    return node


def _climb(index: int, last: int, path: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """
    Each hash of a path from a node to the root, and whether it stands on the left.

    ``index`` is the place of the node among those of its height, and ``last`` that of the last of them.
    Raises ``ProofRefused`` when the path does not end at the root.
    """
    for beside in path:
        if last == 0:
            raise ProofRefused("the path is too long")
        is_left = bool(index & 1) or index == last
        yield beside, is_left
        # A subtree on the right edge that is not full has no neighbour at these heights.
        while is_left and index and not index & 1:
            index, last = index >> 1, last >> 1
        index, last = index >> 1, last >> 1
    if last:
        raise ProofRefused("the path is too short")


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash over two subtrees, which no leaf can have."""
    return hashlib.sha256(NODE + left + right).digest()


def _heights(size: int) -> Sequence[int]:
    """The binary digits 1 of a size, the largest first."""
    return [height for height in reversed(range(size.bit_length())) if size >> height & 1]


def _root(peaks: Sequence[bytes]) -> bytes:
    """The hash of a tree by its full subtrees."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def split_of(size: int) -> int:
    """The largest power of two below a size of at least two: how many leaves the left subtree has."""
    return 1 << (size - 1).bit_length() - 1


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if len(hashes) > LONGEST_PROOF + 2 or any(len(one) != HASH_BYTES for one in hashes):
        raise ProofRefused("it is not made of SHA-256 hashes")
