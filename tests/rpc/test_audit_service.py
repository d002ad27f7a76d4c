"""Questions about the record over gRPC: who may ask, what is told, and that asking is on record."""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from broker.audit.query import QueryTooExpensive
from broker.audit.seal.proof import Proof
from broker.endpoints.allowances import LocalAllowances
from broker.endpoints.limits import Limits, LimitTerms
from broker.model import Quota, RequestContext
from broker.oauth import CLIENT_ASSERTION_JWT_BEARER
from broker.rpc.audit_messages import LARGEST_ANSWER, nodes_of
from broker.v1.audit_service_pb2 import (
    AuditFilter,
    GetEventRequest,
    GetLineageRequest,
    ListEventsRequest,
    ProveEventRequest,
    WatchEventsRequest,
)
from broker.v1.token_pb2 import ClientAuthentication
from tests.rpc.listening import by_basic, until
from tests.rpc.record_asking import READER, Asking, Recorded, auditors
from tests.world import NOW, good_assertion, jwt_client

REQUESTS: dict[str, Any] = {
    "ListEvents": ListEventsRequest(),
    "GetEvent": GetEventRequest(event_id="issue-t1"),
    "GetLineage": GetLineageRequest(token="t1"),
    "ProveEvent": ProveEventRequest(event_id="issue-t1"),
    "WatchEvents": WatchEventsRequest(),
}
METHODS = sorted(REQUESTS)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    made = Recorded(tmp_path_factory.mktemp("record") / "audit")
    made.issue("t1")
    made.issue("t2", of="t1", client="mcp1-srv")
    made.issue("t3", of="t2", client="mcp1-srv")
    made.issue("t4", of="t1")
    for number in range(60):
        made.deny(number)
    made.catch_up()
    yield made
    made.close()


@pytest.fixture(scope="module")
def served(recorded: Recorded) -> Iterator[Asking]:
    with Asking(cast=auditors(), recorded=recorded).running() as running:
        assert isinstance(running, Asking)
        yield running


@pytest.fixture
def asking(served: Asking) -> Asking:
    until(lambda: served.reading_places._taken.total() == 0)
    served.reload(auditors())
    served.audit.records.clear()
    served.audit.is_available = True
    return served


def moment(seconds: float) -> Timestamp:
    found = Timestamp()
    found.FromNanoseconds(int(seconds * 1e9))
    return found


# ---- what is told


def test_pages_tell_every_event_once_and_the_newest_first(asking: Asking) -> None:
    told, token = [], ""
    while True:
        page = asking.ask("ListEvents", ListEventsRequest(page_size=25, page_token=token))
        told += page.events
        token = page.next_page_token
        if not token:
            break
    requests = [one for one in told if one.event == "token.issue"]
    assert [one.event_id for one in requests] == [
        *(f"deny-{number}" for number in reversed(range(60))),
        "issue-t4",
        "issue-t3",
        "issue-t2",
        "issue-t1",
    ]
    times = [one.time.seconds for one in told]
    assert times == sorted(times, reverse=True)


def test_a_line_is_the_one_in_the_file(asking: Asking, recorded: Recorded) -> None:
    told = asking.ask("GetEvent", GetEventRequest(event_id="issue-t2")).event
    raw = (recorded.directory / told.file).read_bytes()
    assert raw[told.offset :].partition(b"\n")[0] == told.line
    following = asking.ask("GetEvent", GetEventRequest(event_id="issue-t3")).event
    digest = hashlib.sha256(b"\x00" + told.line).hexdigest()
    assert f'"prev":"{digest}"'.encode() in following.line
    assert (told.writer, told.seq + 1) == (following.writer, following.seq)


