"""The hashes of many lines and nodes at once (RFC 6962 2.1), by one call for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Final, Protocol

HASH_BYTES: Final = 32
HEX_BYTES: Final = 2 * HASH_BYTES
PAIR_BYTES: Final = 2 * HASH_BYTES

NODE: Final = b"\1"
"""What precedes the two hashes of an inner node when they are hashed, so that no leaf has the same hash."""

PREV: Final = b'"prev":"'
"""What precedes the hash that a line remembers of the one before it."""


@dataclass(frozen=True, slots=True)
class Lines:
    """
    What was read in some lines, one after the other.

    ``leaves`` are their hashes. ``prevs`` are the hashes that they remember, in hex: each of 64 bytes, or
    nothing at all where one of them has none.
    """

    leaves: bytes
    prevs: bytes


class Hashing(Protocol):
    """
    Who computes SHA-256 hashes, given as bytes one after the other.

    ``block_bytes`` is how much is best asked of it at a time. ``takes_turns`` tells that it is of no use to
    more than one thread of a process.
    """

    @property
    def block_bytes(self) -> int: ...

    @property
    def takes_turns(self) -> bool: ...

    def lines(self, data: bytearray, bounds: Sequence[int]) -> Lines:
        """Read the lines that begin right after the bounds; the last bound is where the last line ends."""

    def parents(self, nodes: bytes) -> bytes:
        """The hashes over all whole pairs of hashes."""


class OneByOne:
    """The standard library's hashes."""

    # It stays in the cache of a processor.
    block_bytes: Final = 96 * 1024
    takes_turns: Final = True

    def lines(self, data: bytearray, bounds: Sequence[int]) -> Lines:
        """Read the lines that begin right after the bounds."""
        view, looks, shapes = memoryview(data), data.startswith, dict[int, int]()
        leaves, prevs = list[bytes](), list[bytes | bytearray]()
        for start, end in pairwise(bounds):
            leaves.append(sha256(view[start:end]).digest())
            # Where it stands from the end is guessed by the length of the line: a wrong guess costs a search.
            at = end - shapes.get(end - start, 0)
            if not looks(PREV, at):
                at = data.rfind(PREV, start, end)
                if at < 0:
                    prevs.append(b"")
                    continue
                shapes[end - start] = end - at
            at += len(PREV)
            prevs.append(data[at : at + HEX_BYTES])
        told = b"".join(prevs)
        return Lines(b"".join(leaves), told if len(told) == HEX_BYTES * len(prevs) else b"")

    def parents(self, nodes: bytes) -> bytes:
        """The hashes over all whole pairs of hashes."""
        begin, made = sha256(NODE).copy, []
        for start in range(0, len(nodes) - HASH_BYTES, PAIR_BYTES):
            hashed = begin()
            hashed.update(nodes[start : start + PAIR_BYTES])
            made.append(hashed.digest())
        return b"".join(made)


ONE_BY_ONE: Final[Hashing] = OneByOne()
