"""How far the record is known to be whole, and where one record stands in it, as pages tell it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from broker.audit.checkpoints import Checkpoint, CheckpointRefused
from broker.audit.query import Extent
from broker.audit.record import Record
from broker.audit.seal.integrity import Integrity, NotSealed, Proofs
from broker.audit.seal.verified import Verified
from broker.audit.segments import AuditLogRefused

_INDEX: Final = re.compile(r"^index ([0-9]{1,15})$", re.MULTILINE | re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """
    How far the record is known to be whole, as whoever seals it found last.

    ``records`` are sealed. ``sealed_until`` is the time of the last checkpoint in unix seconds, ``None``
    where there is none yet. ``unsealed`` records came since. ``faults`` say where the record is broken and
    how, a sentence each, ``troubles`` what does not go on as it should though nothing is broken. All
    of it, ``verified_records``, was last looked through at ``verified_at``, in unix seconds.
    """

    records: int = 0
    sealed_until: float | None = None
    unsealed: int = 0
    is_anchored: bool = False
    is_time_stamped: bool = False
    faults: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()
    verified_at: float | None = None
    verified_records: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """
    That a record stands in the sealed log: the leaf that it is, and the checkpoint above it.

    ``text`` is what ``broker audit verify-proof`` accepts, under the newest checkpoint. ``number`` counts
    from 1. ``size`` and ``sealed_at``, in unix seconds, are those of the first checkpoint above it.
    """

    text: str
    origin: str
    number: int
    size: int
    sealed_at: float


@dataclass(frozen=True, slots=True)
class Proving:
    """The proof of a record, or why there is none: it ``is_early`` for it, or there is a ``fault``."""

    proof: Proof | None = None
    is_early: bool = False
    fault: str = ""


def standing(proofs: Proofs, extent: Extent) -> Standing:
    """What is known without verifying anything anew."""
    found = proofs.integrity()
    verified = found.verified
    told = set() if verified is None else {one.place for one in verified.faults}
    # What a question has met at a place, a proof has met there as well.
    met = {place: f"{place}: {wrong}" for place, wrong in found.changed.items()}
    met.update(extent.faults)
    faults = dict.fromkeys(
        (*found.faults.values(), *(fault for place, fault in met.items() if place not in told))
    )
    if verified is not None:
        faults |= dict.fromkeys(_found_by(verified))
    if found.has_anchor_conflict:
        faults[f"The anchor does not fit: {found.anchor_failure}"] = None
    return Standing(
        records=found.records,
        sealed_until=found.sealed_until,
        unsealed=max(0, extent.records - found.records),
        is_anchored=found.anchored_records is not None,
        is_time_stamped=found.stamped_at is not None,
        faults=tuple(faults),
        troubles=tuple(_troubles(found)),
        verified_at=None if verified is None else verified.at,
        verified_records=0 if verified is None else verified.records,
    )


def _found_by(verified: Verified) -> Iterator[str]:
    """What the last look through the whole record found wrong."""
    for one in verified.faults:
        yield f"{one} ({one.kind}, found when the whole record was verified)"
    if more := verified.fault_count - len(verified.faults):
        yield f"{more} more faults were found when the whole record was verified"


def _troubles(found: Integrity) -> list[str]:
    troubles = []
    if found.failure:
        troubles.append(f"Nothing is sealed just now: {found.failure}")
    if found.anchor_failure and not found.has_anchor_conflict:
        troubles.append(f"The newest checkpoint is not anchored: {found.anchor_failure}")
    if found.unverified:
        troubles.append(f"The whole record could not be verified: {found.unverified}")
    return troubles


def proving(proofs: Proofs, record: Record) -> Proving:
    """The proof of one record; raises ``OSError`` when the files cannot be read."""
    try:
        text = proofs.prove(record.writer, record.seq)
        return Proving(_read(text, proofs.first_over(record.writer, record.seq)))
    except NotSealed:
        return Proving(is_early=True)
    except (AuditLogRefused, CheckpointRefused) as refused:
        return Proving(fault=str(refused))


def _read(text: str, first: Checkpoint) -> Proof:
    """What a proof says of itself, which was checked when it was made, and since when there is one."""
    head, _, note = text.partition("\n\n")
    index = _INDEX.search(head)
    checkpoint = Checkpoint.read(note.rpartition("\n\n")[0] + "\n")
    if index is None:
        raise CheckpointRefused("the proof does not tell which record it is of")
    return Proof(
        text=text,
        origin=checkpoint.origin,
        number=int(index[1]) + 1,
        size=first.size,
        sealed_at=datetime.fromisoformat(first.time).timestamp(),
    )
