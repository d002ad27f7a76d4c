"""The anchor: the newest checkpoint where those who write the record cannot take it back unseen."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import structlog

from broker.audit.checkpoints import Checkpoint, CheckpointRefused
from broker.audit.notes import NoteKey, NoteRefused
from broker.audit.seal.keys import CheckpointSigner
from broker.audit.seal.listing import opened_note
from broker.audit.seal.store import CheckpointStore, Kept

_MEMBER: Final = "note"
_log = structlog.get_logger("broker.audit")


class AnchorDocument(Protocol):
    """
    One document, each version of which replaces the one before by check-and-set.

    Both methods raise ``TemporarilyUnavailable`` when whoever keeps it is away.
    """

    def read(self) -> tuple[Mapping[str, Any], int]:
        """Its members and its version; no members and 0 where there is none."""
        ...

    def write(self, members: Mapping[str, Any], *, over: int) -> bool:
        """Replace the version ``over``; tells whether these members are there now."""
        ...


class AnchorConflict(Exception):
    """
    What is anchored is no checkpoint of this record; the sentence says what it is.

    The record was rolled back, rewritten or replaced, or somebody else writes the document.
    """


class Anchor:
    """
    Keeps the newest checkpoint of one record in a document somewhere else. For one thread.

    What is there already is replaced only when it is a checkpoint of this record, on disk here, that the
    new one follows. ``anchored`` is what was seen there last.
    """

    def __init__(
        self, document: AnchorDocument, store: CheckpointStore, signer: CheckpointSigner
    ) -> None:
        self.anchored: Checkpoint | None = None
        self._document = document
        self._store = store
        self._signer = signer
        self._told = ""

    def step(self, last: Kept) -> None:
        """
        Have this checkpoint anchored, unless it is.

        Raises ``AnchorConflict``, which is told in the log once for each, ``TemporarilyUnavailable``,
        ``AuditLogRefused`` and ``OSError``.
        """
        if self.anchored == last.checkpoint and not self._told:
            return
        try:
            self._put(last)
        except AnchorConflict as conflict:
            if str(conflict) != self._told:
                _log.critical(
                    "audit_anchor_conflict", conflict=str(conflict), size=last.checkpoint.size
                )
            self._told = str(conflict)
            raise
        self._told = ""

    def _put(self, last: Kept) -> None:
        members, version = self._document.read()
        if version:
            found = anchored_checkpoint(members, self._signer.keys())
            self._check_ours(found, members, last)
            self.anchored = found
            if found == last.checkpoint:
                return
        if not self._document.write({_MEMBER: last.note}, over=version):
            raise AnchorConflict("somebody else has written the document at this moment")
        self.anchored = last.checkpoint

    def _check_ours(self, found: Checkpoint, members: Mapping[str, Any], last: Kept) -> None:
        if found in (self.anchored, last.checkpoint):
            return
        if found.size > last.checkpoint.size:
            raise AnchorConflict(
                f"the anchor tells of {found.size} records ({found.time}), "
                f"and the record has {last.checkpoint.size}"
            )
        if not self._store.holds(members[_MEMBER]):
            raise AnchorConflict(
                f"the checkpoint that is anchored, of {found.size} records ({found.time}), "
                "is none of this record's"
            )


def anchored_note(document: AnchorDocument) -> str | None:
    """The note that is anchored, whoever has signed it. Raises ``TemporarilyUnavailable``."""
    members, version = document.read()
    note = members.get(_MEMBER)
    return note if version and isinstance(note, str) else None


def anchored_checkpoint(members: Mapping[str, Any], keys: Sequence[NoteKey]) -> Checkpoint:
    """The checkpoint in a document. Raises ``AnchorConflict`` for anything else."""
    note = members.get(_MEMBER)
    if set(members) != {_MEMBER} or not isinstance(note, str):
        raise AnchorConflict("the document holds no checkpoint")
    try:
        return opened_note(note, keys)
    except (NoteRefused, CheckpointRefused) as refused:
        raise AnchorConflict(f"what is anchored is no checkpoint of ours: {refused}") from None
