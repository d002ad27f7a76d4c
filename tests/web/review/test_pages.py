"""The auditor's pages: what each tells, and that whatever a record holds comes out as text."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.testclient import TestClient

from broker.audit.notes import NoteKey
from broker.audit.query import Extent, Page, Query, QueryTooExpensive
from broker.audit.record import Event
from broker.audit.seal.verified import ToldFault, Verified
from broker.audit.telling.formats import FORMATS
from broker.errors import RateLimited, Reason, TemporarilyUnavailable
from broker.web.review.export import Exporting
from broker.web.review.live import Streams
from broker.web.review.routes import review_routes
from broker.web.review.rows import EVENTS
from tests.web.review.conftest import client_of, desk_of, file_in
from tests.web.review.story import HOSTILE, NOW, PEOPLE, Story, hostile, issue, presented, told_in

EXCHANGED = "01a20386-0000-7404-b84a-255e3c9561b7"
DENIED = "01a20386-0000-7d11-9a4e-0f5e7a90be22"
ATTACK = "01a20390-0001-7e00-8e00-1c0ffee00003"
TOGETHER = "01a20391-0001-7f00-8f00-1c0ffee00004"
PLACES = (
    "/audit",
    f"/audit/events/{EXCHANGED}",
    "/audit/people?name=alice%40acme.example",
    "/audit/clients?name=mcp-tickets",
    "/audit/lineage?token=tickets-0",
    "/audit/tail",
    "/audit/events/nothing",
    "/audit?nonsense=1",
    "/audit/nowhere",
)


class Markup(HTMLParser):
    """The elements, attributes and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self._goes_on = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        # A place where a word may be broken is none between two words.
        self._goes_on = tag == "wbr"
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self._goes_on:
            self.texts[-1] += data
        else:
            self.texts.append(data)
        self._goes_on = False

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def ids_in(page: str) -> list[str]:
    """The records that a page links to, in order."""
    found = re.findall(r'<td[^>]*class="when"><a href="/audit/events/([^"]+)"', page)
    return [one.replace("%23", "#") for one in found]


@pytest.mark.parametrize("place", PLACES)
def test_every_answer_forbids_what_is_not_ours(client: TestClient, place: str) -> None:
    headers = client.get(place).headers

    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for directive in ("frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"):
        assert directive in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("place", PLACES)
def test_no_page_needs_what_the_policy_forbids(client: TestClient, place: str) -> None:
    page = Markup(client.get(place).text)

    names = {name for name, _ in page.attributes}
    assert "style" not in names
    assert not [name for name in names if name.startswith("on")]
    assert "style" not in page.tags
    addresses = [value for name, value in page.attributes if name in {"href", "src", "action"}]
    assert addresses
    assert not [one for one in addresses if not one.startswith(("/audit", "#"))]
    assert page.tags.count("h1") == 1


@pytest.mark.requirement("LOG-02")
@pytest.mark.parametrize(
    "place",
    [
        "/audit",
        f"/audit/events/{ATTACK}",
        "/audit/tail",
        f"/audit/people?name={quote(HOSTILE)}",
        f"/audit/clients?name={quote(HOSTILE)}",
        f"/audit/resources?name={quote(HOSTILE)}",
        f"/audit/lineage?token={quote(HOSTILE)}",
        f"/audit?person={quote(HOSTILE)}&policy={quote(HOSTILE)}&grant={quote(HOSTILE)}",
        f"/audit?since={quote(HOSTILE)}",
        f"/audit?{quote(HOSTILE)}=1",
        f"/audit/events/{quote(HOSTILE, safe='')}",
    ],
)
def test_a_hostile_value_comes_out_as_text(client: TestClient, place: str) -> None:
    page = Markup(client.get(place).text)

    # The one script of every page is ours, and nothing of the record has become an element.
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not [value for _, value in page.attributes if value.startswith("javascript:")]


@pytest.mark.requirement("LOG-02")
def test_a_hostile_record_is_still_told_whole(client: TestClient) -> None:
    page = Markup(client.get(f"/audit/events/{ATTACK}").text)

    assert page.text.count("<script>alert('x')</script>") > 10
    assert "{{7*7}}" in page.text
    assert "49" not in re.sub(r"[0-9a-f]{16,}", "", page.text)


