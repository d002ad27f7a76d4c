"""Filters in an address, and the chart of what they choose."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

import pytest
from starlette.datastructures import QueryParams

from broker.audit.query import AuditReader, Bucket, Query, QueryRefused
from broker.web.review.asking import Asked, moment, read
from broker.web.review.histogram import MOST_BARS, draw, width_for

NOW = 1_795_356_310.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90m", NOW - 5_400),
        ("24h", NOW - 86_400),
        ("2w", NOW - 1_209_600),
        ("2026-11-22 14:05:10", NOW),
        ("2026-11-22T14:05:10Z", NOW),
        ("2026-11-22T15:05:10+01:00", NOW),
        ("2026-11-22", NOW - 50_710),
    ],
)
def test_a_time_is_a_date_in_utc_or_so_long_ago(text: str, seconds: float) -> None:
    assert moment(text, now=NOW) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "now", "24", "h", "-1h", "99999h", "2026-13-01", "\u0661h", "2026-11-22" + " " * 40 + "x"],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(QueryRefused, match="is no time"):
        moment(text, now=NOW)


def test_one_question_has_one_address() -> None:
    one = read(QueryParams("client=c&decision=deny&client=b&since=1h"), now=NOW)
    other = read(QueryParams("since=1h&decision=deny&client=c&client=b"), now=NOW)

    assert one.address("/audit") == other.address("/audit")
    assert one.query == other.query
    assert one.query.clients == ("c", "b")


@pytest.mark.parametrize("span", [1, 60, 3_600, 86_400, 7 * 86_400, 400 * 86_400, 9 * 365 * 86_400])
def test_there_are_never_too_many_bars(span: float) -> None:
    assert span / width_for(span) <= MOST_BARS


class Counted:
    """A reader that counts as it is told to."""

    def __init__(self, buckets: Sequence[Bucket]) -> None:
        self._buckets = buckets

    def buckets(self, _query: Query, *, width: timedelta) -> Sequence[Bucket]:
        seconds = width.total_seconds()
        return [
            Bucket(one.start // seconds * seconds, one.permitted, one.denied, one.informed)
            for one in self._buckets
        ]


def drawn(buckets: Sequence[Bucket], **query: Any) -> Any:
    """The chart of these counts."""
    asked = Asked((), Query(**query))
    return draw(cast("AuditReader", Counted(buckets)), asked, path="/audit", now=NOW)


def test_a_single_denial_is_seen_beside_a_thousand_permits() -> None:
    chart = drawn([Bucket(NOW, permitted=1_000, denied=1)], since=NOW - 3_600, until=NOW + 60)

    denied = next(piece for piece in chart.bars[0].pieces if piece.decision == "deny")
    assert float(denied.height) >= 3
    assert float(denied.y) >= 0


def test_the_axis_shows_all_that_was_asked_for() -> None:
    chart = drawn([Bucket(NOW - 7_200, denied=1)], since=NOW - 86_400)

    assert chart.since <= NOW - 86_400 + chart.width
    assert chart.until >= NOW
    assert 0 < chart.bars[0].x < chart.drawn_width


def test_of_nothing_there_is_no_chart() -> None:
    assert drawn([]) is None
    assert drawn([], since=NOW - 60) is None
    assert drawn([Bucket(NOW)], since=NOW - 60) is None
