"""Questions about the audit record and their answers, as messages."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from broker.audit.query import Branch, Found, Lineage, Query, QueryRefused
from broker.errors import InvalidRequest, Reason
from broker.v1.audit_service_pb2 import AuditEvent, AuditFilter, LineageNode

LARGEST_ANSWER: Final = 1024 * 1024
"""How many bytes of events an answer holds, if there is more than one: a quarter of what clients take."""

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
_NAMES: Final = frozenset({"people", "auditors"})
_TYPED: Final = tuple(name for name in _LISTS if name != "decisions" and name not in _NAMES)


def query_of(message: AuditFilter) -> Query:
    """The query that a filter makes. Raises ``InvalidRequest`` (``query_malformed``)."""
    lists = {name: tuple(getattr(message, name)) for name in _LISTS}
    try:
        return Query(
            since=_seconds(message.since) if message.HasField("since") else None,
            until=_seconds(message.until) if message.HasField("until") else None,
            min_depth=message.min_depth if message.HasField("min_depth") else None,
            max_depth=message.max_depth if message.HasField("max_depth") else None,
            **lists,
        )
    except QueryRefused as refused:
        raise InvalidRequest(
            Reason.QUERY_MALFORMED, parameter="filter", detail=str(refused)
        ) from None


def told_of(query: Query) -> str:
    """A query as its record has it: every filter but the names of people and auditors."""
    told = [
        f"{name}={','.join(getattr(query, name))}"
        for name in _LISTS
        if name not in _NAMES and getattr(query, name)
    ]
    bounds = ("since", "until", "min_depth", "max_depth")
    told += [
        f"{name}={getattr(query, name)}" for name in bounds if getattr(query, name) is not None
    ]
    return " ".join(told)


def typed_in(query: Query) -> tuple[str, ...]:
    """The values of filters that may be a name in the wrong place."""
    return tuple(value for name in _TYPED for value in getattr(query, name))


def untyped(query: Query) -> Query:
    """The query without those."""
    none: dict[str, Any] = dict.fromkeys(_TYPED, ())
    return replace(query, **none)


def event_of(found: Found) -> AuditEvent:
    """A record that was found, with its line."""
    record = found.record
    return AuditEvent(
        event_id=record.event_id,
        event=record.event,
        decision=record.decision,
        time=_moment(record.time),
        writer=record.writer,
        seq=record.seq,
        error=record.error or "",
        reason=record.reason or "",
        grant_type=record.grant_type or "",
        client_id=record.client_id or "",
        mcp_client=record.mcp_client or "",
        mcp_server=record.mcp_server or "",
        subject=record.subject or "",
        resource=record.resource or "",
        scopes_granted=record.scopes_granted or (),
        policy_ids=record.policy_ids or (),
        chain_depth=record.chain_depth or 0,
        jti=record.jti or "",
        auditor=record.auditor or "",
        line=found.line,
        file=found.file,
        offset=found.offset,
        cursor=found.cursor,
    )


def as_many_as_fit(found: Sequence[Found]) -> list[AuditEvent]:
    """The first events that fit into an answer, and one at least where there are any."""
    events: list[AuditEvent] = []
    size = 0
    for one in found:
        event = event_of(one)
        size += event.ByteSize()
        if events and size > LARGEST_ANSWER:
            break
        events.append(event)
    return events


def nodes_of(lineage: Lineage) -> tuple[list[LineageNode], bool]:
    """The events of a lineage, each after the one that it derives from, and whether they are cut."""
    first = lineage.uses if lineage.root is None else (lineage.root,)
    waiting: list[tuple[Branch, int]] = [(branch, -1) for branch in reversed(first)]
    nodes: list[LineageNode] = []
    size = 0
    while waiting:
        branch, parent = waiting.pop()
        node = _node_of(branch, parent)
        size += node.ByteSize()
        if nodes and size > LARGEST_ANSWER:
            return nodes, True
        nodes.append(node)
        place = len(nodes) - 1
        waiting.extend((below, place) for below in reversed(branch.branches))
    return nodes, lineage.is_cut


def _node_of(branch: Branch, parent: int) -> LineageNode:
    withdrawal = branch.withdrawal
    return LineageNode(
        event=event_of(branch.found),
        parent=parent,
        withdrawal=None if withdrawal is None else event_of(withdrawal),
        is_withdrawn_with_ancestor=branch.is_withdrawn_with_ancestor,
    )


def _seconds(moment: Timestamp) -> float:
    if not 0 <= moment.nanos < 1_000_000_000:
        raise InvalidRequest(Reason.QUERY_MALFORMED, parameter="filter", detail="not a moment")
    return moment.seconds + moment.nanos / 1e9


def _moment(text: str) -> Timestamp:
    """A moment of a record, which is RFC 3339; a text that is none is left out."""
    moment = Timestamp()
    try:
        moment.FromDatetime(datetime.fromisoformat(text))
    except ValueError:
        return Timestamp()
    return moment
