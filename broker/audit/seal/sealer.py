"""The sealer: follows all chains and puts what came into one tree, whose root it signs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import structlog

from broker.audit.chain import GENESIS
from broker.audit.checkpoints import Checkpoint, has_room
from broker.audit.diagnosis import Fault
from broker.audit.merkle import Added
from broker.audit.notes import LARGEST_NOTE, NoteKey, NoteRefused, open_note, signed_note
from broker.audit.record import rfc3339
from broker.audit.seal.growing import GrowingTree
from broker.audit.seal.keys import CheckpointSigner
from broker.audit.seal.listing import moment
from broker.audit.seal.resume import Resumption, SealingRefused
from broker.audit.seal.state import SealedState, write_state
from broker.audit.seal.store import CheckpointStore, Kept
from broker.audit.seal.tree import TreeStore
from broker.audit.seal.watched import Chains
from broker.audit.segments import WriterLock, prepare_directory

MOST_LINES: Final = 50_000
"""No checkpoint seals more new records of one chain; what is left over comes in the next one."""

IDLE_SECONDS: Final = 3_600.0
"""So often a checkpoint is written although nothing is new."""

BEHIND_SECONDS: Final = 60.0
"""A clock so far behind the last checkpoint is told: that one, or this clock, is wrong."""

_log = structlog.get_logger("broker.audit")


class Sealer:
    """
    Seals the record of one directory: for one thread, and one process at a time.

    ``step`` writes signed checkpoints over all that is new. A chain that does not go on as it was sealed
    is sealed no further, is in ``faults``, and is looked at again every minute; the others go on. After any
    failure the next step begins with what is on disk, as a start does. ``now`` is in unix seconds.
    ``last`` is the newest checkpoint, and ``key_texts`` the keys that they are signed with.
    """

    def __init__(
        self,
        directory: Path,
        signer: CheckpointSigner,
        *,
        origin: str,
        now: Callable[[], float],
        most_lines: int = MOST_LINES,
    ) -> None:
        self.last: Kept | None = None
        self.key_texts: tuple[str, ...] = ()
        self._signer = signer
        self._origin = origin
        self._now = now
        self._most_lines = most_lines
        self._store = CheckpointStore(directory)
        self._hashes = TreeStore(directory)
        self._state = self._hashes.directory / "state.json"
        self._lock = WriterLock(self._store.directory, writer="sealer")
        self._chains = Chains(directory, now=now)
        self._resumption = Resumption(
            self._store, self._hashes, self._chains, state=self._state, origin=origin
        )
        self._tree: GrowingTree | None = None
        self._key: NoteKey | None = None
        self._quiet_since = now()
        self._is_behind = False

    @property
    def faults(self) -> Mapping[str, Fault]:
        """The chains that are not sealed on, and why."""
        return self._chains.faults

    def step(self) -> Kept | None:
        """
        Seal what is new; returns the newest checkpoint that was written, if any.

        Raises ``WriterBusy`` while another process seals, other ``AuditLogRefused`` when what is sealed
        cannot be gone on from, ``TemporarilyUnavailable`` when nothing can be signed, and ``OSError``.
        """
        prepare_directory(self._store.directory.parent)
        prepare_directory(self._store.directory)
        self._lock.hold()
        try:
            return self._seal()
        except BaseException:
            # What is on disk decides how it goes on, as after a crash.
            self._tree = None
            raise

    def close(self) -> None:
        """Let another process seal."""
        self._tree = None
        self._lock.release()

    def _seal(self) -> Kept | None:
        # Whoever signs is asked first: while they are away nothing is read again and again.
        keys = self._signer.keys()
        self.key_texts = tuple(key.text for key in keys)
        if self._tree is None:
            self.last, self._key, self._tree = self._resumption.resume(keys)
        self._check_clock()
        key = self._key_next()
        written: Kept | None = None
        is_all = False
        while not is_all:
            self._chains.check(self._tree.heads)
            tree = self._tree.copied()
            is_all = self._collect(tree)
            if not tree.waiting and not self._is_quiet_long(tree):
                break
            written = self._write(tree, key)
            self._tree = tree
        return written

    def _check_clock(self) -> None:
        """Tell once that checkpoints keep the time of the last one until the clock has come as far."""
        last, now = self.last, self._now()
        behind = 0.0 if last is None else moment(last.checkpoint) - now
        if last is not None and behind > BEHIND_SECONDS and not self._is_behind:
            _log.critical(
                "audit_clock_behind",
                last=last.checkpoint.time,
                now=rfc3339(now),
                seconds=int(behind),
            )
        self._is_behind = behind > BEHIND_SECONDS

    def _key_next(self) -> NoteKey:
        key = self._signer.key_after(self._key)
        if self._key is not None and key != self._key:
            _log.warning("audit_key_changed", before=self._key.text, now=key.text)
        self._key = key
        return key

    def _is_quiet_long(self, tree: GrowingTree) -> bool:
        return tree.frontier.size > 0 and self._now() - self._quiet_since >= IDLE_SECONDS

    def _collect(self, tree: GrowingTree) -> bool:
        """Add what is new, chain by chain in the order of their names; tells whether that was all."""
        is_all = True
        left_out = []
        for writer in sorted({*self._chains.writers(), *tree.heads}):
            before = tree.head(writer).seq
            if before == 0 and writer not in self.faults and not has_room(tree.heads, writer):
                left_out.append(writer)
                continue
            for line in self._chains.unsealed(writer, tree.head(writer), most=self._most_lines):
                tree.add(writer, line.seq, line.hash)
            is_all &= tree.head(writer).seq - before < self._most_lines
        self._chains.leave_out(left_out)
        return is_all

    def _write(self, tree: GrowingTree, key: NoteKey) -> Kept:
        before = self.last.checkpoint if self.last is not None else None
        time = rfc3339(self._now())
        added = tree.grow()
        checkpoint = Checkpoint(
            origin=self._origin,
            root=tree.frontier.root(),
            heads=tree.heads,
            # Checkpoints never go back in time, whatever the clock does.
            time=time if before is None else max(time, before.time),
            previous=GENESIS if before is None else before.digest,
        )
        note = self._signed(checkpoint, key)
        self._put(added)
        self.last = self._store.append(note, checkpoint)
        self._quiet_since = self._now()
        self._remember(tree, self.last)
        return self.last

    def _signed(self, checkpoint: Checkpoint, key: NoteKey) -> str:
        note = signed_note(checkpoint.text, key, lambda text: self._signer.sign(text, key=key))
        if len(note) > LARGEST_NOTE:
            raise SealingRefused("the checkpoint would be too large: there are too many chains")
        try:
            open_note(note, [key])
        except NoteRefused:
            raise SealingRefused("what was signed does not verify by the key that signed") from None
        return note

    def _put(self, added: Added) -> None:
        """Keep the hashes just added; what cannot be kept is made again when it is needed."""
        try:
            self._hashes.put(added)
        except OSError as failure:
            _log.warning("audit_tree_not_kept", error=str(failure))

    def _remember(self, tree: GrowingTree, kept: Kept) -> None:
        # Where a chain was read that does not lead to what was sealed is not worth knowing.
        positions = {
            writer: position
            for writer, position in self._chains.positions.items()
            if position.head == tree.heads.get(writer)
        }
        state = SealedState(
            digest=kept.checkpoint.digest,
            end=kept.end,
            size=tree.frontier.size,
            peaks=tree.frontier.peaks,
            heads=tree.heads,
            positions=positions,
        )
        try:
            write_state(self._state, state)
        except OSError as failure:
            _log.warning("audit_state_not_kept", error=str(failure))
