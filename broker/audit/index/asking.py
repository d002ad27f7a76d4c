"""Texts into questions: the filters as people write them, in a command, an address or a call."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from broker.audit.query import Query, QueryRefused

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
"""The filters that take values, by the names that people write, and what each is in a query."""
MOMENTS: Final = ("since", "until")
"""The filters that take a moment."""
DEPTHS: Final = ("min_depth", "max_depth")
"""The filters that take a number of actors."""

GRANTS: Final[Mapping[str, str]] = {
    "exchange": "urn:ietf:params:oauth:grant-type:token-exchange",
    "assertion": "urn:ietf:params:oauth:grant-type:jwt-bearer",
    "own": "client_credentials",
}
"""Short names of grant types, which are met by the long ones."""

_AGO: Final = re.compile(r"([0-9]{1,7})(s|m|h|d|w)", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_RFC3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})?)?",
    re.ASCII,
)
_DEPTH: Final = re.compile(r"[0-9]{1,3}", re.ASCII)
_LONGEST_SHOWN: Final = 40


def query_from(pairs: Iterable[tuple[str, str]], *, now: float) -> Query:
    """
    The query that names and values say, as in an address; blank values say nothing.

    A name of ``LISTS`` may come several times, and is met by any of its values. ``now`` is in unix
    seconds. Raises ``QueryRefused`` for a name that is no filter, since leaving it out would answer
    another question, and for a value that is none.
    """
    lists: dict[str, list[str]] = {}
    single: dict[str, str] = {}
    for name, value in pairs:
        if name not in LISTS and name not in MOMENTS + DEPTHS:
            raise QueryRefused(f"{name[:_LONGEST_SHOWN]!r} is no filter")
        if name in single:
            raise QueryRefused(f"{name}: it is given twice")
        if not value.strip():
            continue
        if name in LISTS:
            # As it stands: what is in a record may begin or end with a blank.
            lists.setdefault(name, []).append(value)
        else:
            single[name] = value.strip()
    told: dict[str, Any] = {LISTS[name]: tuple(values) for name, values in lists.items()}
    told["grant_types"] = tuple(GRANTS.get(one, one) for one in told.get("grant_types", ()))
    told |= {name: moment(single[name], now=now, name=name) for name in MOMENTS if name in single}
    told |= {name: depth(single[name], name=name) for name in DEPTHS if name in single}
    return Query(**told)


def moment(text: str, *, now: float, name: str) -> float:
    """
    A moment in unix seconds, written as RFC 3339 or as so long before now: ``90s``, ``30m``, ``24h``.

    A date alone is its beginning; without an offset a time is in UTC. Raises ``QueryRefused``.
    """
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now - int(ago[1]) * _SECONDS[ago[2]]
    if _RFC3339.fullmatch(text) is not None:
        try:
            read = datetime.fromisoformat(text.upper())
            return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            # Written like a date, but no day or hour that there is.
            pass
    shown = text[:_LONGEST_SHOWN]
    raise QueryRefused(
        f"{name}: {shown!r} is no time: write 2026-11-22T14:05:00Z, 2026-11-22, 24h or 7d"
    )


def depth(text: str, *, name: str) -> int:
    """A number of actors. Raises ``QueryRefused``."""
    if _DEPTH.fullmatch(text) is None:
        shown = text[:_LONGEST_SHOWN]
        raise QueryRefused(f"{name}: {shown!r} is no number from 0 to 999: write 2, for instance")
    return int(text)
