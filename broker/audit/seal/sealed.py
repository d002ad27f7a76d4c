"""The walk along the checkpoints of a log: what each seals is there, as it was then."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from broker.audit.chain import Head
from broker.audit.checkpoints import Checkpoint
from broker.audit.diagnosis import Fault, Place, Wrong
from broker.audit.hashing import HASH_BYTES
from broker.audit.merkle import Frontier
from broker.audit.notes import NoteKey
from broker.audit.reader import Report
from broker.audit.seal.chains import Chains
from broker.audit.seal.listing import Listed, Listing, ListingBroken, moment
from broker.audit.seal.receipts import LATEST, Receipt, seconds_of
from broker.audit.seal.stamps import Stamped, StampVerifier, read_stamps
from broker.audit.seal.time_stamps import FILE as STAMPS
from broker.audit.segments import segment_name

_AT_ONCE: Final = 1 << 17
"""So many leaves are put into the tree at a time: many are hashed at once, and they take 8 MiB."""

_MOST_WAITING: Final = 512
"""So many checkpoints wait for the tree at most: one tells of up to 512 chains."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A checkpoint that somebody kept elsewhere, and the file that it was kept in."""

    file: Path
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """
    What an auditor brings along: nothing of it comes from the log.

    ``keys`` are those that checkpoints may be signed with, ``stamps`` verifies time-stamps.
    """

    keys: Sequence[NoteKey] = ()
    anchors: Sequence[Anchor] = ()
    receipts: Sequence[Receipt] = ()
    stamps: StampVerifier | None = None


@dataclass(frozen=True, slots=True)
class Sealed:
    """
    What the checkpoints show, up to the first that is wrong.

    ``records`` of the log are sealed by ``checkpoints`` of them, the last made at ``until``, ``at`` in unix
    seconds; ``unsealed`` came after it. ``anchors`` of those given were found among them, each counted
    once, and ``stamps`` time-stamps are right, the last of ``stamped_until``. All are 0 or empty where there
    is none.
    """

    origin: str = ""
    checkpoints: int = 0
    records: int = 0
    until: str = ""
    at: float = 0
    unsealed: int = 0
    anchors: int = 0
    stamps: int = 0
    stamped_until: str = ""


@dataclass(frozen=True, slots=True)
class _Misfit:
    """Where a chain is not as it was sealed: between two of its records, the second excluded."""

    writer: str
    first: int
    end: int
    sealed_at: str


