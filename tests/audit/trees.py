"""RFC 6962 2.1 by its own words, recursively: what our trees are held against."""

import hashlib
from collections.abc import Sequence


def root_as_defined(leaves: Sequence[bytes]) -> bytes:
    """MTH, over hashes of leaves."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = _split(len(leaves))
    left, right = root_as_defined(leaves[:k]), root_as_defined(leaves[k:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def path_as_defined(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH, over hashes of leaves."""
    if len(leaves) == 1:
        return []
    k = _split(len(leaves))
    if index < k:
        return [*path_as_defined(index, leaves[:k]), root_as_defined(leaves[k:])]
    return [*path_as_defined(index - k, leaves[k:]), root_as_defined(leaves[:k])]


def _split(size: int) -> int:
    k = 1
    while k * 2 < size:
        k *= 2
    return k
