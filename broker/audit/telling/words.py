"""How values stand in sentences: as text that cannot be taken for the sentence itself."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from broker.drawing import visible

_PLAIN: Final = re.compile(r"[A-Za-z0-9~/][A-Za-z0-9._~:/@#%+=&?*-]*")
_MOST_LISTED: Final = 8
_UNITS: Final = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


@dataclass(frozen=True, slots=True)
class Piece:
    """
    A piece of a sentence. What names somebody or something also says what, and by which name.

    ``kind`` is one of ``PARTY_KINDS``, ``auditor``, ``token``, ``policy``, ``event``, or nothing. ``name`` is
    as the record has it, and so may hold anything; ``text`` is one harmless line.
    """

    text: str
    kind: str = ""
    name: str = ""


Told = Iterable[str | Piece]
"""What a sentence is put together from."""


def pieces(told: Told) -> tuple[Piece, ...]:
    """The sentence in as few pieces as there can be."""
    found: list[Piece] = []
    for one in told:
        piece = one if isinstance(one, Piece) else Piece(one)
        if found and not piece.kind and not found[-1].kind:
            found[-1] = Piece(found[-1].text + piece.text)
        else:
            found.append(piece)
    return tuple(found)


def value(told: object) -> str:
    """
    A value of a record inside a sentence: as it is where it is one plain word, and else in quotes.

    So no name can be read as a part of the sentence, and no character can move what stands beside it.
    """
    text = str(told)
    if _PLAIN.fullmatch(text):
        return visible(text)
    return '"' + visible(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def named(kind: str, name: object) -> Piece:
    """A value that names somebody or something."""
    return Piece(value(name), kind, str(name))


def listed(names: Sequence[object]) -> str:
    """Several values; when there are very many, only how many more there are."""
    shown = [value(one) for one in names[:_MOST_LISTED]]
    if len(names) > _MOST_LISTED:
        shown.append(f"{len(names) - _MOST_LISTED} more")
    return together(shown)


def together(shown: Sequence[str]) -> str:
    """Several words as one list."""
    *others, last = shown or ("nothing",)
    return f"{', '.join(others)} and {last}" if others else last


def counted(number: int, what: str) -> str:
    """How many there are of something: ``1 record``, ``2 records``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def moment(seconds: float) -> str:
    """A moment in unix seconds, for people, in UTC."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"second {seconds} of no calendar"


def duration(seconds: int) -> str:
    """How long something takes, in at most two units: ``2 minutes 30 seconds``."""
    left, shown = abs(seconds), []
    for size, unit in _UNITS:
        number, left = divmod(left, size)
        if number:
            shown.append(f"{number} {unit}" + ("s" if number > 1 else ""))
    return " ".join(shown[:2]) or "no time"


def seconds_of(time: str) -> float | None:
    """The unix seconds of a record's ``time``, or ``None`` where it is none."""
    try:
        return datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError):
        return None
