"""What comes of a comparison, for whoever asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from broker.audit.diagnosis import Place

UNDETECTED: Final = (
    "records that were never sent to whoever kept the copy",
    "whether the copy is what was received: it convicts as far as its keeper is believed",
    "what was true, or not recorded, in the first place",
)
"""What stays undetected however well a log and a copy agree."""


class Finds(StrEnum):
    """What can be found of a record."""

    CHANGED = "changed"
    """The log has another record in its place."""
    RELINKED = "relinked"
    """The log has it as it is, but after another record than it came after: one before it was changed."""
    MISSING = "missing"
    """The log has none in its place."""
    FOREIGN = "foreign"
    """It is of another log."""
    LOST = "lost"
    """It is in the log, and not in the copy."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, in one word and in a sentence, and the line of a copy or of the log that shows it."""

    wrong: StrEnum
    sentence: str
    place: Place | None = None

    def __str__(self) -> str:
        place = self.place
        return f"{place.file}:{place.line}: {self.sentence}" if place else self.sentence


@dataclass(frozen=True, slots=True)
class ChainComparison:
    """
    What a copy has of one chain.

    ``in_log`` counts its records, ``in_copy`` those of them that the copy has too, changed ones included.
    ``first`` and ``last`` are the ends of the stretch that those are from, where there are any, and ``lost``
    counts the records of the log between them that the copy lacks.
    """

    writer: str
    in_log: int
    in_copy: int
    first: int | None
    last: int | None
    changed: int
    relinked: int
    missing: int
    lost: int
    has_fault: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """
    What came of a comparison. Each of the ``records`` of the copy is counted in one of the next seven.

    ``matching`` are in the log byte for byte; ``rewritten`` in other bytes that say the same; ``repeated``
    were met before. ``changed``, ``relinked``, ``missing`` and ``foreign`` are as ``Finds`` says. Of all
    these ``by_hash`` were compared by a hash, since their lines are not in the copy. ``lost`` are records of
    the log that the copy lacks within its stretches; ``unread`` are lines that are no records. ``faults``
    begin with those of the log itself, and tell the first ones of each kind. ``remarks`` are no faults.
    """

    records: int
    matching: int
    rewritten: int
    repeated: int
    changed: int
    relinked: int
    missing: int
    foreign: int
    by_hash: int
    lost: int
    unread: int
    log_id: str | None
    other_logs: Mapping[str, int]
    chains: Sequence[ChainComparison]
    faults: Sequence[Finding]
    remarks: Sequence[str]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong. ``UNDETECTED`` tells what this cannot mean."""
        return not self.faults
