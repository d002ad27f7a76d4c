"""What the derived index of the audit record costs, and how fast it answers."""

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

from bench.audit_records import BEARER, EXCHANGE
from bench.progress import tell
from broker.audit.index.reader import SqliteAuditReader
from broker.audit.query import Query

BEGIN: Final = 1_793_500_000.0
MONTH: Final = 30 * 86_400.0
_DAY: Final = timedelta(days=1)

Question = Callable[[SqliteAuditReader], object]


def questions(reader: SqliteAuditReader) -> dict[str, Question]:
    """What is asked, by name."""
    end = BEGIN + MONTH
    middle = reader.find(Query(until=BEGIN + MONTH / 2, mcp_servers=(_server(0),)), limit=1).found
    old = middle[0].record
    issued, event_id = old.jti or "", old.event_id
    parent = (old.inputs or [])[0].jti or ""
    queries = {
        "nothing": Query(),
        "person": Query(people=(old.subject or "",)),
        "person, rare": Query(people=("person-17@acme.example",), decisions=("deny",)),
        "person, busiest": Query(people=("client:agent-0",)),
        "person, busiest, never so": Query(people=("client:agent-0",), decisions=("deny",)),
        "client, busy": Query(clients=("agent-0",)),
        "client, rare": Query(clients=("agent-37",)),
        "MCP server": Query(mcp_servers=(_server(3),)),
        "resource, rare": Query(resources=("https://api-61.example/v2",)),
        "deny": Query(decisions=("deny",)),
        "reason": Query(reasons=("token_replayed",)),
        "event": Query(events=("token.introspect",)),
        "event, rare": Query(events=("chain.opened",)),
        "grant": Query(grant_types=(BEARER,)),
        "policy": Query(policies=("agents-use-7",)),
        "depth at least 3": Query(min_depth=3),
        "depth at least 9": Query(min_depth=9),
        "a day a month ago": Query(since=BEGIN, until=BEGIN + 86_400),
        "an hour": Query(since=end - 7_200, until=end - 3_600),
        "issued token": Query(tokens=(issued,)),
        "presented token": Query(tokens=(parent,)),
        "client, resource": Query(clients=("agent-5",), resources=("https://api-9.example/v2",)),
        "common, never together": Query(decisions=("deny",), grant_types=(BEARER,)),
        "deny, policy, a day": Query(
            decisions=("deny",), policies=("nobody-writes",), since=BEGIN, until=BEGIN + 86_400
        ),
        "client, exchange, depth, a week": Query(
            clients=("agent-1",),
            grant_types=(EXCHANGE,),
            min_depth=2,
            since=BEGIN,
            until=BEGIN + 7 * 86_400,
        ),
        "20 people": Query(people=tuple(f"person-{number}@acme.example" for number in range(20))),
        "32 unknown people": Query(people=tuple(f"nobody-{number}" for number in range(32))),
        "server, reason, person": Query(
            mcp_servers=(_server(0),), reasons=("policy_denied",), people=(old.subject or "",)
        ),
    }
    asked: dict[str, Question] = {
        f"find: {name}": lambda reader, query=query: reader.find(query)  # type: ignore[misc]
        for name, query in queries.items()
    }
    deep = reader.find(Query(clients=("agent-0",), until=BEGIN + MONTH / 2)).next_cursor
    counted = {
        "a month by day": (Query(), _DAY),
        "a month by 6 hours": (Query(), timedelta(hours=6)),
        "a month by hour": (Query(), timedelta(hours=1)),
        "deny by day": (Query(decisions=("deny",)), _DAY),
        "busy client by 6 hours": (Query(clients=("agent-0",)), timedelta(hours=6)),
        "busiest person by day": (Query(people=("client:agent-0",)), _DAY),
        "a day by 15 minutes": (Query(since=end - 86_400), timedelta(minutes=15)),
    }
    asked |= {
        f"count: {name}": lambda reader, one=one: reader.buckets(one[0], width=one[1])  # type: ignore[misc]
        for name, one in counted.items()
    }
    return asked | {
        "find: next page, deep": lambda reader: reader.find(
            Query(clients=("agent-0",)), cursor=deep
        ),
        "get": lambda reader: reader.get(event_id),
        "of token": lambda reader: reader.of_token(issued),
        "lineage": lambda reader: reader.lineage(parent),
        "party: person": lambda reader: reader.party("person", old.subject or ""),
        "party: client": lambda reader: reader.party("client", "agent-0"),
        "party: MCP server": lambda reader: reader.party("mcp_server", _server(0)),
        "party: resource": lambda reader: reader.party("resource", _server(0)),
        "extent": lambda reader: reader.extent(),
        "newer: nothing": lambda reader: reader.newer(Query(), than=reader.latest()),
    }


def _server(number: int) -> str:
    return f"https://mcp-{number}.example/mcp"


def answers(directory: Path, *, rounds: int) -> dict[str, Any]:
    """Build the index of a record, and ask."""
    reader = SqliteAuditReader(directory, limit=30.0)
    tell("building the index")
    begun = time.perf_counter()
    caught = reader.catch_up()
    took = time.perf_counter() - begun
    asked = []
    for name, question in questions(reader).items():
        tell(f"asking: {name}")
        cuts = quantiles(_times(reader, question, rounds), n=100, method="inclusive")
        asked.append({"name": name, "p50_ms": round(cuts[49], 2), "p99_ms": round(cuts[98], 2)})
    reader.close()
    return {
        "records": caught.records,
        "build_s": round(took, 1),
        "index_mb": round(reader.path.stat().st_size / 1e6),
        "questions": asked,
    }


def _times(reader: SqliteAuditReader, question: Question, rounds: int) -> Sequence[float]:
    """How long the answers took, in milliseconds, the first one aside."""
    question(reader)
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        question(reader)
        times.append((time.perf_counter() - begin) * 1_000)
    return times