@pytest.mark.requirement("LOG-02")
def test_what_would_turn_text_round_is_a_visible_escape(tmp_path: Path) -> None:
    story = Story(tmp_path / "audit")
    story.tell(issue("turned", at=NOW, subject="admin\u202egnp.exe\u200b\x1b[2J", jti="j"))

    page = client_of(desk_of(story)).get("/audit/events/turned").text
    story.close()

    assert "\u202e" not in page
    assert "\u200b" not in page
    assert "\x1b" not in page
    assert "admin\\u202egnp.exe\\u200b\\x1b[2J" in page


def test_the_list_shows_the_newest_first(client: TestClient) -> None:
    found = ids_in(client.get("/audit").text)

    assert len(found) == 50
    assert found[0] == ATTACK


def test_pages_of_the_list_follow_each_other_without_gap_or_repetition(client: TestClient) -> None:
    seen: list[str] = []
    place = "/audit?decision=deny"
    while place:
        page = client.get(place).text
        seen += ids_in(page)
        further = re.search(r'rel="next" href="([^"]+)"', page)
        place = further[1].replace("&amp;", "&") if further else ""

    assert len(seen) == len(set(seen)) == 77


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ("decision=info&event=key.rotate", 1),
        ("person=nobody", 0),
        ("min_depth=4", 1),
        ("grant=client_credentials&since=24h", 40),
        ("token=tickets-0&decision=deny", 1),
        ("since=2026-11-22T14:02:09Z&until=2026-11-22+14:02:11", 1),
    ],
)
def test_filters_in_the_address_choose_records(
    client: TestClient, filters: str, count: int
) -> None:
    assert len(ids_in(client.get(f"/audit?{filters}").text)) == count


def test_a_form_with_empty_fields_leads_to_a_clean_address(client: TestClient) -> None:
    answer = client.get("/audit?decision=deny&person=&client=++&since=24h&until=")

    assert answer.status_code == 303
    assert answer.headers["location"] == "/audit?since=24h&decision=deny"


