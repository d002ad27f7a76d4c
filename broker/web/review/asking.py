"""Filters in an address and back: what of the record somebody wants to see."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from broker.audit.query import Query, QueryRefused

LONGEST_ADDRESS: Final = 8_192
"""No question is longer in an address, in characters."""

LISTS: Final[Mapping[str, str]] = {
    "event": "events",
    "decision": "decisions",
    "reason": "reasons",
    "grant": "grant_types",
    "person": "people",
    "auditor": "auditors",
    "client": "clients",
    "server": "mcp_servers",
    "resource": "resources",
    "policy": "policies",
    "token": "tokens",
}
"""Filters of values by their names in an address, and what they are in a query."""

MOMENTS: Final = ("since", "until")
DEPTHS: Final = ("min_depth", "max_depth")

LABELS: Final[Mapping[str, str]] = {
    "since": "From",
    "until": "Until",
    "decision": "Decision",
    "event": "Event",
    "reason": "Reason",
    "grant": "Grant",
    "person": "Person",
    "auditor": "Auditor",
    "client": "Client",
    "server": "MCP server",
    "resource": "Resource",
    "policy": "Policy",
    "token": "Token",
    "min_depth": "Actors, at least",
    "max_depth": "Actors, at most",
}
"""Every filter by its name in an address, and how it is called on a page, in the order of the page."""

_AGO: Final = re.compile(r"([0-9]{1,4})([mhdw])", re.ASCII)
_SECONDS: Final = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DEPTH: Final = re.compile(r"[0-9]{1,2}", re.ASCII)
_LONGEST_MOMENT: Final = 40

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """
    The filters of an address as they were written, in the order of the page, and the query they are.

    ``has_blanks`` tells that some were sent empty, as a form does with what nobody filled in.
    """

    pairs: Pairs
    query: Query
    has_blanks: bool = False

    def values(self, name: str) -> Sequence[str]:
        """What one filter says."""
        return [value for one, value in self.pairs if one == name]

    def address(self, path: str, **further: str) -> str:
        """These filters at a path, with further parameters."""
        return address(path, (*self.pairs, *further.items()))

    def without(self, pair: tuple[str, str]) -> Pairs:
        """All filters but one."""
        return tuple(one for one in self.pairs if one != pair)

    def replaced(self, **filters: str) -> Pairs:
        """These filters with others in place of those of the same names."""
        others = (one for one in self.pairs if one[0] not in filters)
        return _in_order((*others, *filters.items()))


def address(path: str, pairs: Iterable[tuple[str, str]]) -> str:
    """A path with parameters."""
    query = urlencode(tuple(pairs))
    return f"{path}?{query}" if query else path


def read(parameters: QueryParams, *, now: float, beside: Sequence[str] = ()) -> Asked:
    """
    What the parameters of an address ask for, other than those ``beside`` the filters.

    Raises ``QueryRefused`` for a filter that there is not, since leaving it out would show more than was
    asked for, and for a value that is none.
    """
    given = [pair for pair in parameters.multi_items() if pair[0] not in beside]
    filled = [(name, value.strip()) for name, value in given if value.strip()]
    for name, _ in filled:
        if name not in LABELS:
            raise QueryRefused(f"there is no filter with the name {name[:40]!r}")
    pairs = _in_order(filled)
    return Asked(pairs, _query(pairs, now), has_blanks=len(filled) != len(given))


def _in_order(pairs: Iterable[tuple[str, str]]) -> Pairs:
    """In the order of the page, so that one question has one address."""
    return tuple(sorted(pairs, key=lambda pair: list(LABELS).index(pair[0])))


def _query(pairs: Pairs, now: float) -> Query:
    lists: dict[str, list[str]] = {}
    single: dict[str, str] = {}
    for name, value in pairs:
        if name in LISTS:
            lists.setdefault(LISTS[name], []).append(value)
        elif name in single:
            raise QueryRefused(f"{name}: it is given twice")
        else:
            single[name] = value
    moments = {name: moment(single[name], now=now) for name in MOMENTS if name in single}
    depths = {name: _depth(name, single[name]) for name in DEPTHS if name in single}
    values: dict[str, Any] = {name: tuple(found) for name, found in lists.items()}
    return Query(
        since=moments.get("since"),
        until=moments.get("until"),
        min_depth=depths.get("min_depth"),
        max_depth=depths.get("max_depth"),
        **values,
    )


def moment(text: str, *, now: float) -> float:
    """
    A moment in unix seconds: one long ago by so many minutes, hours, days or weeks, or a date in UTC.

    Raises ``QueryRefused`` for what is neither.
    """
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now - int(ago[1]) * _SECONDS[ago[2]]
    try:
        # What is cut is no date any more.
        read_date = datetime.fromisoformat(text[:_LONGEST_MOMENT])
        aware = read_date if read_date.tzinfo else read_date.replace(tzinfo=UTC)
        return aware.timestamp()
    except (ValueError, OverflowError):
        shown = text[:_LONGEST_MOMENT]
        raise QueryRefused(
            f"{shown!r} is no time: write 2026-11-22 14:05 (in UTC) or 24h, 7d, 90m"
        ) from None


def _depth(name: str, text: str) -> int:
    if _DEPTH.fullmatch(text) is None:
        raise QueryRefused(f"{LABELS[name]}: it is no number from 0 to 99")
    return int(text)


def written(seconds: float) -> str:
    """A moment as an address has it: to the second, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
