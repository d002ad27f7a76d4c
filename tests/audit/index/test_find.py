"""Every filter lets through what meets it and nothing else; pages neither repeat nor leave out."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.audit.index.reader import SqliteAuditReader
from broker.audit.query import Found, Query, QueryRefused, QueryTooExpensive
from broker.audit.record import Record, ScopeFact
from tests.audit.index.lives import NOW, Life, ids, issue, presented

DAY = timedelta(days=1)
RECORDS = (
    issue(
        1, subject="ann", client_id="desk", mcp_client="desk", grant_type="exchange", chain_depth=1
    ),
    issue(
        2, subject="ben", client_id="mcp-a", mcp_client="desk", mcp_server="https://a.example/mcp"
    ),
    issue(3, resource="https://crm.example", policy_ids=["reads"], inputs=[presented("outside-1")]),
    issue(
        4, decision="deny", reason="policy_denied", jti=None, policy_ids=["forbids"], chain_depth=3
    ),
    issue(
        5,
        event="token.introspect",
        jti=None,
        inputs=[presented("token-1", slot="token")],
        chain_depth=0,
    ),
    issue(
        6,
        resource="https://crm.example",
        chain_depth=2,
        scope_decisions=[ScopeFact(scope="a", verdict="permit", policy_ids=["scoped"])],
    ),
    issue(7, event="token.withdraw", jti=None, party="cat", party_kind="subject"),
)
EVERYTHING = {f"event-{number}" for number in range(1, 8)}
FILTERS: dict[str, tuple[dict[str, Any], set[int]]] = {
    "a person": ({"people": ("ann",)}, {1}),
    "two people": ({"people": ("ann", "ben")}, {1, 2}),
    "a person whose tokens were withdrawn": ({"people": ("cat",)}, {7}),
    "a client of a request or a token": ({"clients": ("desk",)}, {1, 2}),
    "an MCP server as a client": ({"clients": ("mcp-a",)}, {2}),
    "an MCP server": ({"mcp_servers": ("https://a.example/mcp",)}, {2}),
    "a resource": ({"resources": ("https://crm.example",)}, {3, 6}),
    "a decision": ({"decisions": ("deny",)}, {4}),
    "a reason": ({"reasons": ("policy_denied",)}, {4}),
    "a grant type": ({"grant_types": ("exchange",)}, {1}),
    "an event": ({"events": ("token.introspect",)}, {5}),
    "a policy": ({"policies": ("reads",)}, {3}),
    "a policy of a scope": ({"policies": ("scoped",)}, {6}),
    "a policy that forbade": ({"policies": ("forbids",)}, {4}),
    "a token issued and asked about": ({"tokens": ("token-1",)}, {1, 5}),
    "a token of somebody else": ({"tokens": ("outside-1",)}, {3}),
    "a depth at least": ({"min_depth": 2, "since": float(NOW)}, {4, 6}),
    "a depth at most": ({"max_depth": 1}, {1, 5}),
    "a depth between": ({"min_depth": 1, "max_depth": 2}, {1, 6}),
    "a time from": ({"since": NOW + 6.0}, {6, 7}),
    "a time until": ({"since": NOW + 0.5, "until": NOW + 3.0}, {1, 2}),
    "several at once": ({"resources": ("https://crm.example",), "min_depth": 2}, {6}),
    "a person and a client": ({"people": ("ben",), "clients": ("desk",)}, {2}),
    "a token and an event": ({"tokens": ("token-1",), "events": ("token.issue",)}, {1}),
    "a token and a person": ({"tokens": ("token-1",), "people": ("ann",)}, {1}),
}
NOTHING: dict[str, dict[str, Any]] = {
    "nobody's name": {"people": ("dora",)},
    "the beginning of a name": {"people": ("an",)},
    "a name in other letters": {"people": ("ANN",)},
    "a wildcard": {"people": ("%",)},
    "a client for a person": {"people": ("desk",)},
    "an unknown client": {"clients": ("desk2",)},
    "an unknown MCP server": {"mcp_servers": ("https://a.example",)},
    "an unknown resource": {"resources": ("https://crm.example/",)},
    "an unknown reason": {"reasons": ("reads",)},
    "an unknown policy": {"policies": ("nobody",)},
    "a policy that is another's text": {"policies": ("ann",)},
    "an unknown token": {"tokens": ("token-99",)},
    "a token in two filters that exclude each other": {"tokens": ("token-1",), "people": ("ben",)},
    "what never was together": {"clients": ("desk",), "decisions": ("deny",)},
    "a depth that nobody reached": {"min_depth": 4},
    "depths the wrong way round": {"min_depth": 3, "max_depth": 1},
    "a time before": {"until": NOW - 1.0},
    "a time after": {"since": NOW + 8.0},
    "an injection": {"people": ("ann') OR 1=1 --",)},
    "half a character": {"people": ("\ud800",)},
    "a zero byte": {"people": ("ann\0",)},
}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteAuditReader]:
    life = Life(tmp_path_factory.mktemp("find"))
    yield life.tell(*RECORDS)
    life.close()


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_lets_through_what_meets_it_and_nothing_else(
    reader: SqliteAuditReader, name: str
) -> None:
    asked, wanted = FILTERS[name]
    expected = [f"event-{number}" for number in sorted(wanted, reverse=True)]
    assert ids(reader.find(Query(**asked)).found) == expected
    oldest_first = reader.newer(Query(**asked), than="00000000-0-0")
    assert ids(oldest_first) == expected[::-1]
    assert sum(map(_count, reader.buckets(Query(**asked), width=timedelta(hours=1)))) == len(wanted)
    assert sum(map(_count, reader.buckets(Query(**asked), width=timedelta(seconds=1)))) == len(
        wanted
    )


@pytest.mark.parametrize("name", NOTHING)
def test_a_filter_refuses_all_that_does_not_meet_it(reader: SqliteAuditReader, name: str) -> None:
    query = Query(**NOTHING[name])
    assert reader.find(query).found == []
    assert reader.newer(query, than="00000000-0-0") == []
    assert reader.buckets(query, width=timedelta(days=1)) == []


def _count(bucket: Any) -> int:
    return int(bucket.permitted + bucket.denied + bucket.informed)


def test_without_a_filter_there_is_everything_the_newest_first(reader: SqliteAuditReader) -> None:
    found = ids(reader.find(Query()).found)
    assert found[:7] == [f"event-{number}" for number in range(7, 0, -1)]
    assert len(found) == 8


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_neither_repeat_nor_leave_out(reader: SqliteAuditReader, limit: int) -> None:
    whole = ids(reader.find(Query()).found)
    found: list[str] = []
    cursor = ""
    for _ in range(20):
        page = reader.find(Query(), limit=limit, cursor=cursor)
        found += ids(page.found)
        cursor = page.next_cursor
        if not cursor:
            break
    assert found == whole


@pytest.mark.parametrize(
    "cursor",
    ["x", "1-2", "00000000-0", "0" * 500, "00000000-g-1", "ffffffff-ffffffffffffffff-0", "-"],
)
def test_a_cursor_that_no_answer_gave_is_refused(reader: SqliteAuditReader, cursor: str) -> None:
    with pytest.raises(QueryRefused, match="cursor"):
        reader.find(Query(), cursor=cursor)
    with pytest.raises(QueryRefused, match="cursor"):
        reader.newer(Query(), than=cursor)


@pytest.mark.parametrize("limit", [0, -1, 1_001])
def test_a_page_of_no_size_or_too_much_is_refused(reader: SqliteAuditReader, limit: int) -> None:
    with pytest.raises(QueryRefused, match="limit"):
        reader.find(Query(), limit=limit)


@pytest.mark.parametrize(
    "asked",
    [
        {"people": ("",)},
        {"people": tuple(map(str, range(33)))},
        {"clients": ("x" * 1_025,)},
        {"since": 2.0, "until": 1.0},
        {"since": float("nan")},
        {"until": float("inf")},
    ],
)
def test_a_question_that_is_no_question_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(QueryRefused):
        Query(**asked)


def test_an_answer_that_takes_too_long_is_not_given(life: Life) -> None:
    life.tell(*(issue(number) for number in range(3_000)))
    hurried = SqliteAuditReader(life.directory, limit=0.0)
    with pytest.raises(QueryTooExpensive, match="0 seconds"):
        hurried.buckets(Query(), width=timedelta(seconds=7))
    with pytest.raises(QueryTooExpensive, match="0 seconds"):
        hurried.find(Query(min_depth=1), limit=1_000)
    assert len(life.reader.find(Query(), limit=1_000).found) == 1_000
    hurried.close()


def test_people_are_found_under_their_pseudonyms(tmp_path: Path) -> None:
    names = {"ann": ["~2026-10~aaaa", "~2026-11~bbbb"]}
    life = Life(tmp_path, pseudonyms_of=lambda name: names.get(name, []))
    reader = life.tell(
        issue(1, subject="~2026-10~aaaa"),
        issue(2, subject="~2026-11~bbbb"),
        issue(3, subject="~2026-11~cccc"),
        issue(4, subject="ann"),
    )
    assert ids(reader.find(Query(people=("ann",))).found) == ["event-4", "event-2", "event-1"]
    assert ids(reader.find(Query(people=("~2026-11~bbbb",))).found) == ["event-2"]
    assert reader.find(Query(people=("ben",))).found == []
    party = reader.party("person", "ann")
    assert party is not None
    assert party.permitted == 3
    life.close()


def reading(number: int, auditor: str, **facts: Any) -> Record:
    told = {
        "event": "audit.read",
        "jti": None,
        "auditor": auditor,
        "people_asked": ["~2026-11~ann"],
    }
    return issue(number, **told | facts)


def test_whoever_read_the_record_is_found_as_an_auditor_and_not_as_a_person(
    tmp_path: Path,
) -> None:
    names = {"olga": ["~2026-10~olga", "~2026-11~olga"]}
    life = Life(tmp_path, pseudonyms_of=lambda name: names.get(name, []))
    start = life.tell(issue(1, subject="ben")).latest()
    reader = life.tell(
        reading(2, "~2026-10~olga"),
        reading(3, "~2026-11~olga", event="audit.login", decision="deny"),
        reading(4, "root", event="audit.logout"),
        reading(5, "ben"),
        # The same person, as somebody whom a token is about.
        issue(6, subject="~2026-11~olga"),
    )

    olga, ben = Query(auditors=("olga",)), Query(auditors=("ben",))
    assert ids(reader.find(olga).found) == ["event-3", "event-2"]
    assert ids(reader.newer(olga, than=start)) == ["event-2", "event-3"]
    assert sum(one.permitted + one.denied for one in reader.buckets(olga, width=DAY)) == 2
    assert ids(reader.find(ben).found) == ["event-5"]
    assert ids(reader.find(Query(auditors=("root", "ben"))).found) == ["event-5", "event-4"]
    assert ids(reader.find(Query(auditors=("olga",), decisions=("deny",))).found) == ["event-3"]
    assert ids(reader.find(Query(people=("olga",))).found) == ["event-6"]
    assert ids(reader.find(Query(people=("ben",))).found) == ["event-1"]

    assert reader.find(Query(people=("olga",), auditors=("olga",))).found == []
    assert reader.find(Query(auditors=("nobody",))).found == []
    assert reader.find(Query(people=("root",))).found == []
    assert reader.party("person", "root") is None
    party = reader.party("person", "ben")
    assert party is not None
    assert party.permitted == 1
    life.close()


def test_records_of_one_moment_by_several_writers_are_all_there_once(life: Life) -> None:
    for writer in ("w1", "w2", "w3"):
        life.write(
            *(issue(0, at=NOW + 5, event_id=f"{writer}-{n}") for n in range(600)), writer=writer
        )
    life.reader.catch_up()
    every: list[Found] = []
    cursor = ""
    while True:
        page = life.reader.find(Query(events=("token.issue",)), limit=250, cursor=cursor)
        every += page.found
        cursor = page.next_cursor
        if not cursor:
            break
    assert len(every) == 1_800
    assert len(set(ids(every))) == 1_800


def test_pages_stay_whole_while_records_are_added(life: Life) -> None:
    reader = life.tell(*(issue(number) for number in range(20)))
    seen: list[str] = []
    cursor = ""
    for more in range(100):
        page = reader.find(Query(events=("token.issue",)), limit=3, cursor=cursor)
        seen += ids(page.found)
        cursor = page.next_cursor
        if not cursor:
            break
        life.tell(issue(1_000 + more), issue(2_000 + more, at=NOW + 100_000), writer=f"w{more % 3}")
    assert seen == [f"event-{number}" for number in range(19, -1, -1)]


def test_what_comes_late_is_not_missed_by_who_waits_for_what_is_newer(life: Life) -> None:
    reader = life.tell(issue(50))
    mark = reader.latest()
    assert reader.newer(Query(), than=mark) == []
    life.tell(issue(10), writer="w2")
    found = reader.newer(Query(events=("token.issue",)), than=mark)
    assert ids(found) == ["event-10"]
    assert reader.newer(Query(), than=found[-1].cursor) == []
