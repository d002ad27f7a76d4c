"""What can be asked of the audit record, and what is answered: the same for commands, pages and calls."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from math import isfinite
from typing import Final, Protocol

from broker.audit.record import Record

MOST_ROWS: Final = 1_000
"""No page of an answer has more records."""

MOST_VALUES: Final = 32
"""No filter names more values."""

LONGEST_VALUE: Final = 1_024
"""No value of a filter is longer, in characters."""


class QueryRefused(ValueError):
    """A question that cannot be asked; the sentence tells which part of it and why, for whoever asked."""


class QueryTooExpensive(Exception):
    """An answer would have taken longer than it may; a narrower time or another filter helps."""


class RecordChanged(Exception):
    """
    A record is not in the files as it was when it was indexed; the sentence tells where and how.

    ``place`` is the name of the file and the number of the line, as verification names it, or the name alone
    where there is no such file. ``offset`` is in bytes. Verification tells what this means for the chain.
    """

    def __init__(self, file: str, offset: int, sentence: str, *, line: int = 0) -> None:
        self.place = f"{file}:{line}" if line else file
        super().__init__(f"{self.place}: {sentence}")
        self.file = file
        self.offset = offset
        self.sentence = sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """
    Which records are wanted: those that meet every filter that says anything.

    A filter with several values is met by any of them. ``since`` and ``until`` are unix seconds, the
    second excluded. ``clients`` is met by the client of the request or the MCP client of the token,
    ``tokens`` by the ``jti`` of a token that was issued or presented, ``policies`` by the id of a policy
    that decided. ``people`` are subjects, and ``auditors`` those who read the record on the pages, as people
    know them; each is met under every pseudonym that can still be made of it, and as it stands. Raises
    ``QueryRefused`` for what is too long, too many, or the wrong way round.
    """

    since: float | None = None
    until: float | None = None
    events: tuple[str, ...] = ()
    decisions: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    grant_types: tuple[str, ...] = ()
    people: tuple[str, ...] = ()
    auditors: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    mcp_servers: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    min_depth: int | None = None
    max_depth: int | None = None

    def __post_init__(self) -> None:
        for name in _LISTS:
            values: tuple[str, ...] = getattr(self, name)
            if len(values) > MOST_VALUES:
                raise QueryRefused(f"{name}: more than {MOST_VALUES} values")
            if any(not value or len(value) > LONGEST_VALUE for value in values):
                raise QueryRefused(f"{name}: a value is empty or longer than {LONGEST_VALUE}")
        if not all(map(isfinite, (self.since or 0.0, self.until or 0.0))):
            raise QueryRefused("since, until: not a moment")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise QueryRefused("since: it is not before until")

    @property
    def names(self) -> tuple[str, ...]:
        """Everybody who is asked for and may stand in the record under a pseudonym."""
        return (*self.people, *self.auditors)


_LISTS: Final = (
    "events",
    "decisions",
    "reasons",
    "grant_types",
    "people",
    "auditors",
    "clients",
    "mcp_servers",
    "resources",
    "policies",
    "tokens",
)


@dataclass(frozen=True, slots=True)
class Found:
    """
    A record that was found, the line that it is, and where that stands.

    ``file`` is the name of its segment, ``offset`` is in bytes. ``cursor`` is where to go on from it.
    """

    record: Record
    line: bytes
    file: str
    offset: int
    cursor: str


@dataclass(frozen=True, slots=True)
class Page:
    """
    Some of the records asked for, the newest first, and where the next page begins if there is one.

    ``changed`` tells of records that belong here and are no longer in the files as they were indexed.
    """

    found: Sequence[Found]
    next_cursor: str = ""
    changed: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Bucket:
    """How many records of each decision there are from ``start``, in unix seconds, until the next bucket."""

    start: float
    permitted: int = 0
    denied: int = 0
    informed: int = 0


@dataclass(frozen=True, slots=True)
class Branch:
    """
    A record in a lineage, and what was derived from the token that it is of.

    ``withdrawal`` is the record in which somebody withdrew that token itself, and
    ``is_withdrawn_with_ancestor`` tells that one was withdrawn from which it derives, which ends it as well.
    What was withdrawn for a whole party names no token, and is not told here.
    """

    found: Found
    branches: Sequence["Branch"] = ()
    withdrawal: Found | None = None
    is_withdrawn_with_ancestor: bool = False


@dataclass(frozen=True, slots=True)
class Lineage:
    """
    All that is known to be derived from a token.

    ``root`` is the record of its issue. It is ``None`` for a token that somebody else has issued: then
    ``uses`` are the records in which it was presented, the oldest first, each with what was derived
    there. Of a token that nothing is known of there is neither. ``is_cut`` tells that there is more.
    """

    jti: str
    root: Branch | None
    is_cut: bool = False
    uses: Sequence[Branch] = ()


@dataclass(frozen=True, slots=True)
class Party:
    """
    What is known of a person, client, MCP server or resource by its name in the records.

    ``others`` tells for each of those kinds with whom it was seen most, and how often; of a busy client,
    MCP server or resource, people are counted from ``people_from`` on. Moments are unix seconds.
    """

    kind: str
    name: str
    first_seen: float
    last_seen: float
    permitted: int
    denied: int
    others: Mapping[str, Sequence[tuple[str, int]]]
    people_from: float = 0.0


PARTY_KINDS: Final = ("person", "client", "mcp_server", "resource")


@dataclass(frozen=True, slots=True)
class Extent:
    """
    How much of the record the answers know: so many records, up to a moment in unix seconds.

    ``faults`` tells by the names of writers what keeps the rest of their chains from being known, and by
    the names of files what was found changed in them. ``chains`` is how many records of each chain are known,
    by its writer.
    """

    records: int
    latest: float
    faults: Mapping[str, str]
    chains: Mapping[str, int] = field(default_factory=dict)


CURSOR: Final = re.compile(r"([0-9a-f]{8})-([0-9a-f]{1,16})-([0-9a-f]{1,12})", re.ASCII)
"""What cursors look like: which index gave it, the event, and its place in the order of arrival."""


class PeopleAway(Exception):
    """People cannot be looked for just now, since the keys of their pseudonyms cannot be had."""


def onward(cursor: str, latest: str) -> str:
    """
    Where to wait when nothing came after ``cursor`` until ``latest``.

    That is where it was when the index was made anew in between: its newest record may be an old one.
    """
    return latest if latest.partition("-")[0] == cursor.partition("-")[0] else cursor


class AuditReader(Protocol):
    """
    Answers questions about the audit record of one directory.

    Every method is bounded in time and rows, may be called from any thread, and raises ``QueryRefused``,
    ``QueryTooExpensive``, or ``OSError`` when the files cannot be read, and ``PeopleAway`` when asked about
    people. Those that give one record raise ``RecordChanged`` when it is not what was indexed; those that
    give several leave it out, and ``extent`` tells. Nothing here is evidence: whether the record is whole is
    told by verification.
    """

    def find(self, query: Query, *, limit: int = 50, cursor: str = "") -> Page:
        """The newest records that meet the query, or the next ones after ``cursor``."""
        ...

    def newer(self, query: Query, *, than: str, limit: int = 50) -> Sequence[Found]:
        """The oldest records that meet the query and came after the cursor, the oldest first."""
        ...

    def latest(self) -> str:
        """The cursor of the newest record there is, from where ``newer`` may go on."""
        ...

    def get(self, event_id: str) -> Found | None:
        """The record with this id."""
        ...

    def of_token(self, jti: str) -> Found | None:
        """The record of the issue of a token."""
        ...

    def lineage(self, jti: str) -> Lineage:
        """What was derived from a token, or from what was derived from it, and so on."""
        ...

    def parents(self, found: Found) -> Sequence[Found]:
        """The records of the issue of the tokens that were presented in this one."""
        ...

    def children(self, found: Found, *, limit: int = 50) -> Sequence[Found]:
        """The records in which the token that this one is of was presented."""
        ...

    def buckets(self, query: Query, *, width: timedelta) -> Sequence[Bucket]:
        """The records that meet the query, counted by time; those without any are left out."""
        ...

    def party(self, kind: str, name: str) -> Party | None:
        """What is known of one of ``PARTY_KINDS``."""
        ...

    def extent(self) -> Extent:
        """How much is known."""
        ...
