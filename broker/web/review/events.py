"""A record on a page of its own: its sentence, its chain, why it was decided so, its proof."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from broker.audit.chain import line_hash
from broker.audit.notes import NoteKey
from broker.audit.query import AuditReader, Found
from broker.audit.record import Record
from broker.audit.telling.chain import Chain, Handed, Step, chain_of
from broker.audit.telling.kin import ancestors_of
from broker.audit.telling.placement import numbered
from broker.audit.telling.sentence import told
from broker.audit.telling.why import Grounds, why
from broker.audit.telling.words import Piece
from broker.web.review import rows
from broker.web.review.desk import Desk
from broker.web.review.evidence import Proving, Standing, proving, standing

MOST_NEIGHBOURS: Final = 20
"""No more neighbours of one kind are shown."""

_BAR: Final = 100


@dataclass(frozen=True, slots=True)
class Passed:
    """
    A token on its way along the chain.

    ``lost`` are scopes of the token before that this one does not carry. ``bar`` is its lifetime as a part
    of the longest in the chain, in hundredths.
    """

    handed: Handed
    lost: Sequence[str]
    bar: int
    address: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Somebody in the chain, and the tokens by which the one before reached them."""

    step: Step
    address: str
    passed: Sequence[Passed]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """Everything on the page of a record."""

    found: Found
    record: Record
    numbered: str
    title: str
    sentence: Sequence[Piece]
    chain: Chain
    stops: Sequence[Stop]
    grounds: Grounds
    proving: Proving
    parents: Sequence[rows.Row]
    children: Sequence[rows.Row]
    has_more_children: bool
    group: Sequence[rows.Row]
    standing: Standing
    raw: str
    digest: str
    fingerprints: Sequence[str]


def view(desk: Desk, event_id: str) -> EventView | None:
    """The page of the record with this id, if there is one; it reads, so it may raise as the reader does."""
    found = desk.reader.get(event_id)
    if found is None:
        return None
    record = found.record
    parents = desk.reader.parents(found)
    children = desk.reader.children(found, limit=MOST_NEIGHBOURS + 1)
    ancestors = ancestors_of(desk.reader, found)
    chain = chain_of(record, ancestors)
    extent = desk.reader.extent()
    return EventView(
        found=found,
        record=record,
        numbered=numbered(record, extent),
        title=rows.what(record),
        sentence=told(record),
        chain=chain,
        stops=_stops(chain),
        grounds=why(record, desk.present(), ancestors),
        proving=proving(desk.proofs, record),
        parents=[rows.row(one) for one in parents[:MOST_NEIGHBOURS]],
        children=[rows.row(one) for one in children[:MOST_NEIGHBOURS]],
        has_more_children=len(children) > MOST_NEIGHBOURS,
        group=[rows.row(one) for one in _group(desk.reader, record)],
        standing=standing(desk.proofs, extent),
        raw=msgspec.json.format(found.line, indent=2).decode("ascii", "backslashreplace"),
        digest=line_hash(found.line),
        fingerprints=[NoteKey.read(text).fingerprint for text in desk.proofs.integrity().keys],
    )


def _group(reader: AuditReader, record: Record) -> Iterator[Found]:
    if record.group is None:
        return
    for number in range(1, min(record.group_size or 0, MOST_NEIGHBOURS) + 1):
        if number != record.group_number:
            found = reader.get(f"{record.group}#{number}")
            if found is not None:
                yield found


def _stops(chain: Chain) -> list[Stop]:
    tokens = [handed for step in chain.steps for handed in step.handed]
    longest = max((one.lifetime or 0 for one in tokens), default=0)
    stops, carried = [], frozenset[str]()
    for step in chain.steps:
        passed = []
        for handed in step.handed:
            passed.append(_passed(handed, carried, longest))
            carried = frozenset(handed.scopes or ())
        stops.append(Stop(step, rows.link(step.party_kind, step.party), passed))
    return stops


def _passed(handed: Handed, carried: frozenset[str], longest: int) -> Passed:
    scopes = frozenset(handed.scopes or ())
    # Scopes of another resource have other names; then nothing was lost, it was translated.
    lost = sorted(carried - scopes) if carried & scopes else []
    bar = max(2, round((handed.lifetime or 0) / longest * _BAR)) if longest else 0
    address = rows.event_address(handed.event_id) if handed.event_id else ""
    return Passed(handed, lost, bar, address)
