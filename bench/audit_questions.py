"""``python -m bench.audit_questions``: what the derived index of the audit record costs and answers in."""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from bench.audit_records import BEARER, EXCHANGE, Life, write_life
from broker.audit.index.reader import SqliteAuditReader
from broker.audit.query import Query

_BEGIN: Final = 1_793_500_000.0
_MONTH: Final = 30 * 86_400.0
_DAY: Final = timedelta(days=1)

Question = Callable[[SqliteAuditReader], object]


def questions(reader: SqliteAuditReader) -> dict[str, Question]:
    """What is asked, by name."""
    end = _BEGIN + _MONTH
    middle = reader.find(Query(until=_BEGIN + _MONTH / 2, mcp_servers=(_server(0),)), limit=1).found
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
        "a day a month ago": Query(since=_BEGIN, until=_BEGIN + 86_400),
        "an hour": Query(since=end - 7_200, until=end - 3_600),
        "issued token": Query(tokens=(issued,)),
        "presented token": Query(tokens=(parent,)),
        "client, resource": Query(clients=("agent-5",), resources=("https://api-9.example/v2",)),
        "common, never together": Query(decisions=("deny",), grant_types=(BEARER,)),
        "deny, policy, a day": Query(
            decisions=("deny",), policies=("nobody-writes",), since=_BEGIN, until=_BEGIN + 86_400
        ),
        "client, exchange, depth, a week": Query(
            clients=("agent-1",),
            grant_types=(EXCHANGE,),
            min_depth=2,
            since=_BEGIN,
            until=_BEGIN + 7 * 86_400,
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
    deep = reader.find(Query(clients=("agent-0",), until=_BEGIN + _MONTH / 2)).next_cursor
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


def measure(
    reader: SqliteAuditReader, question: Question, rounds: int
) -> Sequence[tuple[float, float]]:
    """How long the answers took by the clock, and by that of the processor, in milliseconds."""
    times = []
    for _ in range(rounds):
        begin, began = time.perf_counter(), time.process_time()
        question(reader)
        ended, end = time.process_time(), time.perf_counter()
        times.append(((end - begin) * 1_000, (ended - began) * 1_000))
    return times


def _build(reader: SqliteAuditReader) -> None:
    begin = time.perf_counter()

    def progress(known: int, total: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{known * 100 // max(total, 1)} %")

    caught = reader.catch_up(progress=progress)
    took = time.perf_counter() - begin
    size = reader.path.stat().st_size
    rate = caught.records / took
    print(f"{caught.records} records in {took:.1f} s ({rate:.0f}/s), index {size / 1e6:.0f} MB")


def main() -> None:
    """Write records, build the index, ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--directory", type=Path, help="kept, and used again if it is there")
    told = parser.parse_args()
    directory = told.directory or Path(tempfile.mkdtemp(prefix="audit-questions-"))
    if not any(directory.glob("*.jsonl")):
        write_life(directory, Life(begin=_BEGIN, seconds=_MONTH, records=told.records))
    reader = SqliteAuditReader(directory, limit=30.0)
    _build(reader)
    print(f"{'':36}{'first':>9}{'p50':>9}{'p99':>9}{'cpu p50':>9}  ms")
    for name, question in questions(reader).items():
        (first, _), *rest = measure(reader, question, told.rounds + 1)
        cuts = quantiles([wall for wall, _ in rest], n=100, method="inclusive")
        busy = median(processor for _, processor in rest)
        print(f"{name:36}{first:9.2f}{cuts[49]:9.2f}{cuts[98]:9.2f}{busy:9.2f}")
    reader.close()
    if told.directory is None:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