@pytest.mark.parametrize(
    "filters",
    [
        "decisions=deny",
        "since=yesterday",
        "since=24h&since=1h",
        "since=1h&until=2h",
        "min_depth=-1",
        "min_depth=many",
        "cursor=%00",
        "cursor=" + "x" * 600,
        "person=" + "x" * 1_100,
        "person=" + "x" * 9_000,
        "&".join(f"person={number}" for number in range(40)),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused_with_the_reason(
    client: TestClient, filters: str
) -> None:
    answer = client.get(f"/audit?{filters}")

    assert answer.status_code == 400
    assert "This cannot be asked" in answer.text


def test_the_badge_tells_how_far_the_record_is_sealed(client: TestClient) -> None:
    text = Markup(client.get("/audit").text).text

    assert "Log intact 448 records sealed until 2026-11-22 14:05:10 , anchored." in text


def test_the_badge_tells_when_the_whole_record_was_verified_and_why_it_was_not(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = ToldFault("http-0.000001.jsonl:7", "changed", "<b>the record was changed</b>")
    whole = Verified(
        at=NOW - 60, seconds=1.0, records=448, sealed=448, anchors=1, fault_count=0, faults=()
    )
    known = story.integrity()

    def told(**found: Any) -> str:
        monkeypatch.setattr(story, "integrity", lambda: replace(known, **found))
        return Markup(client_of(desk_of(story)).get("/audit").text).text

    assert "Whole record verified 2026-11-22 14:04:10 : 448 records." in told(verified=whole)
    assert "Whole record" not in told()
    late = told(verified=whole, unverified="it took longer than 60 s")
    assert "Log intact as far as it is sealed" in late
    assert "could not be verified: it took longer than 60 s" in late
    broken = told(
        verified=msgspec.structs.replace(whole, fault_count=3, faults=(fault,)),
        changed={"record 9 of grpc-0": "the record is not the one that was sealed"},
    )
    assert "Log broken record 9 of grpc-0: the record is not the one that was sealed" in broken
    assert "http-0.000001.jsonl:7: <b>the record was changed</b> (changed, found when" in broken
    assert "2 more faults were found" in broken
    assert "Whole record verified" not in broken
    assert "Log intact" not in broken


def test_the_badge_counts_what_is_not_sealed_yet(tmp_path: Path) -> None:
    story = Story(tmp_path / "audit")
    story.tell(issue("one", at=NOW))
    before = Markup(client_of(desk_of(story)).get("/audit").text).text
    story.seal()
    story.tell(issue("two", at=NOW))
    after = Markup(client_of(desk_of(story)).get("/audit").text).text
    story.close()

    assert "Nothing sealed yet 2 records wait for the first checkpoint." in before
    assert "Log intact 2 records sealed" in after
    assert "1 newer record not sealed yet." in after


@pytest.mark.requirement("LOG-05")
def test_a_record_that_was_changed_is_flagged_in_the_list_and_on_its_page(tmp_path: Path) -> None:
    story = told_in(tmp_path / "audit")
    client = client_of(desk_of(story))
    story.close()
    (segment,) = (tmp_path / "audit").glob("http-0.*.jsonl")
    line = next(one for one in segment.read_bytes().split(b"\n") if DENIED.encode() in one)
    segment.write_bytes(
        segment.read_bytes().replace(line, line.replace(b"mail.send", b"mail.read"))
    )

    listing = client.get("/audit?token=tickets-0")
    again = Markup(client.get("/audit").text).text
    event = client.get(f"/audit/events/{DENIED}")

    assert "Changed since they were written" in listing.text
    assert "Log broken" in again
    assert segment.name in again
    assert event.status_code == 500
    assert "This record is not as it was" in event.text


@pytest.mark.requirement("LOG-05")
def test_a_file_to_take_away_breaks_off_where_a_record_was_changed(tmp_path: Path) -> None:
    story = told_in(tmp_path / "audit")
    desk = desk_of(story)
    assert Exporting(desk, Query(), FORMATS["ndjson"], by="olga").first_piece()
    story.close()
    (segment,) = (tmp_path / "audit").glob("http-0.*.jsonl")
    line = next(one for one in segment.read_bytes().split(b"\n") if DENIED.encode() in one)
    segment.write_bytes(
        segment.read_bytes().replace(line, line.replace(b"mail.send", b"mail.read"))
    )

    with pytest.raises(OSError, match=segment.name):
        Exporting(desk, Query(), FORMATS["ndjson"], by="olga").first_piece()


def test_an_event_tells_its_sentence_its_chain_why_and_its_proof(client: TestClient) -> None:
    text = Markup(client.get(f"/audit/events/{EXCHANGED}").text).text

    assert "called by client desk-assistant , for person alice@acme.example" in text
    assert "Not given: crm.contacts.write" in text
    assert "4 minutes 56 seconds left" in text
    assert "by tickets-reads-contacts" in text
    assert "no policy permits it" in text
    assert "under the checkpoint of 2026-11-22 14:05:10" in text
    assert re.search(r"http-0\.0\S+\.jsonl: record \d+ of \d+ in chain http-0 \(seq \d+\)", text)


def test_an_event_leads_to_its_neighbours(client: TestClient) -> None:
    exchanged = client.get(f"/audit/events/{EXCHANGED}").text
    of_two = client.get(f"/audit/events/{quote(f'{TOGETHER}#1', safe='')}").text

    assert "01a20386-0000-7c3c-b514-48286917cad1" in ids_in(exchanged)
    assert "01a20392-0001-7f00-8f00-1c0ffee00005" in ids_in(exchanged)
    assert f"{TOGETHER}#2" in ids_in(of_two)


def test_a_refusal_shows_what_was_asked_for_in_vain(client: TestClient) -> None:
    text = Markup(client.get(f"/audit/events/{DENIED}").text).text

    assert "Asked for in vain: mail.send" in text
    assert "Not reached." in text
    assert "Refused: no policy permits it." in text


def test_the_proof_of_a_record_is_a_file(client: TestClient, story: Story) -> None:
    answer = client.get(f"/audit/proofs/{EXCHANGED}")

    assert answer.headers["content-disposition"] == f'attachment; filename="{EXCHANGED}.proof"'
    found = story.reader.get(EXCHANGED)
    assert found is not None
    assert answer.text == story.prove(found.record.writer, found.record.seq)


def test_there_is_no_proof_of_what_is_not_sealed(tmp_path: Path) -> None:
    story = Story(tmp_path / "audit")
    story.tell(issue("early", at=NOW))
    client = client_of(desk_of(story))
    event, proof = client.get("/audit/events/early"), client.get("/audit/proofs/early")
    story.close()

    assert "Not sealed yet" in event.text
    assert proof.status_code == 404


@pytest.mark.parametrize(
    ("place", "others"),
    [
        ("people?name=alice%40acme.example", "desk-assistant"),
        ("clients?name=mcp-tickets", "alice@acme.example"),
        ("servers?name=https%3A%2F%2Ftickets.mcp.example%2Fmcp", "alice@acme.example"),
        ("resources?name=https%3A%2F%2Fapi.crm.example%2Fv2", "nightly-report"),
    ],
)
def test_a_party_has_a_page_of_its_own(client: TestClient, place: str, others: str) -> None:
    page = Markup(client.get(f"/audit/{place}").text)

    assert "First seen" in page.text
    assert others in page.text.replace(" ", "")


@pytest.mark.parametrize(
    "place",
    [
        "events/nothing",
        "events/a%2Fb%23c",
        "proofs/nothing",
        "people?name=nobody",
        "clients?name=nobody",
        "servers?name=nobody",
        "resources?name=nobody",
        "lineage?token=nothing",
        "find?id=nothing",
        "nowhere",
        "static/review.py",
        "static/..%2Froutes.py",
    ],
)
def test_what_is_not_there_is_not_found(client: TestClient, place: str) -> None:
    assert client.get(f"/audit/{place}").status_code == 404


@pytest.mark.parametrize(
    "place",
    [
        "people",
        "people?name=",
        "people?name=a&name=b",
        "people?name=a&more=b",
        "people?name=" + "x" * 1_100,
        "events/" + "x" * 1_100,
        "lineage?token=",
        "export",
        "export?format=exe",
        "export?format=csv&nonsense=1",
        "tail?nonsense=1",
        "tail/stream?after=%0a",
    ],
)
def test_what_is_asked_for_wrongly_is_refused(client: TestClient, place: str) -> None:
    assert client.get(f"/audit/{place}").status_code == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(client: TestClient, method: str) -> None:
    assert client.request(method, "/audit").status_code == 405


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (EXCHANGED, f"/audit/events/{EXCHANGED}"),
        (f"{EXCHANGED}@0123456789abcdef/http-0/441", f"/audit/events/{EXCHANGED}"),
        (f"{TOGETHER}#2", f"/audit/events/{TOGETHER}%232"),
        ("tickets-0", "/audit/lineage?token=tickets-0"),
        ("idp-0", "/audit/lineage?token=idp-0"),
    ],
)
def test_an_id_of_any_sort_is_found(client: TestClient, text: str, place: str) -> None:
    answer = client.get("/audit/find", params={"id": text})

    assert (answer.status_code, answer.headers.get("location")) == (303, place)


@pytest.mark.requirement("LOG-01")
def test_a_token_in_the_place_of_an_id_is_refused_and_not_repeated(client: TestClient) -> None:
    token = "eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiJ4In0.c2lnbmF0dXJl"

    answer = client.get("/audit/find", params={"id": token})

    assert answer.status_code == 400
    assert "looks like a token" in answer.text
    assert token not in answer.text


def test_a_lineage_is_a_tree_below_the_issue(client: TestClient) -> None:
    page = client.get("/audit/lineage?token=tickets-0").text

    tree = page[page.index('<ul class="tree">') :]
    assert tree.index("tickets-0") < tree.index("crm-0") < tree.index("mail-0")
    assert tree.count("<ul>") >= 2


def test_what_ends_with_its_ancestor_says_so(tmp_path: Path) -> None:
    story = Story(tmp_path / "audit")
    given = presented("a", expires_at=NOW + 300)
    story.tell(
        issue("first", at=NOW - 3, jti="a"),
        issue("second", at=NOW - 2, jti="b", lifetime=60, inputs=[given]),
        issue("end", at=NOW - 1, jti=None, event="token.revoke", inputs=[given]),
    )
    page = client_of(desk_of(story)).get("/audit/lineage?token=a").text
    assert page.index("Withdrawn:") < page.index("token <code>b</code>")
    assert page.index("Withdrawn with its ancestor") > page.index("token <code>b</code>")
    story.close()


def test_the_page_of_a_record_names_the_key_by_its_fingerprint(tmp_path: Path) -> None:
    story = Story(tmp_path / "audit")
    story.tell(issue("first", at=NOW - 3))
    story.sealer.step()
    page = Markup(client_of(desk_of(story)).get("/audit/events/first").text)
    (key,) = map(NoteKey.read, story.sealer.key_texts)
    assert f"Its fingerprint {key.fingerprint}" in page.text
    story.close()


def test_a_lineage_of_a_foreign_token_begins_where_it_was_presented(client: TestClient) -> None:
    page = Markup(client.get("/audit/lineage?token=idp-0").text)

    assert "Somebody else issued this token." in page.text
    assert "tickets-0" in page.text


@pytest.mark.parametrize(
    ("form", "first"), [("ndjson", "{"), ("csv", '"time",'), ("cef", "CEF:0|")]
)
def test_an_export_is_a_file_of_what_the_filters_show(
    client: TestClient, form: str, first: str
) -> None:
    text = file_in(client.get(f"/audit/export?format={form}&decision=deny").content)

    assert text.startswith(first)
    assert text.count("\n") == 77 + (form == "csv")


def test_an_export_that_breaks_in_the_middle_does_not_look_whole(story: Story) -> None:
    class Breaking:
        def __getattr__(self, name: str) -> Any:
            return getattr(story.reader, name)

        def find(self, query: Query, *, limit: int = 50, cursor: str = "") -> Page:
            if cursor:
                raise OSError("the disk is gone")
            return story.reader.find(query, limit=limit)

    client = client_of(desk_of(story, reader=Breaking()))
    many = [issue(f"many-{number}", at=NOW - 1_000) for number in range(100)]
    story.tell(*many, writer="grpc-1")

    with pytest.raises(OSError, match="the disk is gone"):
        client.get("/audit/export?format=ndjson")


def test_an_export_that_cannot_begin_is_a_page_that_says_so(story: Story) -> None:
    class Broken:
        def extent(self) -> Extent:
            return Extent(10**6, NOW, {})

        def find(self, _query: Query, **_: Any) -> Page:
            raise QueryTooExpensive

    answer = client_of(desk_of(story, reader=Broken())).get("/audit/export?format=ndjson")

    assert answer.status_code == 422
    assert "Choose a shorter time" in answer.text


class Failing:
    """A reader whose every answer is an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def find(self, _query: Query, **_: Any) -> Page:
        raise self._error


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (QueryTooExpensive(), 422, "Choose a shorter time"),
        (OSError("/secret/path is gone"), 503, "could not be read"),
    ],
)
def test_a_record_that_cannot_be_read_is_told_without_a_path(
    story: Story, error: Exception, status: int, told: str
) -> None:
    answer = client_of(desk_of(story, reader=Failing(error))).get("/audit")

    assert answer.status_code == status
    assert told in answer.text
    assert "/secret" not in answer.text


def test_a_list_is_shown_without_its_chart_where_counting_takes_too_long(story: Story) -> None:
    class Uncounted:
        def __getattr__(self, name: str) -> Any:
            return getattr(story.reader, name)

        def buckets(self, *_: Any, **__: Any) -> None:
            raise QueryTooExpensive

    answer = client_of(desk_of(story, reader=Uncounted())).get("/audit")

    assert answer.status_code == 200
    assert "There is too much to draw a chart of." in answer.text
    assert len(ids_in(answer.text)) == 50


class Noted:
    """What a witness was told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.told: list[tuple[str, tuple[str, ...], int]] = []

    @contextmanager
    def __call__(
        self, _request: Request, asked: str, *, people: Sequence[str] = ()
    ) -> Iterator["Noted"]:
        if self.error is not None:
            raise self.error
        self._asked, self._people, self._found = asked, tuple(people), 0
        yield self
        self.told.append((self._asked, self._people, self._found))

    def note(
        self, *, found: int = 0, asked: str = "", people_asked: Sequence[str] | None = ()
    ) -> None:
        self._found = found or self._found
        if asked:
            self._asked, self._people = asked, tuple(people_asked or ())


def test_what_is_looked_at_is_told_to_the_witness_without_people_in_the_text(story: Story) -> None:
    witness = Noted()
    client = client_of(desk_of(story, witness=witness))

    client.get(f"/audit?person={PEOPLE[0]}&decision=deny&since=24h&min_depth=2")
    client.get(f"/audit/people?name={PEOPLE[1]}")
    client.get(f"/audit/events/{EXCHANGED}")
    client.get("/audit/events/nothing")
    client.get("/audit/export?format=csv&decision=info")

    assert [people for _, people, _ in witness.told] == [
        (PEOPLE[0],),
        (PEOPLE[1],),
        (),
        ("nothing",),
        (),
    ]
    assert not [asked for asked, _, _ in witness.told if "@" in asked]
    assert witness.told[2] == (f"record {EXCHANGED}", (), 1)
    assert witness.told[3] == ("record", ("nothing",), 0)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RateLimited(Reason.CLIENT_LIMIT), 429),
        (TemporarilyUnavailable(Reason.AUDIT_UNAVAILABLE), 503),
    ],
)
def test_nothing_is_shown_that_cannot_be_put_on_record(
    story: Story, error: Exception, status: int
) -> None:
    answer = client_of(desk_of(story, witness=Noted(error))).get(f"/audit/events/{EXCHANGED}")

    assert answer.status_code == status
    assert "alice" not in answer.text
    assert int(answer.headers["retry-after"]) > 0