def test_an_event_is_told_with_those_beside_it(asking: Asking) -> None:
    told = asking.ask("GetEvent", GetEventRequest(token="t2"))
    assert (told.event.event_id, told.event.jti, told.event.client_id) == (
        "issue-t2",
        "t2",
        "mcp1-srv",
    )
    assert list(told.parent_event_ids) == ["issue-t1"]
    assert list(told.child_event_ids) == ["issue-t3"]


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        (AuditFilter(decisions=["deny"]), 60),
        (AuditFilter(decisions=["permit"], events=["token.issue"]), 4),
        (AuditFilter(clients=["mcp1-srv"]), 2),
        (AuditFilter(clients=["mcp1-srv", "agent-x"], people=["alice"]), 4),
        (AuditFilter(people=["alice", "bob"], reasons=["target_unknown"]), 60),
        (AuditFilter(min_depth=1), 3),
        (AuditFilter(max_depth=0, decisions=["permit"], events=["token.issue"]), 1),
        (AuditFilter(tokens=["t1"]), 3),
        (AuditFilter(people=["carol"]), 0),
        (AuditFilter(auditors=["alice"]), 0),
        (AuditFilter(since=moment(NOW + 63), until=moment(NOW + 65)), 2),
    ],
)
def test_a_filter_is_met_by_all_that_is_told(
    asking: Asking, wanted: AuditFilter, number: int
) -> None:
    page = asking.ask("ListEvents", ListEventsRequest(filter=wanted, page_size=200))
    assert len(page.events) == number


def test_a_lineage_tells_each_event_after_the_one_it_derives_from(asking: Asking) -> None:
    told = asking.ask("GetLineage", GetLineageRequest(token="t1"))
    found = [(one.event.event_id, one.parent) for one in told.nodes]
    assert sorted(found) == [
        ("issue-t1", -1),
        ("issue-t2", 0),
        ("issue-t3", found.index(("issue-t2", 0))),
        ("issue-t4", 0),
    ]
    assert all(parent < place for place, (_, parent) in enumerate(found))
    assert not told.is_cut
    assert not asking.ask("GetLineage", GetLineageRequest(token="nobody-knows")).nodes


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Recorded]:
    """Four tokens, each derived from the one before, the second withdrawn, and one beside them."""
    made = Recorded(tmp_path / "audit")
    made.issue("t1")
    for number in (2, 3, 4):
        made.issue(f"t{number}", of=f"t{number - 1}")
    made.issue("t5", of="t1")
    made.withdraw("t2")
    made.catch_up()
    yield made
    made.close()


def test_a_lineage_tells_what_was_withdrawn_and_what_ended_with_it(family: Recorded) -> None:
    with Asking(cast=auditors(), recorded=family).running() as asking:
        assert isinstance(asking, Asking)
        told = asking.ask("GetLineage", GetLineageRequest(token="t1"))
        below = asking.ask("GetLineage", GetLineageRequest(token="t4"))
        event = asking.ask("GetEvent", GetEventRequest(event_id="withdraw-t2")).event
    found = {one.event.jti: one for one in told.nodes}
    assert {jti for jti, one in found.items() if one.HasField("withdrawal")} == {"t2"}
    assert {jti for jti, one in found.items() if one.is_withdrawn_with_ancestor} == {"t3", "t4"}
    assert found.keys() == {"t1", "t2", "t3", "t4", "t5"}
    assert found["t2"].withdrawal == event
    assert (event.event, event.client_id) == ("token.revoke", "agent-x")
    # A token that somebody asks about has ended with what is above it, which is not told.
    assert [one.is_withdrawn_with_ancestor for one in below.nodes] == [True]


