"""A proof that stands alone: one record, and what shows that it was in a log when that was sealed."""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from broker.audit.chain import MAX_LINE_BYTES, Head, Link, decode_link
from broker.audit.checkpoints import Checkpoint, CheckpointRefused
from broker.audit.merkle import LONGEST_PROOF, ProofRefused, leaf_hash, root_by_inclusion
from broker.audit.notes import LARGEST_NOTE, NoteKey, NoteRefused
from broker.audit.seal.listing import opened_note

FORMAT: Final = "c2sp.org/tlog-proof@v1"
"""The first line of every proof."""

LARGEST_PROOF: Final = 2 * MAX_LINE_BYTES + LARGEST_NOTE + (LONGEST_PROOF + 3) * 64
"""No proof is longer, in bytes."""

NOT_PROVED: Final = (
    "that what the record says is true",
    "that its token reached whoever asked: the answer came after the record, and may have been a refusal",
    "that there is no other record of the same",
    "that it is that number of that chain: both are its own word",
    "that everybody was shown the same log: that takes checkpoints kept by others",
)
"""What no proof of one record shows."""

_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True)
class Proved:
    """
    What a proof has shown: the record, and the checkpoint that seals it.

    Its number and its chain, in ``link``, are what the record says of itself.
    """

    record: bytes
    link: Link
    checkpoint: Checkpoint

    @property
    def sentence(self) -> str:
        """The same in one sentence."""
        return (
            f"this record was in the audit log {self.checkpoint.origin}, word for word, when the log was "
            f"sealed at {self.checkpoint.time}. It calls itself record {self.link.seq + 1} of the chain "
            f"{self.link.writer}"
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """
    A record, its place in the tree, the hashes beside the way to the root, and the signed checkpoint.

    ``record`` is its line without the newline, ``path`` begins beside the leaf, ``note`` is the checkpoint
    with its signatures. Nothing of it is verified before ``verify``.
    """

    record: bytes
    index: int
    path: Sequence[bytes]
    note: str

    @property
    def text(self) -> str:
        """
        The proof as it is handed on (C2SP tlog-proof), with the record itself as what is extra in it.

        ``FORMAT``, ``extra`` with the line and ``index`` with the place, then the hashes, an empty line and
        the note. The line and the hashes are in base64.
        """
        lines = [
            FORMAT,
            f"extra {base64.b64encode(self.record).decode()}",
            f"index {self.index}",
            *(base64.b64encode(one).decode() for one in self.path),
        ]
        return "\n".join(lines) + f"\n\n{self.note}"

    @classmethod
    def read(cls, text: str) -> "Proof":
        """The proof in a text, which can be written in one way alone. Raises ``ProofRefused``."""
        if len(text) > LARGEST_PROOF:
            raise ProofRefused("it is too large")
        # The first empty line is the end of what is not the note, which has one of its own.
        head, between, note = text.partition("\n\n")
        form, extra, index, *path = [*head.split("\n"), "", ""]
        placed = _INDEX.fullmatch(index)
        if form != FORMAT or not extra.startswith("extra ") or placed is None or not between:
            raise ProofRefused(
                f"it is no text that begins with {FORMAT} and has a record and its place"
            )
        if len(path) > LONGEST_PROOF + 2:
            raise ProofRefused("it has too many hashes")
        hashes = tuple(map(_decoded, path[:-2]))
        found = cls(_decoded(extra.removeprefix("extra ")), int(placed[1]), hashes, note)
        if found.text != text:
            raise ProofRefused("it is not written as it should be")
        return found

    def verify(self, keys: Sequence[NoteKey]) -> Proved:
        """
        What the proof shows to somebody who knows one of ``keys`` to be the log's.

        Raises ``ProofRefused``.
        """
        try:
            checkpoint = opened_note(self.note, keys)
        except (NoteRefused, CheckpointRefused) as refused:
            raise ProofRefused(f"its checkpoint is refused: {refused}") from None
        root = root_by_inclusion(
            leaf_hash(self.record), index=self.index, size=checkpoint.size, path=self.path
        )
        if root != checkpoint.root:
            raise ProofRefused("the record is not in the log that the checkpoint seals")
        link = decode_link(self.record)
        if link is None or not 0 <= link.seq < checkpoint.heads.get(link.writer, Head()).seq:
            raise ProofRefused("what is proved to be there is no record of a chain that is sealed")
        return Proved(self.record, link, checkpoint)


def _decoded(line: str) -> bytes:
    try:
        return base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        raise ProofRefused("a line is not in base64") from None
