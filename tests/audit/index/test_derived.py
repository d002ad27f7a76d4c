"""What was derived from a token, who was seen with whom, and how much when."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from broker.audit.index import descent
from broker.audit.query import Branch, Bucket, Found, Query, QueryRefused
from broker.oauth import TOKEN_TYPE_ID_JAG
from tests.audit.index.lives import NOW, Life, ids, issue, presented

DAY = timedelta(days=1)
MIDNIGHT = NOW // 86_400 * 86_400


def tree(branch: Branch) -> Any:
    return {branch.found.record.jti: [tree(one) for one in branch.branches]}


def one(found: Found | None) -> Found:
    assert found is not None
    return found


def family(life: Life) -> None:
    life.tell(
        issue(1, inputs=[presented("outside", issuer="https://idp.example")]),
        issue(2, inputs=[presented("token-1")]),
        issue(3, inputs=[presented("token-1"), presented("token-9", slot="actor")]),
        issue(4, inputs=[presented("token-2", slot="assertion")]),
        issue(5, decision="deny", reason="policy_denied", jti=None, inputs=[presented("token-1")]),
        issue(
            6, event="token.introspect", jti="token-1", inputs=[presented("token-1", slot="token")]
        ),
        issue(7, inputs=[presented("outside", issuer="https://idp.example")]),
        issue(9),
    )


def test_a_lineage_is_what_was_issued_for_a_token_and_for_what_came_of_it(life: Life) -> None:
    family(life)
    lineage = life.reader.lineage("token-1")
    assert lineage.root is not None
    assert tree(lineage.root) == {"token-1": [{"token-2": [{"token-4": []}]}, {"token-3": []}]}
    assert lineage.uses == ()
    assert not lineage.is_cut
    actor = life.reader.lineage("token-9").root
    assert actor is not None
    assert tree(actor) == {"token-9": [{"token-3": []}]}


def test_a_lineage_tells_which_token_was_withdrawn(life: Life) -> None:
    refused = issue(
        21,
        event="token.revoke",
        decision="deny",
        jti=None,
        inputs=[presented("token-1", slot="token")],
    )
    done = issue(22, event="token.revoke", jti=None, inputs=[presented("token-2", slot="token")])
    reader = life.tell(issue(1), issue(2, inputs=[presented("token-1")]), refused, done)
    root = reader.lineage("token-1").root
    assert root is not None
    assert root.withdrawal is None
    (below,) = root.branches
    assert below.withdrawal is not None
    assert below.withdrawal.record.event_id == "event-22"


def test_what_derives_from_a_withdrawn_token_is_withdrawn_with_it_and_nothing_else_is(
    life: Life,
) -> None:
    done = issue(22, event="token.revoke", jti=None, inputs=[presented("token-2", slot="token")])
    reader = life.tell(
        issue(1),
        issue(2, inputs=[presented("token-1")]),
        issue(3, inputs=[presented("token-2")]),
        issue(4, inputs=[presented("token-3")]),
        # These carry nothing by which they would end with it.
        issue(5, inputs=[presented("other"), presented("token-2", slot="actor")]),
        issue(6, inputs=[presented("token-2")], issued_token_type=TOKEN_TYPE_ID_JAG),
        done,
    )

    def ended(branch: Branch) -> dict[str | None, bool]:
        found = {branch.found.record.jti: branch.is_withdrawn_with_ancestor}
        for below in branch.branches:
            found |= ended(below)
        return found

    root, below = reader.lineage("token-1").root, reader.lineage("token-4").root
    assert root is not None
    assert below is not None
    of_two = {"token-3": True, "token-4": True, "token-5": False, "token-6": False}
    assert ended(root) == {"token-1": False, "token-2": False, **of_two}
    assert ended(below) == {"token-4": True}


def test_a_token_of_somebody_else_has_a_lineage_by_its_uses(life: Life) -> None:
    family(life)
    lineage = life.reader.lineage("outside")
    assert lineage.root is None
    first, second = map(tree, lineage.uses)
    assert first == {"token-1": [{"token-2": [{"token-4": []}]}, {"token-3": []}]}
    assert second == {"token-7": []}


@pytest.mark.parametrize("jti", ["token-99", "", "event-1", "token-"])
def test_of_a_token_that_is_not_known_there_is_no_lineage(life: Life, jti: str) -> None:
    family(life)
    lineage = life.reader.lineage(jti)
    assert lineage.root is None
    assert not lineage.uses
    assert life.reader.of_token(jti) is None


def test_parents_are_records_of_issue_and_children_are_all_uses(life: Life) -> None:
    family(life)
    reader = life.reader
    third = one(reader.get("event-3"))
    assert ids(reader.parents(third)) == ["event-1", "event-9"]
    assert reader.parents(one(reader.get("event-9"))) == []
    first = one(reader.of_token("token-1"))
    assert first.record.event_id == "event-1"
    assert ids(reader.children(first)) == ["event-2", "event-3", "event-5"]
    assert ids(reader.children(first, limit=1)) == ["event-2"]
    assert reader.children(one(reader.get("event-5"))) == []
    assert reader.children(one(reader.get("event-6"))) == []


def test_a_circle_is_not_gone_round(life: Life) -> None:
    life.tell(
        issue(1, inputs=[presented("token-3")]),
        issue(2, inputs=[presented("token-1")]),
        issue(3, inputs=[presented("token-2"), presented("token-3")]),
    )
    root = life.reader.lineage("token-1").root
    assert root is not None
    assert tree(root) == {"token-1": [{"token-2": [{"token-3": []}]}]}


def test_a_lineage_is_cut_in_depth_and_in_width(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    life.tell(issue(0), *(issue(n, inputs=[presented(f"token-{n - 1}")]) for n in range(1, 30)))
    lineage = life.reader.lineage("token-0")
    assert lineage.is_cut
    assert str(lineage.root).count("event_id=") == descent.MOST_LEVELS + 1
    assert life.reader.lineage("token-20").is_cut is False
    life.tell(*(issue(n, inputs=[presented("token-29")]) for n in range(100, 210)))
    wide = life.reader.lineage("token-29")
    assert wide.root is not None
    assert len(wide.root.branches) == descent.MOST_CHILDREN
    assert wide.is_cut
    monkeypatch.setattr(descent, "MOST_RECORDS", 10)
    few = life.reader.lineage("token-29")
    assert few.root is not None
    assert len(few.root.branches) == 9
    assert few.is_cut


def test_a_party_is_known_by_when_how_often_and_with_whom(life: Life) -> None:
    reader = life.tell(
        issue(1, subject="ann", client_id="desk", mcp_client="desk", resource="https://crm"),
        issue(2, subject="ann", client_id="mcp-a", mcp_client="desk", mcp_server="https://a"),
        issue(
            3, subject="ben", client_id="desk", decision="deny", reason="policy_denied", jti=None
        ),
        issue(4, subject="ann", client_id="else"),
    )
    desk = reader.party("client", "desk")
    assert desk is not None
    assert (desk.permitted, desk.denied) == (2, 1)
    assert (desk.first_seen, desk.last_seen) == (NOW + 1, NOW + 3)
    assert desk.people_from == NOW + 1
    assert desk.others == {
        "person": [("ann", 2), ("ben", 1)],
        "client": [("mcp-a", 1)],
        "mcp_server": [("https://a", 1)],
        "resource": [("https://crm", 1)],
    }
    ann = reader.party("person", "ann")
    assert ann is not None
    assert (ann.permitted, ann.denied) == (3, 0)
    assert ann.others["person"] == []
    assert ann.others["client"] == [("desk", 2), ("mcp-a", 1), ("else", 1)]
    crm = reader.party("resource", "https://crm")
    assert crm is not None
    assert crm.others["person"] == [("ann", 1)]
    server = reader.party("mcp_server", "https://a")
    assert server is not None
    assert server.others["client"] == [("desk", 1), ("mcp-a", 1)]
    for kind, name in (
        ("person", "desk"),
        ("client", "ann"),
        ("resource", "x"),
        ("mcp_server", "ann"),
    ):
        assert reader.party(kind, name) is None


QUERIES = [
    Query(),
    Query(decisions=("deny",)),
    Query(decisions=("deny", "info")),
    Query(clients=("desk",)),
    Query(clients=("desk", "mcp-a")),
    Query(policies=("p0", "p1")),
    Query(policies=("p1",), decisions=("permit",)),
    Query(min_depth=1),
    Query(min_depth=1, max_depth=1, events=("token.issue",)),
    Query(resources=("https://r0", "https://r2")),
    Query(people=("ann",), decisions=("permit",)),
    Query(tokens=("token-3", "token-4")),
    Query(since=MIDNIGHT + 40_000.0, until=MIDNIGHT + 200_000.0, clients=("mcp-a",)),
    Query(since=MIDNIGHT + 86_400.0, until=MIDNIGHT + 172_800.0),
]


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    life = Life(tmp_path_factory.mktemp("counted"))
    life.write(
        *(
            issue(
                number,
                at=MIDNIGHT + number * 1_234.5,
                subject=("ann", "ben")[number % 2],
                client_id=("desk", "mcp-a")[number % 3 == 0],
                mcp_client="desk" if number % 4 else None,
                decision=("permit", "deny")[number % 5 == 0],
                resource=f"https://r{number % 4}",
                policy_ids=["p0", f"p{number % 3}"],
                chain_depth=number % 3 or None,
            )
            for number in range(240)
        )
    )
    life.reader.catch_up()
    yield life.reader
    life.close()


@pytest.mark.parametrize("width", [300, 900, 3_600, 7_200, 21_600, 86_400, 172_800])
@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_records_are_counted_by_time_as_they_are_found(
    counted: Any, query: Query, width: int
) -> None:
    expected: dict[float, list[int]] = {}
    for found in counted.find(query, limit=1_000).found:
        start = _seconds(found) // width * width
        row = expected.setdefault(start, [0, 0, 0])
        row[("permit", "deny", "info").index(found.record.decision)] += 1
    answer = counted.buckets(query, width=timedelta(seconds=width))
    told = {bucket.start: [bucket.permitted, bucket.denied, bucket.informed] for bucket in answer}
    assert told == expected
    assert list(told) == sorted(told)


def _seconds(found: Found) -> float:

    return datetime.fromisoformat(found.record.time).timestamp()


@pytest.mark.parametrize("width", [timedelta(0), -DAY, timedelta(milliseconds=1500)])
def test_a_width_that_is_none_is_refused(life: Life, width: timedelta) -> None:
    reader = life.tell(issue(1))
    with pytest.raises(QueryRefused, match="width"):
        reader.buckets(Query(), width=width)


def test_more_spans_than_anybody_looks_at_are_refused(life: Life) -> None:
    reader = life.tell(issue(1), issue(2, at=NOW + 10_000_000))
    with pytest.raises(QueryRefused, match="width"):
        reader.buckets(Query(), width=timedelta(seconds=60))
    assert reader.buckets(Query(events=("token.issue",), since=NOW + 100.0), width=DAY) == [
        Bucket(float((NOW + 10_000_000) // 86_400 * 86_400), permitted=1)
    ]