def test_what_tells_of_a_withdrawal_counts_for_the_size_of_an_answer(
    family: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    lineage = family.reader.lineage("t1")
    nodes, is_cut = nodes_of(lineage)
    (withdrawn,) = (one for one in nodes if one.HasField("withdrawal"))
    assert (len(nodes), is_cut) == (5, False)

    limit = nodes[0].ByteSize() + withdrawn.ByteSize() - 1
    monkeypatch.setattr("broker.rpc.audit_messages.LARGEST_ANSWER", limit)
    told, is_cut = nodes_of(lineage)

    assert (len(told), is_cut) == (1, True)


def test_a_proof_convinces_whoever_has_the_public_key(asking: Asking, recorded: Recorded) -> None:
    told = asking.ask("ProveEvent", ProveEventRequest(event_id="issue-t2"))
    proved = Proof.read(told.proof).verify(recorded.keys.keys())
    assert proved.record == told.event.line


def test_a_stream_tells_what_comes_and_goes_on_where_it_was_left(
    asking: Asking, recorded: Recorded
) -> None:
    wanted = AuditFilter(clients=["watched"])
    with asking.stub() as stub:
        call = stub.WatchEvents(WatchEventsRequest(filter=wanted), metadata=by_basic(), timeout=30)
        first = next(call)
        assert not first.events
        recorded.issue("t100", client="watched")
        recorded.issue("t101", client="unwatched")
        recorded.catch_up()
        while not (told := next(call)).events:
            pass
        assert [one.event_id for one in told.events] == ["issue-t100"]
        call.cancel()
        recorded.issue("t102", client="watched")
        recorded.catch_up()
        again = WatchEventsRequest(filter=wanted, cursor=told.cursor)
        told = next(stub.WatchEvents(again, metadata=by_basic(), timeout=30))
        assert [one.event_id for one in told.events] == ["issue-t102"]
    until(lambda: asking.reading_places._taken.total() == 0)
    assert [one["event"] for one in asking.audit.records] == ["audit.read"] * 2


def test_more_than_one_message_holds_comes_in_several(recorded: Recorded) -> None:
    limit = LARGEST_ANSWER // 200
    wide = Recorded(recorded.directory.parent / "wide")
    for number in range(300):
        wide.written += 1
        with wide.log.entry("token.issue", RequestContext("http", f"wide-{number}")) as entry:
            entry.note(scopes_asked=tuple(f"{place}{'s' * 480}" for place in range(60)))
    wide.catch_up()
    with Asking(cast=auditors(), recorded=wide).running() as asking:
        assert isinstance(asking, Asking)
        page = asking.ask("ListEvents", ListEventsRequest(page_size=200))
        assert 0 < len(page.events) < 200
        assert page.ByteSize() < LARGEST_ANSWER + 200 * limit
        told, token = list(page.events), page.next_page_token
        while token:
            page = asking.ask("ListEvents", ListEventsRequest(page_size=200, page_token=token))
            told += page.events
            token = page.next_page_token
        ids = [one.event_id for one in told if one.event == "token.issue"]
        assert ids == [f"wide-{number}" for number in reversed(range(300))]
    wide.close()


# ---- who may ask


@pytest.mark.parametrize("method", METHODS)
def test_a_client_without_the_permission_is_refused(asking: Asking, method: str) -> None:
    asking.reload(auditors(may_read=False))
    refusal = asking.refuse(method, REQUESTS[method])
    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
    assert refusal.info.reason == "UNAUTHORIZED_CLIENT"
    assert asking.said() == [("audit.read", "deny", "permission_missing", READER)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "client_auth_missing"),
        (by_basic(secret="bks_" + "x" * 43), "bad_secret"),
        (by_basic("nobody"), "client_unknown"),
    ],
)
def test_whoever_proves_nothing_is_refused(
    asking: Asking, method: str, metadata: Any, reason: str
) -> None:
    refusal = asking.refuse(method, REQUESTS[method], metadata)
    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
    assert asking.said() == [("audit.read", "deny", reason, None)]


@pytest.mark.parametrize("method", METHODS)
def test_a_client_that_is_switched_off_is_refused(asking: Asking, method: str) -> None:
    asking.reload(auditors(are_disabled=True))
    assert asking.refuse(method, REQUESTS[method]).code is grpc.StatusCode.UNAUTHENTICATED
    assert asking.said()[0][:3] == ("audit.read", "deny", "client_disabled")


def test_an_assertion_reads_once(asking: Asking) -> None:
    asking.reload(auditors().with_client(jwt_client("agent-x", is_auditor=True)))
    proof = ClientAuthentication(
        client_assertion=good_assertion("agent-x"),
        client_assertion_type=CLIENT_ASSERTION_JWT_BEARER,
    )
    request = ListEventsRequest(client_authentication=proof)
    assert asking.ask("ListEvents", request, ()).events
    refusal = asking.refuse("ListEvents", request, ())
    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
    assert asking.said()[1][2] == "replay"


def test_a_stream_ends_when_its_client_may_read_no_more(asking: Asking) -> None:
    with asking.stub() as stub:
        call = stub.WatchEvents(WatchEventsRequest(), metadata=by_basic(), timeout=30)
        next(call)
        asking.reload(auditors(may_read=False))
        with pytest.raises(grpc.RpcError) as ended:
            list(call)
    assert ended.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_client_has_so_many_streams_and_no_more(asking: Asking) -> None:
    with asking.stub() as stub:
        calls = [
            stub.WatchEvents(WatchEventsRequest(), metadata=by_basic(), timeout=30)
            for _ in range(2)
        ]
        for call in calls:
            next(call)
        refusal = asking.refuse("WatchEvents", WatchEventsRequest())
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        for call in calls:
            call.cancel()
    until(lambda: asking.reading_places._taken.total() == 0)
    assert asking.said()[-1][2] == "stream_limit"


