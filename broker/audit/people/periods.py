"""The periods of the keys that pseudonyms are made with: months, quarters or years, in UTC."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

Length = Literal["month", "quarter", "year"]
"""How long one key is used."""

_MONTHS: Final = {"month": 1, "quarter": 3, "year": 12}
_NAME: Final = re.compile(r"[0-9]{4}(?:-(?:0[1-9]|1[0-2]|q[1-4]))?")


@dataclass(frozen=True, slots=True)
class Period:
    """A period by its name, such as ``2026-11``, ``2026-q4`` or ``2026``, and its unix seconds."""

    name: str
    since: float
    until: float

    def holds(self, at: float) -> bool:
        """Whether this moment is in it; the end is not."""
        return self.since <= at < self.until


def period_of(at: float, length: Length) -> Period:
    """The period of a moment in unix seconds."""
    moment, months = datetime.fromtimestamp(at, UTC), _MONTHS[length]
    first = (moment.month - 1) // months * months + 1
    next_year, after = divmod(first - 1 + months, 12)
    since = datetime(moment.year, first, 1, tzinfo=UTC)
    until = datetime(moment.year + next_year, after + 1, 1, tzinfo=UTC)
    names = {"month": f"-{first:02}", "quarter": f"-q{first // 3 + 1}", "year": ""}
    return Period(f"{moment.year:04}{names[length]}", since.timestamp(), until.timestamp())


def is_period(name: str) -> bool:
    """Whether a text is the name of a period."""
    return _NAME.fullmatch(name) is not None


def is_current(name: str, at: float) -> bool:
    """Whether a moment lies in the period of this name, however long that is."""
    return any(period_of(at, length).name == name for length in _LENGTHS)


_LENGTHS: Final[tuple[Length, ...]] = ("month", "quarter", "year")
