"""What the index keeps of a record: the texts by which it is found."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Final

from broker.audit.chain import NOT_A_LINK
from broker.audit.follow import Line
from broker.audit.index.schema import CONCERNED, FACETS, ISSUED, PRESENTED
from broker.audit.record import READING_EVENTS, RECORD_DECODER, Record
from broker.oauth import TOKEN_TYPE_ID_JAG

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LAST: Final = 2**52
"""In microseconds: the year 2112. What claims to be later is kept as if it were then."""
_DERIVING: Final = frozenset({"subject", "actor", "assertion"})
"""The slots of tokens from which what is issued is derived."""
_NO_DEPTH: Final = -1
_facets: Final = attrgetter(
    *(name if name in Record.__struct_fields__ else f"{name}_id" for name in FACETS)
)


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """
    A line, and what the index keeps of it.

    ``moment`` is in microseconds since 1970. ``facets`` are in the order of ``FACETS``, ``depth`` is -1
    where the record tells none. ``subject`` is the auditor where the record is about reading the record.
    ``tokens`` tells by ``jti`` what the record has to do with each.
    """

    line: Line
    moment: int
    event_id: str
    facets: tuple[str, ...]
    depth: int
    policies: tuple[str, ...]
    subject: str
    tokens: Mapping[str, int]


def entry_of(line: Line) -> IndexEntry | None:
    """What the index keeps of a line; ``None`` for one of a version that this program does not know."""
    try:
        record = RECORD_DECODER.decode(line.content)
        moment = _moment(record.time)
    except NOT_A_LINK:
        return None
    return IndexEntry(
        line=line,
        moment=moment,
        event_id=record.event_id,
        facets=tuple(value or "" for value in _facets(record)),
        depth=_NO_DEPTH if record.chain_depth is None else min(record.chain_depth, 2**31),
        policies=deciding(record),
        subject=_person(record),
        tokens=tokens_of(record),
    )


def deciding(record: Record) -> tuple[str, ...]:
    """The ids of the policies that had a part in a decision."""
    policies = record.policy_ids or []
    for decision in record.scope_decisions or ():
        policies = policies + decision.policy_ids
    return tuple(dict.fromkeys(policies))


def issued_token(record: Record) -> str:
    """The ``jti`` of the token that a record is of the issue of, or nothing."""
    is_issue = record.event == "token.issue" and record.decision == "permit"
    return record.jti or "" if is_issue else ""


def presented_tokens(record: Record) -> list[str]:
    """The tokens that were presented, and from which that is derived which was issued."""
    return [one.jti for one in record.inputs or () if one.jti and one.slot in _DERIVING]


def ending_token(record: Record) -> str:
    """The token whose withdrawal ends the one that was issued as well; empty where there is none."""
    if not issued_token(record) or record.issued_token_type == TOKEN_TYPE_ID_JAG:
        return ""
    # A token tells from which subject tokens it derives, and from no others.
    return next((one.jti for one in record.inputs or () if one.jti and one.slot == "subject"), "")


def tokens_of(record: Record) -> dict[str, int]:
    """What a record has to do with which tokens."""
    found: dict[str, int] = {}
    if record.jti:
        found[record.jti] = ISSUED if issued_token(record) else CONCERNED
    for one in record.inputs or ():
        if one.jti:
            relation = PRESENTED if one.slot in _DERIVING else CONCERNED
            found[one.jti] = found.get(one.jti, 0) | relation
    return found


def _person(record: Record) -> str:
    if record.event in READING_EVENTS:
        return record.auditor or ""
    if record.subject:
        return record.subject
    # Whose tokens were withdrawn is no subject of the request, but whoever asks for them means this too.
    return record.party or "" if record.party_kind == "subject" else ""


def _moment(text: str) -> int:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("a time without an offset from UTC")
    return min(max((at - _EPOCH) // _MICROSECOND, 0), _LAST)
