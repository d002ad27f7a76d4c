"""Records in the formats of other systems: what matters is there, and nothing in them does anything."""

import csv
import io
import json
import re
from typing import Any

import msgspec
import pytest

from broker.audit.chain import encode, line_hash
from broker.audit.record import RECORD_DECODER, Record
from broker.audit.telling.csv_cells import cell, row
from broker.audit.telling.formats import FORMATS
from broker.audit.telling.ocsf import OCSF_VERSION, ocsf_event
from broker.audit.telling.sentence import sentence
from tests.audit.telling import records

RECORDS = records.every_record()

# What OCSF 1.7.0 requires of any event, of API Activity and of Application Lifecycle, as far as they
# are written here: the required attributes, and for objects one at least of some.
BASE = (
    "activity_id",
    "category_uid",
    "class_uid",
    "metadata.product.name",
    "metadata.version",
    "severity_id",
    "time",
    "type_uid",
)
REQUIRED = {6003: (*BASE, "actor", "api.operation", "src_endpoint"), 6002: (*BASE, "app.name")}
ONE_OF = {
    "actor": {"process", "user", "invoked_by", "session", "app_name", "app_uid"},
    "src_endpoint": {"ip", "uid", "name", "hostname", "svc_name", "instance_uid", "domain"},
    "actor.user": {"account", "name", "uid"},
}
ACTIVITIES = {6003: {0, 1, 2, 3, 4, 99}, 6002: {0, 1, 2, 3, 4, 5, 6, 7, 8, 99}}


def at(event: Any, path: str) -> Any:
    """The value at a path of names, or ``None``."""
    for name in path.split("."):
        event = event.get(name) if isinstance(event, dict) else None
    return event


def cells_of(one: Record) -> dict[str, str]:
    """What a reader of CSV makes of a record."""
    chosen = FORMATS["csv"]
    text = (chosen.head + chosen.row(one, encode(one))).decode()
    (cells,) = csv.DictReader(io.StringIO(text, newline=""))
    return cells


def cef_of(one: Record) -> tuple[list[str], dict[str, str]]:
    """What a reader of CEF makes of a record: split where nothing is escaped, then unescaped."""
    line = FORMATS["cef"].row(one, encode(one)).decode().removesuffix("\n")
    *header, extension = re.split(r"(?<!\\)(?:\\\\)*\|", line, maxsplit=7)
    found = re.findall(r"(\w+)=((?:[^\\=]|\\.)*?)(?= \w+=|$)", extension)
    return header, {key: re.sub(r"\\(.)", r"\1", value) for key, value in found}


@pytest.mark.parametrize("one", RECORDS, ids=records.name_of)
def test_an_event_has_what_its_class_requires(one: Record) -> None:
    event = ocsf_event(one, encode(one))

    for path in REQUIRED[event["class_uid"]]:
        assert at(event, path) is not None, path
    for path, names in ONE_OF.items():
        told = at(event, path)
        assert told is None or names & told.keys(), path
    assert event["metadata"]["version"] == OCSF_VERSION == "1.7.0"
    assert event["activity_id"] in ACTIVITIES[event["class_uid"]]
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert event["category_uid"] == event["class_uid"] // 1000
    assert event["status_id"] in {1, 2}
    assert event["time"] == records.NOW * 1000


def test_a_refusal_is_a_failure_with_its_reason_and_the_policy() -> None:
    event = ocsf_event(records.denied(), encode(records.denied()))

    assert (event["status_id"], event["status_code"]) == (2, "policy_forbidden")
    assert event["actor"]["authorizations"][0] == {
        "decision": "forbidden: contacts.write",
        "policy": {
            "uid": "contacts-are-read-only",
            "version": records.DIGEST,
            "is_applied": True,
        },
    }


@pytest.mark.parametrize("one", RECORDS, ids=records.name_of)
def test_no_member_of_a_record_is_lost_in_an_event(one: Record) -> None:
    event = json.loads(FORMATS["ocsf"].row(one, encode(one)))
    told = json.dumps(event)

    for value in msgspec.to_builtins(one).values():
        assert json.dumps(value) in told


@pytest.mark.parametrize("one", RECORDS, ids=records.name_of)
def test_a_line_of_ndjson_is_the_line_of_the_chain(one: Record) -> None:
    line = encode(one)

    written = FORMATS["ndjson"].row(one, line)

    assert written == line + b"\n"
    assert RECORD_DECODER.decode(written) == one


def test_a_line_that_none_of_our_writers_wrote_means_the_same_when_it_is_escaped() -> None:
    line = '{"a":"\u202e\x7f\U0001f600 \\n"}'.encode()

    written = FORMATS["ndjson"].row(records.login(), line)

    assert written.decode().removesuffix("\n").isprintable()
    assert json.loads(written) == json.loads(line)


@pytest.mark.parametrize("one", RECORDS, ids=records.name_of)
def test_a_row_of_csv_reads_back(one: Record) -> None:
    cells = cells_of(one)

    assert cells["event"] == one.event
    assert cells["subject"] == (one.subject or "")
    assert cells["scopes_granted"] == " ".join(one.scopes_granted or [])
    assert cells["seq"] == str(one.seq)
    assert cells["line_hash"] == line_hash(encode(one))
    assert cells["sentence"] == sentence(one)


@pytest.mark.parametrize("one", RECORDS, ids=records.name_of)
def test_a_line_of_cef_reads_back(one: Record) -> None:
    header, members = cef_of(one)

    assert header[0] == "CEF:0"
    assert header[4] == one.event
    assert 0 <= int(header[6]) <= 10
    assert members["externalId"] == one.event_id
    assert members["act"] == one.decision
    assert members["flexString2"] == line_hash(encode(one))
    assert members["msg"] == sentence(one)


@pytest.mark.requirement("LOG-02")
@pytest.mark.parametrize("name", FORMATS)
def test_a_hostile_value_stays_one_line_that_steers_nothing(name: str) -> None:
    for one in RECORDS:
        for text in records.HOSTILE:
            hostile = records.poisoned(one, text)
            line = b'{"x":"\\u202e"}' if text == "\ud800" else encode(hostile)

            written = FORMATS[name].row(hostile, line).decode()

            assert written.endswith("\n")
            assert written.rstrip("\r\n").isprintable()


@pytest.mark.requirement("LOG-02")
def test_no_cell_is_a_formula() -> None:
    for text in records.HOSTILE:
        if text == "\ud800":
            continue
        for value in cells_of(records.poisoned(records.exchange(), text)).values():
            assert not value.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r"))


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\tx", "\rx", "  =1", "\uff1d1"])
def test_what_a_spreadsheet_would_calculate_has_an_apostrophe_in_front(text: str) -> None:
    assert cell(text).startswith("\"'")


def test_cells_are_quoted_and_their_quotes_doubled() -> None:
    assert row(['a"b', "c,d", None, 7]) == b'"a""b","c,d","","7"\r\n'


@pytest.mark.requirement("LOG-02")
def test_no_value_adds_a_member_to_a_line_of_cef() -> None:
    _, usual = cef_of(records.exchange())

    for text in ["x act=deny", "x\\", "x\\\\= act=deny", "a|b", "x\nact=deny", "\\=x=\\"]:
        header, members = cef_of(records.exchange(subject=text, event_id=text))

        assert members.keys() == usual.keys()
        assert members["act"] == "permit"
        assert len(header) == 7
