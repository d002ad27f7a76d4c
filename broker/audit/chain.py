"""The hash chain: how records become lines that each remember the line before."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import Struct

from broker.audit.record import Record

GENESIS: Final = "0" * 64
"""What the first record of a chain has for the hash of the line before it."""

LEAF: Final = b"\0"
"""What precedes the content of a leaf when it is hashed, so that no inner node has the same hash."""

MAX_LINE_BYTES: Final = 256 * 1024
"""No line is longer, its end included."""

# The members of a record are declared in order, so that only what is in its objects has to be put in order.
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7e]+")
_LISTS: Final = (
    "actors",
    "inputs",
    "key_changes",
    "policy_ids",
    "scope_decisions",
    "scopes_asked",
    "scopes_granted",
    "targets_asked",
)


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain goes on: the number of its next record and the hash of its last line."""

    seq: int = 0
    prev: str = GENESIS


class Link(Struct, gc=False):
    """
    What the chain needs of a line, and what tells whether a group is whole.

    All other members are passed over.

    So the lines of an older or newer version, with other members, still verify.
    """

    v: int
    event: str
    time: str
    writer: str
    seq: int
    prev: str
    torn_bytes: int = 0
    group: str = ""
    group_number: int = 0
    group_size: int = 0

    @property
    def is_followed(self) -> bool:
        """Whether the next record of the chain belongs to the same group, if that was written whole."""
        return self.group != "" and self.group_number < self.group_size


LINK_DECODER: Final = msgspec.json.Decoder(Link)
NOT_A_LINK: Final = (ValueError, RecursionError)
"""What the decoder raises for a line that is no record."""


def decode_link(line: bytes) -> Link | None:
    """The line's place in its chain, or ``None`` when it has none."""
    try:
        return LINK_DECODER.decode(line)
    except NOT_A_LINK:
        return None


def line_hash(line: bytes) -> str:
    """
    The hash of a line without its newline, in hex: that of a leaf in a Merkle tree (RFC 6962 2.1).

    So what the next line remembers of this one is also its place in the tree over all chains, and
    whoever verifies both hashes it once.
    """
    return hashlib.sha256(LEAF + line).hexdigest()


def encode(record: Record) -> bytes:
    """
    The canonical line of a record, without its newline: JSON in ASCII, members sorted, no blanks.

    The bytes are the record: what hashes them, now or later, needs to know nothing else. A record
    too long for a line gives up its lists and says so.
    """
    line = _ENCODER.encode(record)
    if not line.isascii():
        line = _ascii(line)
    if len(line) < MAX_LINE_BYTES:
        return line
    shorter = msgspec.structs.replace(record, **dict.fromkeys(_LISTS))
    shorter.detail = f"[cut, lists left out of {len(line)} bytes]"
    return _ascii(_ENCODER.encode(shorter))


def link(records: Iterable[Record], head: Head, *, writer: str) -> tuple[bytes, Head]:
    """
    The lines of the records, each linked to the one before it, and where the chain goes on.

    The records are given their place in the chain.
    """
    seq, prev = head.seq, head.prev
    lines = []
    for record in records:
        record.writer, record.seq, record.prev = writer, seq, prev
        line = encode(record)
        lines.append(line)
        seq, prev = seq + 1, line_hash(line)
    lines.append(b"")
    return b"\n".join(lines), Head(seq, prev)


def _ascii(line: bytes) -> bytes:
    """
    The same JSON with everything beyond ASCII escaped (RFC 8259 7).

    Such characters stand only inside strings, so they can be replaced wherever they are.
    """
    text = _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], line.decode())
    return text.encode("ascii")
