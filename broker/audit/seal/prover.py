"""Proofs that a record is in the tree under the newest signed checkpoint."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.audit.chain import Head, decode_link
from broker.audit.checkpoints import Checkpoint
from broker.audit.diagnosis import Fault, Place, Wrong
from broker.audit.merkle import ProofRefused, leaf_hash, root_by_inclusion
from broker.audit.notes import NoteKey, open_note
from broker.audit.seal.integrity import NotSealed, Unproved
from broker.audit.seal.lines import first_line
from broker.audit.seal.proof import Proof
from broker.audit.seal.resume import Resumption
from broker.audit.seal.store import CheckpointStore, Kept
from broker.audit.seal.tree import TreeStore
from broker.audit.seal.watched import Chains
from broker.audit.segments import AuditLogRefused, find_segments, newlines, regular
from broker.audit.verify import Extent, chain_extents

_NO_RECORD: Final = "the line is no record"


@dataclass(frozen=True, slots=True)
class _Line:
    """A line without its newline, and where it begins in bytes; nothing stands at the end of a file."""

    path: Path
    offset: int
    content: bytes

    def is_of(self, writer: str, seq: int) -> bool:
        """Whether it is the record of a writer with a number."""
        link = decode_link(self.content)
        return link is not None and (link.writer, link.seq) == (writer, seq)


class Prover:
    """
    Finds and checks the proof of a record, by few reads however many there are.

    ``keys`` gives those that the checkpoint has to be signed with one of; with none of them nobody's
    signature is looked at. Hashes of the tree that are lost or wrong are made again from the record, once.
    May be used by any thread.
    """

    def __init__(self, directory: Path, keys: Callable[[], Sequence[NoteKey]] = tuple) -> None:
        self._directory = directory
        self._keys = keys
        self._store = CheckpointStore(directory)
        self._hashes = TreeStore(directory)
        self._turn = threading.Lock()
        self._made_for = ""
        self._faults: Mapping[str, Fault] = {}

    def proof(self, writer: str, seq: int) -> Proof:
        """
        The record of a chain, and what shows that it is in the newest checkpoint.

        Raises ``NotSealed``, ``NoteRefused``, other ``AuditLogRefused`` when what is on disk does not prove
        it (``Unproved`` where one line is to blame), and ``OSError``.
        """
        found = self._first(writer, seq)
        last = self._store.last() or found[1]
        if keys := self._keys():
            open_note(last.note, keys)
        line = self._line(writer, seq)
        index = _index(found[0], found[1].checkpoint, writer, seq)
        with self._turn:
            path = self._path(writer, line, index, last)
        return Proof(line.content, index, path, last.note)

    def prove(self, writer: str, seq: int) -> str:
        """The text of a proof; raises as ``proof`` does."""
        return self.proof(writer, seq).text

    def first_over(self, writer: str, seq: int) -> Checkpoint:
        """The first checkpoint that a record is in; raises as ``prove`` does."""
        return self._first(writer, seq)[1].checkpoint

    def _first(self, writer: str, seq: int) -> tuple[Checkpoint | None, Kept]:
        """The first checkpoint that a record is in, after the one before it."""
        found = self._store.first(lambda one: _count(one, writer) > seq) if seq >= 0 else None
        if found is None:
            raise NotSealed(f"the record of {writer} with seq {seq} is in no checkpoint yet")
        return found

    def _path(self, writer: str, line: _Line, index: int, last: Kept) -> Sequence[bytes]:
        leaf = leaf_hash(line.content)
        try:
            return self._checked(leaf, index, last)
        except ProofRefused as refused:
            if self._made_for == last.checkpoint.digest:
                raise self._refusal(writer, line, index, last, refused) from None
            self._make_again()
            self._made_for = last.checkpoint.digest
        try:
            return self._checked(leaf, index, last)
        except ProofRefused as refused:
            raise self._refusal(writer, line, index, last, refused) from None

    def _refusal(
        self, writer: str, line: _Line, index: int, last: Kept, refused: ProofRefused
    ) -> AuditLogRefused:
        """Why there is no path: the line is not what was sealed, or the tree was lost and not made again."""
        sentence = f"the record is not the one that was sealed: {refused}"
        try:
            self._checked(self._hashes.leaf(index), index, last)
        except ProofRefused:
            # It may be any line, and those that read the record again know the first that does not fit.
            known = [self._faults[writer]] if writer in self._faults else self._faults.values()
            fault = next(iter(known), None)
            return AuditLogRefused(sentence) if fault is None else Unproved(fault)
        return _unproved(line.path, line.offset, Wrong.CHANGED, sentence)

    def _checked(self, leaf: bytes, index: int, last: Kept) -> Sequence[bytes]:
        size = last.checkpoint.size
        path = self._hashes.inclusion_proof(index, size)
        if root_by_inclusion(leaf, index=index, size=size, path=path) != last.checkpoint.root:
            raise ProofRefused("the path does not lead to the root that was signed")
        return path

    def _make_again(self) -> None:
        chains = Chains(self._directory, now=time.time)
        state = self._hashes.directory / "state.json"
        Resumption(self._store, self._hashes, chains, state=state, origin="").make_again()
        self._faults = chains.faults

    def _line(self, writer: str, seq: int) -> _Line:
        """The line of a record. Whatever stands in its place is named; of a file that is gone nothing is."""
        gone = f"the record of {writer} with seq {seq} was sealed and is gone"
        unread: Path | None = None
        for extent in reversed(chain_extents(find_segments(self._directory).get(writer, {}))):
            opening = decode_link(next(extent.lines(), b"")[:-1])
            if opening is None:
                unread = extent.path
            elif opening.seq <= seq:
                line = _first_from(extent, seq)
                if line.is_of(writer, seq):
                    return line
                if unread is None or line.content:
                    raise _unproved(line.path, line.offset, Wrong.MISSING, gone)
                break
        if unread is not None:
            raise _unproved(unread, 0, Wrong.FOREIGN, _NO_RECORD)
        raise AuditLogRefused(gone)


def _first_from(extent: Extent, seq: int) -> _Line:
    """The first line of a segment whose number is not below, or its end where there is none."""
    with open(extent.path, "rb", opener=regular) as file:

        def is_there(line: bytes) -> bool:
            link = decode_link(line[:-1])
            if link is None:
                raise _unproved(extent.path, file.tell() - len(line), Wrong.FOREIGN, _NO_RECORD)
            return link.seq >= seq

        offset, line = first_line(file, extent.size, is_there)
    return _Line(extent.path, offset, line[:-1])


def _unproved(path: Path, offset: int, wrong: Wrong, sentence: str) -> Unproved:
    """What is wrong at a byte of a file, told by the line that begins there."""
    with open(path, "rb", opener=regular) as file:
        place = Place(path, newlines(file, 0, offset) + 1)
    return Unproved(Fault(place, wrong, sentence))


def _count(checkpoint: Checkpoint, writer: str) -> int:
    return checkpoint.heads.get(writer, Head()).seq


def _index(before: Checkpoint | None, sealed: Checkpoint, writer: str, seq: int) -> int:
    """The place of a record in the tree, by the checkpoint that sealed it and the one before."""
    index = 0 if before is None else before.size
    for name, head in sorted(sealed.heads.items()):
        earlier = 0 if before is None else _count(before, name)
        if name == writer:
            return index + seq - earlier
        index += head.seq - earlier
    raise NotSealed(f"{writer} has no chain")