def test_a_client_that_asks_too_often_is_refused(recorded: Recorded) -> None:
    quotas = Limits(LocalAllowances(), LimitTerms(per_client=Quota(0.01, 3)))
    with Asking(cast=auditors(), recorded=recorded, quotas=quotas).running() as asking:
        assert isinstance(asking, Asking)
        for _ in range(3):
            asking.ask("ListEvents", ListEventsRequest(page_size=1))
        refusal = asking.refuse("ListEvents", ListEventsRequest(page_size=1))
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refusal.retry_after is not None


# ---- what cannot be answered


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("ListEvents", ListEventsRequest(page_size=-1), "page_size"),
        ("ListEvents", ListEventsRequest(page_size=201), "page_size"),
        ("ListEvents", ListEventsRequest(page_token="x" * 1025), "page_token"),
        ("ListEvents", ListEventsRequest(page_token="no cursor"), None),
        ("ListEvents", ListEventsRequest(filter=AuditFilter(people=["a"] * 33)), "filter"),
        ("ListEvents", ListEventsRequest(filter=AuditFilter(people=[""])), "filter"),
        ("ListEvents", ListEventsRequest(filter=AuditFilter(clients=["c" * 1025])), "filter"),
        (
            "ListEvents",
            ListEventsRequest(filter=AuditFilter(since=moment(2), until=moment(1))),
            "filter",
        ),
        (
            "ListEvents",
            ListEventsRequest(filter=AuditFilter(since=Timestamp(seconds=1, nanos=-5))),
            "filter",
        ),
        ("GetEvent", GetEventRequest(), "event_id"),
        ("GetEvent", GetEventRequest(token=""), "token"),
        ("GetEvent", GetEventRequest(event_id="x" * 1025), "event_id"),
        ("GetLineage", GetLineageRequest(), "token"),
        ("ProveEvent", ProveEventRequest(), "event_id"),
        ("WatchEvents", WatchEventsRequest(cursor="no cursor"), None),
        ("WatchEvents", WatchEventsRequest(cursor="x" * 1025), "cursor"),
        ("WatchEvents", WatchEventsRequest(filter=AuditFilter(tokens=[""])), "filter"),
    ],
)
def test_a_malformed_question_is_refused(
    asking: Asking, method: str, request_: Any, field: str | None
) -> None:
    refusal = asking.refuse(method, request_)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == ([] if field is None else [field])
    assert [one[:2] for one in asking.said()] == [("audit.read", "deny")]
    assert asking.reading_places._taken.total() == 0


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("GetEvent", GetEventRequest(event_id="none")),
        ("GetEvent", GetEventRequest(token="none")),
        ("ProveEvent", ProveEventRequest(event_id="none")),
    ],
)
def test_what_is_not_there_is_not_found(asking: Asking, method: str, request_: Any) -> None:
    assert asking.refuse(method, request_).code is grpc.StatusCode.NOT_FOUND
    assert asking.said()[0][2] == "event_unknown"


def test_what_is_not_sealed_yet_has_no_proof_yet(asking: Asking, recorded: Recorded) -> None:
    recorded.issue("t200")
    recorded.reader.catch_up()
    refusal = asking.refuse("ProveEvent", ProveEventRequest(event_id="issue-t200"))
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    recorded.catch_up()
    assert asking.ask("ProveEvent", ProveEventRequest(event_id="issue-t200")).proof


def test_an_event_that_was_changed_is_not_told(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "audit")
    recorded.issue("t1")
    recorded.catch_up()
    (segment,) = recorded.directory.glob("http-0.*.jsonl")
    with segment.open("r+b") as file:
        raw = file.read()
        file.seek(raw.index(b'"subject":"alice"'))
        file.write(b'"subject":"mallo"')
        os.fsync(file.fileno())
    with Asking(cast=auditors(), recorded=recorded).running() as asking:
        assert isinstance(asking, Asking)
        refusal = asking.refuse("GetEvent", GetEventRequest(event_id="issue-t1"))
        assert refusal.code is grpc.StatusCode.DATA_LOSS
        assert "mallo" not in refusal.everything
        page = asking.ask("ListEvents", ListEventsRequest())
        assert all(one.event_id != "issue-t1" for one in page.events)
        assert page.changed
    recorded.close()


class _Failing:
    """A reader that cannot."""

    def __init__(self, failure: Exception) -> None:
        self.failure = failure

    def __getattr__(self, _name: str) -> Any:
        def fail(*_: Any, **__: Any) -> Any:
            raise self.failure

        return fail


