"""What comes of a look through the whole record: what is asked of the process that looks, and its answer."""

from typing import Final

from msgspec import Struct

from broker.audit.diagnosis import Fault

MOST_FAULTS: Final = 20
"""So many faults of one look are told; the others are counted."""

LARGEST_MESSAGE: Final = 256 * 1024
"""The most bytes that a question or an answer has."""

LONGEST_SENTENCE: Final = 400
"""So many letters of a sentence are told."""

_CHECKPOINTS: Final = "checkpoints"


class Question(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    What is to be verified, and by what. Nothing in it is secret.

    ``keys`` are public, ``anchor`` is the note that was anchored, if any, and ``stamp_roots`` names the file
    of those who may stamp times. The process ``parent`` asks, and waits for so many seconds.
    """

    directory: str
    keys: list[str]
    anchor: str = ""
    stamp_roots: str = ""
    parent: int
    within: float


class ToldFault(Struct, frozen=True, forbid_unknown_fields=True):
    """
    The first thing wrong in a chain or in a list: where, of which kind, and a sentence.

    ``place`` is the name of a file, without its folder, and a line.
    """

    place: str
    kind: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.place}: {self.sentence}"


class Verified(Struct, tag=True, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    What was found. ``at`` is when the look ended, in unix seconds, and ``seconds`` how long it took.

    ``sealed`` of the ``records`` are under checkpoints, ``anchors`` kept ones are among those. ``faults``
    are the first of all ``fault_count``.
    """

    at: float
    seconds: float
    records: int
    sealed: int
    anchors: int
    fault_count: int
    faults: tuple[ToldFault, ...]


class Failed(Struct, tag=True, frozen=True, forbid_unknown_fields=True):
    """Why the record could not be verified, whole or not."""

    failure: str


Answer = Verified | Failed


def told(fault: Fault) -> ToldFault:
    """A fault as it is handed on: bounded, and without the folders of the machine."""
    path = fault.place.file
    name = f"{_CHECKPOINTS}/{path.name}" if path.parent.name == _CHECKPOINTS else path.name
    place = f"{name}:{fault.place.line}"
    return ToldFault(place, fault.wrong.value, fault.sentence[:LONGEST_SENTENCE])