class SealWalk:
    """
    One walk along the checkpoints and through what they seal, with what an auditor trusts.

    The tree is made anew from the lines. Once a chain does not fit, no later root can, and the others are
    held to their heads alone.
    """

    def __init__(self, listing: Listing, chains: Chains, trust: Trust) -> None:
        self._listing = listing
        self._chains = chains
        self._trust = trust
        self._tree = Frontier(hashing=chains.hashing)
        self._leaves = bytearray()
        self._waiting: list[Listed] = []
        self._last: Checkpoint | None = None
        self._is_listed = True
        self._checkpoints = 0
        self._anchors = {one.checkpoint.digest: one for one in trust.anchors}
        self._anchors_found = 0
        self._stamped: dict[str, list[Stamped]] = {}
        self._stamps = 0
        self._stamped_until = 0.0
        self._misfits: dict[str, _Misfit] = {}
        self._faults: list[Fault] = []

    @property
    def has_unread_stamps(self) -> bool:
        """Whether there are time-stamps and nobody who is trusted to have made them."""
        return self._trust.stamps is None and (self._listing.folder / STAMPS).exists()

    @property
    def has_no_stamps(self) -> bool:
        """Whether somebody is trusted to make time-stamps and none is right."""
        return self._trust.stamps is not None and self._stamps == 0

    def run(self) -> None:
        """Walk. Raises ``OSError``."""
        if self._trust.stamps is not None:
            self._stamped = read_stamps(self._listing.folder, self._faults)
        try:
            self._walk()
        except ListingBroken as broken:
            self._is_listed = False
            self._faults.append(broken.fault)

    def _walk(self) -> None:
        try:
            for listed in self._listing.checked(self._trust.keys):
                self._pass(listed)
        except ListingBroken:
            # What comes before it was not all looked at, and may be wrong as well.
            self._settle()
            raise
        self._settle()

    def sealed(self, report: Report) -> Sealed:
        """What was shown."""
        last = self._last
        stamped_until = datetime.fromtimestamp(self._stamped_until, UTC).isoformat()
        return Sealed(
            origin="" if last is None else last.origin,
            checkpoints=self._checkpoints,
            records=0 if last is None else last.size,
            until="" if last is None else last.time,
            at=0 if last is None else moment(last),
            unsealed=max(report.records - (0 if last is None else last.size), 0),
            anchors=self._anchors_found,
            stamps=self._stamps,
            stamped_until=stamped_until.replace("+00:00", "Z") if self._stamps else "",
        )

    def found_faults(self, report: Report) -> Sequence[Fault]:
        """What is wrong that no chain shows by itself, when the chains are walked to their ends."""
        faulty = {one.writer for one in report.chains if one.fault is not None}
        blamed = [self._blamed(one) for one in self._misfits.values() if one.writer not in faulty]
        faults = [*blamed, *self._faults]
        if self._is_listed:
            faults.extend(self._not_listed())
        if self._listing.is_empty:
            sentence = "there is no checkpoint: nothing was sealed, or the list was taken away"
            faults.append(Fault(Place(self._listing.folder, 1), Wrong.MISSING, sentence))
        return faults

    def overdue(self, report: Report) -> Sequence[str]:
        """The chains with records that were there long before the last checkpoint and are not in it."""
        last = self._last
        if last is None:
            return []
        return [
            f"{one.writer}: {one.records - sealed} records came after the last that is sealed, up to "
            f"{one.last_time}, and the checkpoint of {last.time} does not have them: ask why"
            for one in report.chains
            if (sealed := last.heads.get(one.writer, Head()).seq) < one.records
            and 0 < seconds_of(one.last_time) < moment(last) - LATEST
        ]

    def _pass(self, listed: Listed) -> None:
        leaves = self._leaves_of(listed.checkpoint)
        if self._misfits:
            self._settle()
            self._find(listed.checkpoint)
            return
        self._leaves += leaves
        self._waiting.append(listed)
        if len(self._leaves) >= _AT_ONCE * HASH_BYTES or len(self._waiting) >= _MOST_WAITING:
            self._settle()

    def _find(self, checkpoint: Checkpoint) -> None:
        """Whether a checkpoint is one that was kept elsewhere, or stamped."""
        self._anchors_found += self._anchors.pop(checkpoint.digest, None) is not None
        for stamped in self._stamped.pop(checkpoint.digest, []):
            self._check_stamp(stamped, checkpoint)

    def _leaves_of(self, checkpoint: Checkpoint) -> bytes:
        """The lines that a checkpoint seals beyond the one before it; a chain that does not fit is noted."""
        leaves = []
        for writer, head in sorted(checkpoint.heads.items()):
            if writer in self._misfits:
                continue
            chain = self._chains.get(writer)
            before = 0 if chain is None else chain.taken
            leaves.append(b"" if chain is None else chain.take(head.seq))
            if chain is None or chain.head != head:
                self._misfits[writer] = _Misfit(writer, before, head.seq, checkpoint.time)
        return b"".join(leaves)

    def _settle(self) -> None:
        """Grow the tree by what waits, and hold the checkpoints to the roots that it has on the way."""
        added = self._tree.extend(bytes(self._leaves))
        waiting, self._waiting = self._waiting, []
        self._leaves.clear()
        for listed in waiting:
            self._find(listed.checkpoint)
            if added.root(listed.checkpoint.size) != listed.checkpoint.root:
                sentence = (
                    "the records that it seals are not those of the tree that it is signed for"
                )
                # Whatever comes after the first that is wrong shows nothing more.
                self._misfits.clear()
                raise ListingBroken(Fault(listed.place, Wrong.REWRITTEN, sentence))
            self._last = listed.checkpoint
            self._checkpoints += 1

    def _check_stamp(self, stamped: Stamped, checkpoint: Checkpoint) -> None:
        if self._trust.stamps is None:
            return
        told = self._trust.stamps.verify(stamped, checkpoint)
        if isinstance(told, Fault):
            self._faults.append(told)
            return
        self._stamps += 1
        self._stamped_until = max(self._stamped_until, told)

    def _blamed(self, misfit: _Misfit) -> Fault:
        """What was done to a chain that fits together, and not to what was sealed of it."""
        chain = self._chains.get(misfit.writer)
        if chain is None:
            path = self._listing.folder.parent / segment_name(misfit.writer, 1)
            sentence = f"the whole chain is missing: {misfit.end} records of it were sealed"
            return Fault(Place(path, 1), Wrong.MISSING, f"{sentence} at {misfit.sealed_at}")
        if chain.taken < misfit.end:
            sentence = (
                f"records {chain.taken} to {misfit.end - 1} were sealed at {misfit.sealed_at} and are "
                "missing after this line"
            )
            return Fault(chain.place(chain.taken - 1), Wrong.TRUNCATED, sentence)
        first, last = chain.place(misfit.first), chain.place(misfit.end - 1)
        which = (
            "the record was"
            if first == last
            else f"one of the records from here to {last.file.name}:{last.line} was"
        )
        sentence = f"{which} changed after it was sealed at {misfit.sealed_at}, and what follows made to fit"
        return Fault(first, Wrong.REWRITTEN, sentence)

    def _not_listed(self) -> Sequence[Fault]:
        """What was kept elsewhere, and is not on a list that is sound in itself."""
        newest = 0.0 if self._last is None else moment(self._last)
        faults = [_rolled_back(anchor, newest) for anchor in self._anchors.values()]
        for stamped in [one for every in self._stamped.values() for one in every]:
            sentence = "the checkpoint that this time-stamp is of is missing"
            faults.append(Fault(stamped.place, Wrong.ROLLED_BACK, sentence))
        return faults


def _rolled_back(anchor: Anchor, newest: float) -> Fault:
    kept = anchor.checkpoint
    what = (
        "the list of checkpoints was rolled back behind it"
        if moment(kept) > newest
        else "the list of checkpoints is not the one that it is from"
    )
    sentence = f"{what}: {kept.size} records were sealed at {kept.time}"
    return Fault(Place(anchor.file, 1), Wrong.ROLLED_BACK, sentence)
