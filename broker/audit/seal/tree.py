"""The hashes of the tree on disk, so that a proof takes a few reads however large the tree is."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from broker.audit.hashing import HASH_BYTES
from broker.audit.merkle import Added, Frontier, ProofRefused, split_of

FOLDER: Final = "tree"
"""The folder of what is derived from the record, and made anew when it is lost."""

_WRITE: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class TreeStore:
    """
    The hash of every full subtree: those over ``2**level`` leaves one after the other in ``tree/<level>``.

    All of it is derived from the record and not synced: what is read here shows nothing until it leads to
    a root that somebody signed. It may hold more than is sealed; that is overwritten. What is not there
    raises ``ProofRefused``, everything else ``OSError``.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory / FOLDER

    def put(self, added: Added) -> None:
        """Have what came into the tree, before which there are all others."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        for height, (first, nodes) in enumerate(added.levels):
            self._write(height, first, nodes)

    def frontier(self, size: int) -> Frontier:
        """The tree as it was when it had so many leaves, to be gone on with."""
        return Frontier(size, self._peaks(0, size))

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """
        The audit path of a leaf (RFC 6962 2.1.1) in the tree of ``size`` leaves, the hash beside it first.

        Raises ``IndexError`` when there is no such leaf.
        """
        if not 0 <= index < size:
            raise IndexError(f"there is no leaf {index} among {size}")
        path: list[bytes] = []
        first, end = 0, size
        while end - first > 1:
            middle = first + split_of(end - first)
            if index < middle:
                path.append(self._root(middle, end))
                end = middle
            else:
                path.append(self._root(first, middle))
                first = middle
        return path[::-1]

    def leaf(self, index: int) -> bytes:
        """The hash of a leaf."""
        return self._read(0, index)

    def _root(self, first: int, end: int) -> bytes:
        peaks = self._peaks(first, end)
        return Frontier(end - first, peaks).root()

    def _peaks(self, first: int, end: int) -> Sequence[bytes]:
        """The full subtrees that a part of the tree is made of, which begins where a larger one could."""
        peaks = []
        for level in reversed(range((end - first).bit_length())):
            if (end - first) >> level & 1:
                place = first + ((end - first) >> (level + 1) << (level + 1))
                peaks.append(self._read(level, place >> level))
        return peaks

    def _write(self, level: int, start: int, nodes: bytes) -> None:
        descriptor = os.open(self._path(level), _WRITE, 0o600)
        try:
            data, place = nodes, start * HASH_BYTES
            while data:
                written = os.pwrite(descriptor, data, place)
                data, place = data[written:], place + written
        finally:
            os.close(descriptor)

    def _read(self, level: int, index: int) -> bytes:
        try:
            descriptor = os.open(self._path(level), _READ)
        except FileNotFoundError:
            raise ProofRefused("the tree has been lost") from None
        try:
            found = os.pread(descriptor, HASH_BYTES, index * HASH_BYTES)
        finally:
            os.close(descriptor)
        if len(found) != HASH_BYTES:
            raise ProofRefused("a part of the tree has been lost")
        return found

    def _path(self, level: int) -> Path:
        return self.directory / f"{level:02d}"
