"""What can be said about the evidence at a moment, and who gives proofs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from broker.audit.checkpoints import Checkpoint
from broker.audit.diagnosis import Fault
from broker.audit.seal.verified import Verified, told
from broker.audit.segments import AuditLogRefused


class NotSealed(AuditLogRefused):
    """There is no proof of a record that is not in a checkpoint yet, or is none."""


class Unproved(AuditLogRefused):
    """
    What a line holds, or does not, keeps a record from being proved; the sentence tells where and why.

    ``place`` is the name of the file and the number of the line, as verification and questions name it.
    """

    def __init__(self, fault: Fault) -> None:
        found = told(fault)
        super().__init__(str(found))
        self.place = found.place
        self.sentence = found.sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Integrity:
    """
    How far a record is sealed, and whether that goes on.

    ``origin`` names the record in its checkpoints and ``keys`` are those that they are signed with, as an
    auditor needs them. ``sealed_until`` is the time of the last checkpoint over ``records`` records, in
    unix seconds. ``faults`` tell by the name of its writer which chain is not sealed on, and why, and
    ``failure`` why nothing is. ``anchored_records`` is how many the anchored checkpoint is over, ``None``
    where nothing is anchored, and ``anchor_failure`` why the newest is not. ``stamped_at`` is when somebody
    else last saw a checkpoint. ``changed`` tells by its place what did not fit when a record was proved.
    ``verified`` is what the last look through the whole record found, ``None`` where there was none since
    the start, and ``unverified`` why it is not known whether the record is whole.
    """

    origin: str = ""
    keys: tuple[str, ...] = ()
    records: int = 0
    sealed_until: float | None = None
    faults: Mapping[str, str] = field(default_factory=dict)
    failure: str = ""
    failures: int = 0
    has_anchor: bool = False
    anchored_records: int | None = None
    anchor_failure: str = ""
    has_anchor_conflict: bool = False
    stamped_at: datetime | None = None
    changed: Mapping[str, str] = field(default_factory=dict)
    verified: Verified | None = None
    unverified: str = ""


class Proofs(Protocol):
    """What pages, commands and calls ask about the evidence. All may be called from any thread."""

    def integrity(self) -> Integrity:
        """What is known without reading anything."""
        ...

    def prove(self, writer: str, seq: int) -> str:
        """
        The proof, as text, that a record of a chain is in the newest checkpoint.

        Raises ``NotSealed``, other ``AuditLogRefused`` when what is on disk does not prove it (``Unproved``
        where one line is to blame), and ``OSError``.
        """
        ...

    def first_over(self, writer: str, seq: int) -> Checkpoint:
        """The first checkpoint that a record is in, as it was written; raises as ``prove`` does."""
        ...