def test_a_stream_tells_what_came_since_and_ends(tmp_path: Path) -> None:
    story = Story(tmp_path / "audit")
    story.tell(issue("before", at=NOW - 1))
    after = story.reader.latest()
    story.tell(hostile("came", at=NOW))
    client = client_with(story, Streams(longest=0.2))

    answer = client.get("/audit/tail/stream", params={"after": after})
    story.close()

    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [one for one in answer.text.split("\n\n") if "data:" in one]
    assert len(events) == 1
    assert "/audit/events/came" in events[0]
    assert "<script>" not in events[0]


def test_a_stream_ends_with_the_session_of_whoever_asked(tmp_path: Path) -> None:
    story = Story(tmp_path / "audit")
    story.tell(issue("before", at=NOW - 1))
    after = story.reader.latest()
    story.tell(issue("came", at=NOW))
    client = client_of(desk_of(story, may_still_look=lambda _: False))

    answer = client.get("/audit/tail/stream", params={"after": after})
    story.close()

    assert "came" not in answer.text


def test_no_more_streams_are_open_than_may_be(tmp_path: Path) -> None:
    story = Story(tmp_path / "audit")
    story.tell(issue("one", at=NOW))
    answer = client_with(story, Streams(most=0)).get("/audit/tail/stream")
    story.close()

    assert answer.status_code == 503


