"""Checkpoints (C2SP tlog-checkpoint): what all chains of a directory were at a moment, in a few lines."""

import base64
import binascii
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from broker.audit.chain import GENESIS, Head
from broker.audit.hashing import HASH_BYTES
from broker.audit.segments import WRITER

MOST_CHAINS: Final = 512
"""How many writers one directory has at most."""

_MOST_CHAIN_BYTES: Final = 60 * 1024
_BYTES_BESIDE_NAME: Final = len("chain") + 18 + 64 + 4

_ORIGIN: Final = re.compile(r"[!-~]{1,256}")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,17}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{6})?Z")


def has_room(writers: Collection[str], writer: str) -> bool:
    """Whether a checkpoint over the chains of these writers can take another one, however long they grow."""
    if len(writers) >= MOST_CHAINS:
        return False
    return sum(_BYTES_BESIDE_NAME + len(name) for name in (*writers, writer)) <= _MOST_CHAIN_BYTES


class CheckpointRefused(ValueError):
    """A text is no checkpoint; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """
    The state of a log that is one Merkle tree over the records of several chains.

    The leaves are the lines of the records. Those that came since the checkpoint before stand after all
    earlier ones, chain by chain in the order of the writers' names. ``heads`` tell for each chain how many
    of its records are in the tree and the hash of the last of them; ``size`` is their sum. ``previous`` is
    the ``digest`` of the checkpoint before, and sixty-four zeros in the first. ``time`` is RFC 3339 in UTC.
    Raises ``CheckpointRefused`` for what cannot be.
    """

    origin: str
    root: bytes
    heads: Mapping[str, Head]
    time: str
    previous: str = GENESIS

    def __post_init__(self) -> None:
        _check(_ORIGIN.fullmatch(self.origin), "its origin is not one printable word")
        _check(len(self.root) == HASH_BYTES, "its root is no SHA-256 hash")
        _check(len(self.heads) <= MOST_CHAINS, "it has too many chains")
        _check(_TIME.fullmatch(self.time), "its time is not RFC 3339 in UTC")
        _check(_HASH.fullmatch(self.previous), "what it follows is no SHA-256 hash")
        for writer, head in self.heads.items():
            _check(WRITER.fullmatch(writer), "a writer has a name that none can have")
            _check(head.seq > 0 and _HASH.fullmatch(head.prev), "a chain is empty or has no head")

    @property
    def size(self) -> int:
        """The number of records in the tree."""
        return sum(head.seq for head in self.heads.values())

    @property
    def text(self) -> str:
        """The checkpoint as it is signed."""
        lines = [
            self.origin,
            str(self.size),
            base64.b64encode(self.root).decode(),
            f"time {self.time}",
            f"previous {self.previous}",
            *(f"chain {name} {head.seq} {head.prev}" for name, head in sorted(self.heads.items())),
        ]
        return "".join(f"{line}\n" for line in lines)

    @property
    def digest(self) -> str:
        """What the next checkpoint tells of this one: the SHA-256 of its text, in hex."""
        return sha256(self.text.encode()).hexdigest()

    @classmethod
    def read(cls, text: str) -> "Checkpoint":
        """The checkpoint in a text, which can be written in one way alone. Raises ``CheckpointRefused``."""
        lines = text.split("\n")
        _check(6 <= len(lines) <= 6 + MOST_CHAINS, "it has too few lines, or too many")
        origin, _, root, time, previous, *chains, _ = lines
        found = cls(
            origin=origin,
            root=_root(root),
            heads=dict(map(_chain, chains)),
            time=time.removeprefix("time "),
            previous=previous.removeprefix("previous "),
        )
        # Its size is told and follows from its chains, which have one order.
        _check(found.text == text, "its lines do not fit together")
        return found


def _root(line: str) -> bytes:
    try:
        return base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        raise CheckpointRefused("its root is not in base64") from None


def _chain(line: str) -> tuple[str, Head]:
    kind, writer, count, head = (line.split(" ") + [""] * 4)[:4]
    _check(kind == "chain" and _NUMBER.fullmatch(count), "a line is none of a chain")
    return writer, Head(int(count), head)


def _check(is_right: object, sentence: str) -> None:
    if not is_right:
        raise CheckpointRefused(sentence)
