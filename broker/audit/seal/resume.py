"""Where the sealer goes on: from the last checkpoint, and from nothing that does not lead to it."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog

from broker.audit.checkpoints import Checkpoint
from broker.audit.merkle import Frontier, ProofRefused
from broker.audit.notes import NoteKey, NoteRefused, open_note
from broker.audit.seal.growing import GrowingTree
from broker.audit.seal.state import SealedState, read_state
from broker.audit.seal.store import CheckpointsDamaged, CheckpointStore, Kept
from broker.audit.seal.tree import TreeStore
from broker.audit.seal.watched import Chains
from broker.audit.segments import AuditLogRefused

_log = structlog.get_logger("broker.audit")


class SealingRefused(AuditLogRefused):
    """What was sealed cannot be gone on from; the sentence tells the operator why."""


class Resumption:
    """
    Finds what there is of one record: the last checkpoint, its key, and the tree under it.

    The last checkpoint has to be signed by one of our keys, and what was remembered of the tree has to come
    to its root. Where it does not, the record is read again in the order of the checkpoints.
    """

    def __init__(
        self, store: CheckpointStore, hashes: TreeStore, chains: Chains, *, state: Path, origin: str
    ) -> None:
        self._store = store
        self._hashes = hashes
        self._chains = chains
        self._state = state
        self._origin = origin

    def resume(self, keys: Sequence[NoteKey]) -> tuple[Kept | None, NoteKey | None, GrowingTree]:
        """
        The last checkpoint, who signed it, and the tree to go on with; chains with a fault are told.

        Raises ``SealingRefused``, ``CheckpointsDamaged`` and ``OSError``.
        """
        state, last = read_state(self._state), self._store.last()
        if last is None:
            if state is not None:
                _log.critical("audit_checkpoints_missing", sealed_records=state.size)
            self._chains.begin({})
            return None, None, GrowingTree()
        key = self._signer_of(last, keys)
        tree = self._remembered(state, last) or self._read_again(last)
        self._chains.check(tree.heads, is_start=True)
        return last, key, tree

    def make_again(self) -> bool:
        """Read the record again, for the hashes of the tree; tells whether it led to what was sealed."""
        self._chains.begin({})
        return self._replay_all(GrowingTree(), self._store.all())

    def _signer_of(self, last: Kept, keys: Sequence[NoteKey]) -> NoteKey:
        origin = last.checkpoint.origin
        if origin != self._origin:
            raise SealingRefused(
                f"the checkpoints are those of {origin}, and not of {self._origin}: "
                "keep the issuer, or begin a new record in another directory"
            )
        for key in keys:
            try:
                open_note(last.note, [key])
            except NoteRefused:
                continue
            return key
        raise SealingRefused(
            "the last checkpoint is signed by none of our keys: "
            "bring back the key, or begin a new record in another directory"
        )

    def _remembered(self, state: SealedState | None, last: Kept) -> GrowingTree | None:
        """The tree as remembered, with what was sealed since; ``None`` when that does not lead to it."""
        if state is None:
            return None
        if state.end > last.end:
            _log.critical("audit_checkpoints_missing", sealed_records=state.size)
            return None
        tree = GrowingTree(state.frontier(), dict(state.heads))
        self._chains.begin(state.positions)
        try:
            later = list(self._store.all(since=state.end)) if state.end != last.end else []
        except CheckpointsDamaged:
            return None
        if state.digest != (later[0].checkpoint.previous if later else last.checkpoint.digest):
            return None
        is_whole = self._replay_all(tree, later)
        return tree if is_whole and tree.frontier.root() == last.checkpoint.root else None

    def _read_again(self, last: Kept) -> GrowingTree:
        """The tree by the record itself. Chains that do not lead to what was sealed are told."""
        _log.warning("audit_record_read_again", records=last.checkpoint.size)
        tree = GrowingTree()
        self._chains.begin({})
        if not self._replay_all(tree, self._store.all()):
            tree.frontier = self._kept_frontier(last.checkpoint)
        return tree

    def _replay_all(self, tree: GrowingTree, checkpoints: Iterable[Kept]) -> bool:
        is_whole = True
        for kept in checkpoints:
            is_whole &= self._replay(tree, kept.checkpoint)
        return is_whole

    def _replay(self, tree: GrowingTree, checkpoint: Checkpoint) -> bool:
        """Add what a checkpoint sealed; tells whether that comes to its root."""
        is_whole = True
        for writer, head in sorted(checkpoint.heads.items()):
            before = tree.head(writer)
            for line in self._chains.unsealed(writer, before, most=head.seq - before.seq):
                tree.add(writer, line.seq, line.hash)
            is_whole &= tree.head(writer) == head
            tree.heads[writer] = head
        added = tree.grow()
        is_whole &= tree.frontier.root() == checkpoint.root
        if is_whole:
            self._hashes.put(added)
        return is_whole

    def _kept_frontier(self, checkpoint: Checkpoint) -> Frontier:
        """The tree by its own hashes, where the record no longer leads to it."""
        try:
            frontier = self._hashes.frontier(checkpoint.size)
        except ProofRefused:
            frontier = Frontier()
        if frontier.root() == checkpoint.root:
            return frontier
        faults = (
            "; ".join(map(str, self._chains.faults.values())) or "a checkpoint has another root"
        )
        raise SealingRefused(
            f"the record does not lead to what was sealed ({faults}): put back what it was, "
            "or begin a new record in another directory"
        )