def test_every_event_has_a_name_for_people() -> None:
    assert set(get_args(Event)) <= set(EVENTS)


def test_the_style_sheet_and_the_script_are_kept_by_browsers_until_they_change(
    client: TestClient,
) -> None:
    page = client.get("/audit").text
    for address in re.findall(r'(?:href|src)="(/audit/static/[^"]+)"', page):
        answer = client.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def client_with(story: Story, streams: Streams) -> TestClient:
    """A program that asks for pages with these streams."""
    return TestClient(Starlette(routes=review_routes(desk_of(story), streams=streams)))


def test_whoever_read_the_record_is_called_an_auditor_and_no_person(tmp_path: Path) -> None:
    story = Story(tmp_path / "audit")
    told: dict[str, Any] = {"event": "audit.read", "jti": None, "auth_method": "link"}
    story.tell(
        issue("asked", at=NOW - 2, auditor="root", asked="person", people_asked=["ann"], **told),
        issue("about", at=NOW - 1, subject="root"),
    )
    client = client_of(desk_of(story))

    listed = client.get("/audit?auditor=root").text
    about = client.get("/audit?person=root").text
    shown = client.get("/audit/events/asked").text
    party = client.get("/audit/people?name=root").text

    assert ids_in(listed) == ["asked"]
    cell = '<td role="cell" data-label="Auditor" class="name"><span class="role">Auditor</span>'
    assert cell in listed
    assert '<a class="quiet" href="/audit?auditor=root">root</a>' in listed
    assert 'data-label="Detail"><span>page of ann</span>' in listed
    assert 'data-label="Scopes"></td>' in about
    assert "asked the audit record for the page of the person ann" in Markup(shown).text
    assert ids_in(about) == ids_in(party) == ["about"]
    assert 'class="role"' not in about
    assert '<a href="/audit?auditor=root">root</a>' in shown
    story.close()
