"""What was tried against the pages: what an auditor asks is on record, and nobody's name with it."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.testclient import TestClient

from broker.audit.index.reader import SqliteAuditReader
from broker.audit.query import Query
from broker.config import load_settings
from broker.interfaces import AuditEntry
from broker.model import RequestContext
from broker.people import open_pseudonyms
from broker.web.review.download import SessionOver
from broker.web.review.live import Streams
from broker.web.review.routes import review_routes
from tests.fakes import RecordingAuditLog
from tests.web.review.conftest import client_of, desk_of, file_in
from tests.web.review.story import NOW, Story, issue


@dataclass
class Noting:
    """An entry whose facts go into what the witness keeps."""

    record: dict[str, Any]

    def note(self, **facts: Any) -> None:
        self.record.update(facts)


@dataclass
class Witness:
    """Keeps what is noted last, as a record would."""

    records: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def __call__(
        self, _request: Request, asked: str, *, people: Sequence[str] = ()
    ) -> Iterator[Noting]:
        record = {"asked": asked, "people_asked": tuple(people) or None}
        self.records.append(record)
        yield Noting(record)


Asked = tuple[TestClient, Witness]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """More records than one piece of an export has."""
    story = Story(tmp_path_factory.mktemp("many") / "audit")
    story.tell(*(issue(f"id-{number}", at=NOW - 1) for number in range(1_200)))
    yield story
    story.close()


@pytest.fixture
def asked(many: Story) -> Asked:
    """The pages, and who sees what is asked of them."""
    witness = Witness()
    return client_of(desk_of(many, witness=witness)), witness


@pytest.mark.parametrize(
    "place",
    [
        "find?id=alice%40example.com",
        "events/alice%40example.com",
        "clients?name=alice%40example.com",
        "lineage?token=alice%40example.com",
        "proofs/alice%40example.com",
    ],
)
def test_a_name_in_the_wrong_field_is_not_on_record_in_clear(asked: Asked, place: str) -> None:
    browser, witness = asked
    browser.get(f"/audit/{place}")
    assert "alice" not in witness.records[-1]["asked"]
    assert witness.records[-1]["people_asked"] == ("alice@example.com",)


@pytest.mark.parametrize("name", ["client", "token", "resource", "server", "policy", "reason"])
def test_nor_is_one_in_the_wrong_filter(asked: Asked, name: str) -> None:
    browser, witness = asked
    browser.get(f"/audit?decision=permit&{name}=alice%40example.com")
    assert witness.records[-1]["asked"] == "records?decision=permit"


def test_the_name_of_an_auditor_is_in_no_text_on_record(asked: Asked) -> None:
    browser, witness = asked
    browser.get("/audit?decision=permit&auditor=olga&person=ann")
    assert witness.records[-1]["asked"] == "records?decision=permit"
    assert witness.records[-1]["people_asked"] == ("ann", "olga")


def test_what_is_found_is_asked_for_by_its_id(asked: Asked) -> None:
    browser, witness = asked
    browser.get("/audit/events/id-7")
    assert witness.records[-1] == {"asked": "record id-7", "people_asked": None, "found": 1}


def test_an_export_tells_how_much_it_gave(asked: Asked) -> None:
    browser, witness = asked
    lines = file_in(browser.get("/audit/export?format=ndjson").content).count("\n")
    assert lines > 1_200
    assert witness.records[-1]["found"] == lines


@pytest.fixture
def audit() -> RecordingAuditLog:
    return RecordingAuditLog()


def recorded(
    story: Story, audit: RecordingAuditLog, *, streams: Streams | None = None, **others: object
) -> TestClient:
    """The pages, with every question on record."""

    @contextmanager
    def witness(
        _request: Request, asked: str, *, people: Sequence[str] = ()
    ) -> Iterator[AuditEntry]:
        with audit.entry("audit.read", RequestContext("admin", "id")) as entry:
            entry.note(asked=asked, people_asked=tuple(people) or None)
            yield entry

    desk = desk_of(story, witness=witness, **others)
    return TestClient(Starlette(routes=review_routes(desk, streams=streams)))


def test_a_cursor_that_is_none_is_on_record_as_such(many: Story, audit: RecordingAuditLog) -> None:
    answer = recorded(many, audit).get("/audit?cursor=00000000-0-0")
    assert answer.status_code == 400
    assert "the index was made anew" in answer.text
    assert audit.records[-1]["reason"] == "query_malformed"


@pytest.mark.parametrize(
    "place",
    [
        "?person=ann%40example.com",
        "/people?name=ann%40example.com",
        "/export?format=csv&person=ann%40example.com",
    ],
)
def test_people_whose_keys_cannot_be_had_are_looked_for_later(
    tmp_path: Path, many: Story, audit: RecordingAuditLog, place: str
) -> None:
    (tmp_path / "broker.yaml").write_text("issuer: http://127.0.0.1:1\ndata_dir: .\n")
    (tmp_path / "people").mkdir(mode=0o700)
    (tmp_path / "people" / "2026-11.key").touch(mode=0o600)
    pseudonyms_of = open_pseudonyms(load_settings(tmp_path / "broker.yaml", {}))
    with closing(SqliteAuditReader(many.directory, pseudonyms_of=pseudonyms_of)) as reader:
        answer = recorded(many, audit, reader=reader).get(f"/audit{place}")
    assert answer.status_code == 503
    assert "People cannot be looked for just now" in answer.text
    assert "people/2026" not in answer.text
    assert audit.records[-1]["reason"] == "audit_unreadable"
    assert audit.records[-1]["people_asked"] == ["ann@example.com"]


def test_pseudonyms_are_made_while_the_index_is_not_being_read(many: Story) -> None:
    def pseudonyms_of(_name: str) -> Sequence[str]:
        # Nobody else could write the index while one reads, had it a reader that waits for a key.
        with closing(sqlite3.connect(many.reader.path, timeout=0)) as index:
            busy, _, _ = index.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert not busy
        return ()

    asked = Query(people=("ann@example.com",))
    with closing(SqliteAuditReader(many.directory, pseudonyms_of=pseudonyms_of)) as reader:
        assert not reader.find(asked).found
        assert not reader.newer(asked, than=reader.latest())
        assert not reader.buckets(asked, width=timedelta(hours=1))
        assert reader.party("person", "ann@example.com") is None


def test_a_live_view_is_on_record_with_where_it_began_and_no_number(
    many: Story, audit: RecordingAuditLog
) -> None:
    browser = recorded(many, audit, streams=Streams(longest=0.0))
    assert browser.get("/audit/tail/stream?after=00000000-0-0").status_code == 200
    record = audit.records[-1]
    assert record["asked"] == "records as they come, from 00000000-0-0"
    assert record.get("found") is None


@pytest.mark.parametrize("after", ["ann@example.com", "00000000-0-0 ann", "-", "x" * 600])
def test_what_is_no_cursor_is_nowhere_to_begin(
    many: Story, audit: RecordingAuditLog, after: str
) -> None:
    browser = recorded(many, audit)
    assert browser.get("/audit/tail/stream", params={"after": after}).status_code == 400
    assert browser.get("/audit/tail/stream", headers={"Last-Event-ID": after}).status_code == 400
    assert browser.get("/audit", params={"cursor": after}).status_code == 400
    assert audit.records == []


def test_an_export_ends_with_the_session_of_whoever_asked(
    many: Story, audit: RecordingAuditLog
) -> None:
    left = [2]

    def may_still_look(_request: Request) -> bool:
        left[0] -= 1
        return left[0] >= 0

    with pytest.raises(SessionOver):
        recorded(many, audit, may_still_look=may_still_look).get("/audit/export?format=ndjson")
