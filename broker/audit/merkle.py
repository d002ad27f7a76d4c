"""Merkle trees over records (RFC 6962 2.1): one hash stands for all of them, and a short proof for one."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

from broker.audit.chain import LEAF

HASH_BYTES: Final = 32
LONGEST_PROOF: Final = 63
"""No proof has more hashes: a tree has less than 2^63 leaves."""

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""

_NODE: Final = b"\1"


class ProofRefused(ValueError):
    """A proof shows nothing: its length, a hash in it or the place it tells cannot be right."""


def leaf_hash(content: bytes) -> bytes:
    """The hash of a leaf, which no inner node can have."""
    return hashlib.sha256(LEAF + content).digest()


class Frontier:
    """
    A tree that only grows, of which the least is remembered that its root and its growth take.

    ``size`` is the number of leaves. An append costs about two hashes. One that was left goes on from its
    size and ``peaks``; raises ``ProofRefused`` for such that do not go together.
    """

    __slots__ = ("_peaks", "size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        _check_hashes(peaks)
        if len(peaks) != size.bit_count():
            raise ProofRefused("a tree has one peak for each binary digit 1 of its size")
        self.size = size
        self._peaks = list(peaks)

    @property
    def peaks(self) -> Sequence[bytes]:
        """The hashes of its full subtrees, the largest first; with the size they are all of it."""
        return tuple(self._peaks)

    def append(self, leaf: bytes) -> None:
        """Add the hash of a leaf at the end."""
        # Each binary digit 1 of the size is a full subtree; a carry joins two of one height.
        node, size = leaf, self.size
        while size & 1:
            node = node_hash(self._peaks.pop(), node)
            size >>= 1
        self._peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """The hash of the tree as it is now."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root of the tree with these hashes of leaves."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """
    The audit path of one leaf (RFC 6962 2.1.1), the hash beside the leaf first.

    ``leaves`` are the hashes of all leaves. Raises ``IndexError`` when there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"there is no leaf {index} among {len(leaves)}")
    path: list[bytes] = []
    first, end = 0, len(leaves)
    while end - first > 1:
        middle = first + split_of(end - first)
        if index < middle:
            path.append(root_of(leaves[middle:end]))
            end = middle
        else:
            path.append(root_of(leaves[first:middle]))
            first = middle
    return path[::-1]


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


def consistency_proof(leaves: Sequence[bytes], before: int) -> list[bytes]:
    """
    What shows that the tree of the first ``before`` leaves became this one by growing (RFC 6962 2.1.2).

    Raises ``IndexError`` for a size that the tree did not have.
    """
    if not 0 < before <= len(leaves):
        raise IndexError(f"a tree of {len(leaves)} leaves did not grow from {before}")
    path: list[bytes] = []
    first, end, is_known = 0, len(leaves), True
    while before != end:
        middle = first + split_of(end - first)
        if before <= middle:
            path.append(root_of(leaves[middle:end]))
            end = middle
        else:
            path.append(root_of(leaves[first:middle]))
            first, is_known = middle, False
    if not is_known:
        path.append(root_of(leaves[first:end]))
    return path[::-1]


def check_growth(
    before: tuple[int, bytes], after: tuple[int, bytes], *, path: Sequence[bytes]
) -> None:
    """Raise ``ProofRefused`` unless the tree of one size and root grew into that of the other."""
    (old_size, old_root), (size, root) = before, after
    if not 0 < old_size <= size:
        raise ProofRefused("a tree does not shrink")
    _check_hashes([old_root, root, *path])
    old_node, node = (root, root) if old_size == size else _grown(old_size, size, old_root, path)
    if (old_node, node) != (old_root, root) or (old_size == size and path):
        raise ProofRefused("the one tree did not grow from the other")


def _grown(old_size: int, size: int, old_root: bytes, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The roots of the smaller and of the larger tree that a path leads to."""
    index, last = old_size - 1, size - 1
    while index & 1:
        index, last = index >> 1, last >> 1
    # What the one tree has as a full subtree of the other is known, and not in the path.
    hashes = list(path) if index else [old_root, *path]
    if not hashes:
        raise ProofRefused("the path is too short")
    old_node = node = hashes[0]
    for beside, is_left in _climb(index, last, hashes[1:]):
        if is_left:
            old_node = node_hash(beside, old_node)
        node = node_hash(beside, node) if is_left else node_hash(node, beside)
    return old_node, node


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
    return hashlib.sha256(_NODE + left + right).digest()


def split_of(size: int) -> int:
    """The largest power of two below a size of at least two: how many leaves the left subtree has."""
    return 1 << (size - 1).bit_length() - 1


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if len(hashes) > LONGEST_PROOF + 2 or any(len(one) != HASH_BYTES for one in hashes):
        raise ProofRefused("it is not made of SHA-256 hashes")
