"""How many records there are of each decision, drawn over time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from broker.audit.query import AuditReader, Bucket
from broker.web.review.asking import Asked, address, written

MOST_BARS: Final = 72
"""No chart has more bars."""

BAR_WIDTH: Final = 10
HEIGHT: Final = 100
_LEAST_HEIGHT: Final = 3.0

_DAY: Final = 86_400
_WIDTHS: Final = (
    1, 5, 15, 60, 300, 900, 1_800, 3_600, 10_800, 21_600, 43_200, _DAY, 7 * _DAY, 30 * _DAY,
    90 * _DAY, 365 * _DAY,
)  # fmt: skip
_FINEST: Final = 60


@dataclass(frozen=True, slots=True)
class Piece:
    """One colour of a bar: where it begins and how high it is, counted from above."""

    decision: str
    y: str
    height: str


@dataclass(frozen=True, slots=True)
class Bar:
    """The records of one stretch of time, where they are drawn, and the address that shows them alone."""

    bucket: Bucket
    until: float
    x: int
    pieces: Sequence[Piece]
    address: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """Bars over time, the oldest first; ``width`` is how long each is, in seconds."""

    bars: Sequence[Bar]
    since: float
    until: float
    width: int
    highest: int

    @property
    def drawn_width(self) -> int:
        """How wide the drawing is, in its own units."""
        return round((self.until - self.since) / self.width) * BAR_WIDTH

    @property
    def middle(self) -> float:
        """The moment in the middle."""
        return (self.since + self.until) / 2

    def total(self, decision: str) -> int:
        """All records of one decision."""
        return sum(_counts(bar.bucket)[decision] for bar in self.bars)


def draw(reader: AuditReader, asked: Asked, *, path: str, now: float) -> Histogram | None:
    """The records that are asked for over time, or ``None`` where there are none."""
    query = asked.query
    since, until = query.since, query.until
    if since is None:
        days = reader.buckets(query, width=timedelta(days=1))
        if not days:
            return None
        since = days[0].start
        until = min(now, days[-1].start + _DAY) if until is None else until
    until = now if until is None else until
    width = width_for(until - since)
    found = [one for one in reader.buckets(query, width=timedelta(seconds=width)) if _sum(one)]
    if not found:
        return None
    # Without a beginning there is nothing to show before the first record.
    since = found[0].start if query.since is None else since
    return _drawn(found, _Axis(since, until, width), asked, path=path)


def width_for(span: float) -> int:
    """How long each bar is, in seconds, so that there are not too many over so many seconds."""
    fitting = (one for one in _WIDTHS if one >= _FINEST and span / one <= MOST_BARS - 2)
    return next(fitting, _WIDTHS[-1])


@dataclass(frozen=True, slots=True)
class _Axis:
    """What was asked for: from when, until when, and how long each bar is, in seconds."""

    since: float
    until: float
    width: int

    def around(self, found: Sequence[Bucket]) -> tuple[float, float]:
        """The ends of the axis: as was asked, also where there is nothing, in whole bars."""
        first, last = found[0].start, found[-1].start + self.width
        before = max(0, math.ceil((first - self.since) / self.width))
        after = max(0, math.ceil((self.until - last) / self.width))
        return first - before * self.width, last + after * self.width


def _drawn(found: Sequence[Bucket], axis: _Axis, asked: Asked, *, path: str) -> Histogram:
    first, last = axis.around(found)
    highest = max(map(_sum, found))
    bars = [
        Bar(
            one,
            until=one.start + axis.width,
            x=round((one.start - first) / axis.width) * BAR_WIDTH,
            pieces=_pieces(one, highest),
            address=_zoomed(one.start, one.start + axis.width, asked, path),
        )
        for one in found
    ]
    return Histogram(bars, since=first, until=last, width=axis.width, highest=highest)


def _zoomed(since: float, until: float, asked: Asked, path: str) -> str:
    return address(path, asked.replaced(since=written(since), until=written(until)))


def _counts(bucket: Bucket) -> dict[str, int]:
    return {"permit": bucket.permitted, "info": bucket.informed, "deny": bucket.denied}


def _sum(bucket: Bucket) -> int:
    return bucket.permitted + bucket.denied + bucket.informed


def _pieces(bucket: Bucket, highest: int) -> list[Piece]:
    """From the bottom: permitted, noted, denied; what there is little of is still to be seen."""
    pieces, floor = [], float(HEIGHT)
    for decision, count in _counts(bucket).items():
        if not count:
            continue
        height = max(_LEAST_HEIGHT, count / highest * (HEIGHT - 2 * _LEAST_HEIGHT))
        floor -= height
        pieces.append(Piece(decision, f"{floor:.1f}", f"{height:.1f}"))
    return pieces