@pytest.mark.parametrize(
    ("failure", "code", "reason"),
    [
        (QueryTooExpensive(), grpc.StatusCode.INVALID_ARGUMENT, "query_too_expensive"),
        (OSError(5, "/secret/place"), grpc.StatusCode.UNAVAILABLE, "audit_unreadable"),
        (RuntimeError("/secret/place"), grpc.StatusCode.INTERNAL, "internal_error"),
    ],
)
def test_a_record_that_cannot_be_read_is_told_of_without_a_word_more(
    recorded: Recorded, failure: Exception, code: grpc.StatusCode, reason: str
) -> None:
    reader = _Failing(failure)
    with Asking(cast=auditors(), recorded=recorded, reader=reader).running() as asking:
        assert isinstance(asking, Asking)
        for method in METHODS:
            refusal = asking.refuse(method, REQUESTS[method])
            assert refusal.code is code
            assert "secret" not in refusal.everything
        assert {one[2] for one in asking.said()} == {reason}
        assert len(asking.said()) == len(METHODS)
        assert asking.reading_places._taken.total() == 0


# ---- that asking is on record


def test_each_question_is_on_record_with_what_was_asked_and_told(asking: Asking) -> None:
    wanted = AuditFilter(people=["alice"], clients=["agent-x"], min_depth=0)
    asking.ask("ListEvents", ListEventsRequest(filter=wanted))
    (record,) = asking.audit.records
    assert record["event"] == "audit.read"
    assert record["client_id"] == READER
    assert record["asked"] == "list clients=agent-x min_depth=0"
    assert record["people_asked"] == ["alice"]
    assert record["found"] >= 2


def test_the_name_of_an_auditor_is_on_record_as_that_of_a_person_is(asking: Asking) -> None:
    """Where people have pseudonyms, what is asked is kept from the text that has none."""
    wanted = AuditFilter(auditors=["olga"], decisions=["permit"])
    asking.ask("ListEvents", ListEventsRequest(filter=wanted))
    (record,) = asking.audit.records
    assert record["asked"] == "list decisions=permit"
    assert record["people_asked"] == ["olga"]


@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_be_recorded_is_not_told(asking: Asking, method: str) -> None:
    asking.audit.is_available = False
    assert asking.refuse(method, REQUESTS[method]).code is grpc.StatusCode.UNAVAILABLE
    assert asking.reading_places._taken.total() == 0


def test_a_stream_counts_once_however_much_it_tells(asking: Asking, recorded: Recorded) -> None:
    with asking.stub() as stub:
        call = stub.WatchEvents(WatchEventsRequest(), metadata=by_basic(), timeout=30)
        next(call)
        for number in range(3):
            recorded.issue(f"t30{number}")
        recorded.catch_up()
        while not next(call).events:
            pass
        call.cancel()
    assert len(asking.audit.records) == 1


def test_an_answer_has_the_id_of_its_record(asking: Asking) -> None:
    with asking.stub() as stub:
        _, call = stub.GetEvent.with_call(
            GetEventRequest(event_id="issue-t1"), metadata=by_basic(), timeout=20
        )
    trailers = dict(call.trailing_metadata())
    assert asking.audit.records[0]["event_id"] in trailers.values()


def test_a_stream_is_on_record_with_where_it_began(asking: Asking) -> None:
    # A cursor of another index begins at an event of its time: here with the first there is.
    with asking.stub() as stub:
        request = WatchEventsRequest(cursor="00000000-0-0")
        call = stub.WatchEvents(request, metadata=by_basic(), timeout=30)
        assert next(call).events
        call.cancel()
    assert asking.audit.records[-1]["asked"] == "watch from 00000000-0-0"
    assert asking.audit.records[-1].get("found") is None


def test_what_is_no_cursor_is_not_on_record(asking: Asking) -> None:
    asking.refuse("WatchEvents", WatchEventsRequest(cursor="ann@example.com"))
    assert "ann" not in str(asking.audit.records)


def test_a_stream_shows_that_it_lives(asking: Asking) -> None:
    with asking.stub() as stub:
        call = stub.WatchEvents(WatchEventsRequest(), metadata=by_basic(), timeout=30)
        began = time.time()
        first = next(call)
        assert not first.events
        assert first.cursor
        assert int(began) <= first.as_of.seconds <= time.time()
        call.cancel()
