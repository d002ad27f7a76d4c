"""Whatever a request says, a record of it is one bounded line of JSON that is safe to show."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.chain import MAX_LINE_BYTES, Head, encode, link
from broker.audit.entry import Entry, audit_logger
from broker.audit.record import (
    ID_LIMIT,
    LIST_LIMIT,
    RECORD_DECODER,
    TEXT_LIMIT,
    InputFact,
    Record,
    ScopeFact,
)
from broker.audit.text import SECRET_REMOVED, TOKEN_REMOVED, is_plain, safe_text
from broker.model import InputToken, RequestContext, ScopeDecision, Verdict

HEADER = "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9"
PAYLOAD = "eyJzdWIiOiJhbGljZSIsImNhbmFyeSI6ImMwZmZlZSJ9"
SIGNATURE = "c0ffeeC0FFEEc0ffeeC0FFEEc0ffeeC0FFEEc0ffeeC0FFEEc0ffeeC0FFEEc0ffeeC0FFEEc0ffeeC0FFEE00"
TOKEN = f"{HEADER}.{PAYLOAD}.{SIGNATURE}"

TEXT_FACTS = sorted(
    field.name
    for field in msgspec.structs.fields(Record)
    if "str" in str(field.type)
    and "list" not in str(field.type)
    and field.default is None
    and field.name not in {"boot_id", "cause", "group", "log_id", "reason"}
)


class Sink:
    """Keeps the last record."""

    record: Record

    def append(self, records: Sequence[Record]) -> None:
        (self.record,) = records


def written(**facts: Any) -> bytes:
    """The line of a permitted request with these facts."""
    sink = Sink()
    context = RequestContext("http", "req-1", "192.0.2.7")
    with Entry(audit_logger(sink, now=lambda: 1_800_000_000), "token.issue", context, str) as entry:
        entry.note(**facts)
    data, _ = link([sink.record], Head(), writer="w1")
    return data


def recorded(**facts: Any) -> dict[str, Any]:
    """The same, read back as a viewer would."""
    line: dict[str, Any] = json.loads(written(**facts))
    return line


def strings_in(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for one in (*value, *value.values()) for text in strings_in(one)]
    if isinstance(value, list):
        return [text for one in value for text in strings_in(one)]
    return []


def assert_is_one_safe_line(data: bytes) -> None:
    assert data.count(b"\n") == 1
    assert data.endswith(b"}\n")
    assert len(data) <= MAX_LINE_BYTES
    assert all(0x20 <= byte <= 0x7E for byte in data[:-1])
    RECORD_DECODER.decode(data)
    for text in strings_in(json.loads(data)):
        assert text.isprintable()
        text.encode()


@pytest.mark.requirement("LOG-02")
@pytest.mark.parametrize("name", TEXT_FACTS)
@pytest.mark.parametrize(
    "text",
    [
        'alice\r\n{"decision":"permit"}',
        "\x1b[2J\x1b]0;owned\x07",
        "alice\u2028bob\u2029\x85",
        'x","decision":"permit","seq":0,"y":"',
        "user\u202eexe.gpj\u2066",
        "\ud800 alone",
        "\x00\x7f\x9b",
        "\ufeff\u200b\u00ad",
        "\U000e0041\U0010ffff",
        "\\",
    ],
)
def test_text_that_would_forge_or_hide_lines_stays_inside_its_fact(name: str, text: str) -> None:
    data = written(**{name: text})

    assert_is_one_safe_line(data)
    assert json.loads(data)["decision"] == "permit"


@pytest.mark.requirement("LOG-02")
def test_what_cannot_be_shown_is_told_by_its_code_point() -> None:
    assert recorded(subject="a\nb\u202ec\ud800\U000e0041")["subject"] == (
        "a\\u000ab\\u202ec\\ud800\\U000e0041"
    )


def test_what_can_be_shown_is_kept_in_any_script() -> None:
    for subject in ("José", "Łukasz Żółć", "山田太郎", "алиса", "😀", 'say "hi"', "a\\b"):
        assert recorded(subject=subject)["subject"] == subject


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.requirement("LOG-02")
@given(
    text=st.text(st.characters(exclude_categories=())),
    peer=st.text(st.characters(exclude_categories=())),
    scopes=st.lists(st.text(st.characters(exclude_categories=())), max_size=80),
    actor=st.dictionaries(st.text(), json_values, max_size=5),
)
def test_any_text_anywhere_gives_one_safe_line(
    text: str, peer: str, scopes: list[str], actor: dict[str, Any]
) -> None:
    sink = Sink()
    context = RequestContext(text, text, peer)
    with Entry(audit_logger(sink, now=lambda: 1_800_000_000), "token.issue", context, str) as entry:
        entry.note(
            subject=text,
            detail=text * 40,
            unverified_client_id=text,
            scopes_asked=scopes,
            policy_ids=frozenset(scopes),
            actors=[actor],
            inputs=[InputToken(text, text, text, 1)],
            scope_decisions=[ScopeDecision(text, Verdict.ERROR, tuple(scopes), (text,))],
        )

    assert_is_one_safe_line(encode(sink.record) + b"\n")


@pytest.mark.requirement("LOG-06")
@pytest.mark.parametrize(
    "text", ["x" * 1_000_000, "ü\n" * 600, "\ud800" * 5000, "\U0001f600" * 3000]
)
def test_a_giant_fact_is_cut_and_tells_its_length_and_hash(text: str) -> None:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    subject = recorded(subject=text)["subject"]

    assert len(subject) == TEXT_LIMIT
    assert subject.endswith(f"[cut, {len(text)} characters, sha256:{digest}]")


@pytest.mark.requirement("LOG-06")
@pytest.mark.parametrize(("length", "is_whole"), [(ID_LIMIT, True), (ID_LIMIT + 1, False)])
def test_an_id_is_whole_up_to_its_limit(length: int, *, is_whole: bool) -> None:
    jti = recorded(jti="j" * length)["jti"]

    assert (jti == "j" * length) is is_whole
    assert len(jti) == ID_LIMIT


@pytest.mark.requirement("LOG-06")
def test_a_long_list_is_cut_and_tells_how_long_it_was() -> None:
    facts = {
        "scopes_asked": [f"s{number}" for number in range(500)],
        "actors": [{"sub": str(number)} for number in range(500)],
        "inputs": [InputToken("subject_token", "i", None, 1)] * 500,
        "scope_decisions": [ScopeDecision("s", Verdict.PERMIT)] * 500,
    }

    record = recorded(**facts)

    assert all(len(record[name]) == LIST_LIMIT for name in facts)
    marker = "[cut, 500 items]"
    assert record["scopes_asked"][-1] == marker
    assert record["actors"][-1] == {"cut": marker}
    assert record["inputs"][-1]["slot"] == marker
    assert record["scope_decisions"][-1]["scope"] == marker


@pytest.mark.requirement("LOG-06")
def test_a_list_at_its_limit_is_whole() -> None:
    scopes = [f"s{number}" for number in range(LIST_LIMIT)]

    assert recorded(scopes_asked=scopes)["scopes_asked"] == scopes


@pytest.mark.requirement("LOG-06")
def test_deep_wide_and_enormous_actors_are_bounded() -> None:
    deep: dict[str, Any] = {}
    for _ in range(900):
        deep = {"x": deep}
    wide = {f"claim-{number}": number for number in range(10_000)}

    (first, second, third) = recorded(actors=[deep, wide, {"n": 10**400, "m": -(10**400)}])[
        "actors"
    ]

    assert first == {"x": {"x": {"x": "[cut, nested too deeply]"}}}
    assert len(second) == LIST_LIMIT
    assert third == {"n": 2**53 - 1, "m": 1 - 2**53}


@pytest.mark.requirement("LOG-06")
def test_a_line_that_would_still_be_too_long_gives_up_its_lists() -> None:
    scopes = ["\U0001f600" * ID_LIMIT] * LIST_LIMIT
    data = written(subject="alice", scopes_asked=scopes, targets_asked=scopes)

    assert_is_one_safe_line(data)
    record = json.loads(data)
    assert record["subject"] == "alice"
    assert "scopes_asked" not in record
    assert record["detail"].startswith("[cut, lists left out of ")


@pytest.mark.requirement("LOG-06")
def test_a_record_with_every_fact_enormous_still_fits_a_line() -> None:
    giant = "\U0001f600" * 10_000
    facts: dict[str, Any] = dict.fromkeys(TEXT_FACTS, giant)

    data = written(**facts, scopes_asked=[giant] * 100, actors=[{giant: [giant] * 100}] * 100)

    assert_is_one_safe_line(data)


@pytest.mark.requirement("LOG-01")
@pytest.mark.parametrize("name", TEXT_FACTS)
def test_a_token_in_a_fact_is_removed(name: str) -> None:
    assert recorded(**{name: TOKEN})[name] == TOKEN_REMOVED


@pytest.mark.requirement("LOG-01")
@pytest.mark.parametrize(
    "text",
    [
        f"Bearer {TOKEN}",
        f"bad token: '{TOKEN}'",
        f"{TOKEN} {TOKEN}",
        f"prefix{TOKEN}",
        f"{HEADER}.{PAYLOAD}",
        f"{HEADER}.{PAYLOAD}.",
        f"{HEADER}..{PAYLOAD}.{PAYLOAD}.{SIGNATURE}",
        f"ewogICJhbGciOiAiRVMyNTYiCn0.{PAYLOAD[3:]}.{SIGNATURE}",
        f"eyAiYWxnIjogIkVTMjU2IiB9.{PAYLOAD[3:]}.{SIGNATURE}",
        "x" * 900 + TOKEN,
        "x" * (TEXT_LIMIT - 60) + TOKEN,
        "\n" * 900 + TOKEN * 5_000,
        f"https://sts.test/?subject_token={TOKEN}&x=1",
    ],
)
def test_a_token_is_removed_wherever_and_however_it_stands(text: str) -> None:
    data = written(detail=text)

    assert PAYLOAD[3:].encode() not in data
    assert SIGNATURE[:40].encode() not in data


@pytest.mark.requirement("LOG-01")
def test_a_token_is_removed_from_lists_and_objects() -> None:
    data = written(
        scopes_asked=[TOKEN, "a:read"],
        targets_asked=[f"https://api.test/{TOKEN}"],
        actors=[{"sub": TOKEN, "x": [{"y": TOKEN}], TOKEN: "z"}],
        inputs=[InputToken("subject_token", TOKEN, TOKEN, 1)],
        scope_decisions=[ScopeDecision(TOKEN, Verdict.ERROR, (TOKEN,), (TOKEN,))],
    )

    assert b"eyJ" not in data
    assert data.count(TOKEN_REMOVED.encode()) == 10


@pytest.mark.parametrize(
    "text",
    [
        "https://eyewitness.example.com/keys/monkey.survey.json",
        "eyJ",
        "eyJhbGciOiJFUzI1NiJ9",
        "journey.money.eyebrow.honey.turkey.jersey",
        "0123456789abcdef0123456789abcdef.0123456789abcdef0123456789abcdef",
        "urn:ietf:params:oauth:token-type:access_token",
    ],
)
def test_what_only_resembles_a_token_is_kept(text: str) -> None:
    assert recorded(subject=text)["subject"] == text


@pytest.mark.requirement("LOG-01")
@pytest.mark.parametrize("text", ["basic YWxpY2U6c2VjcmV0", "BASIC YWxpY2U6c2VjcmV0"])
def test_a_secret_is_removed_however_its_scheme_is_written(text: str) -> None:
    assert recorded(unverified_client_id=text)["unverified_client_id"] == SECRET_REMOVED


def test_what_only_resembles_a_secret_is_kept() -> None:
    """No secret that is handed out begins with capitals, and a key's id may hold any letters."""
    assert recorded(kid="aBKS_0123456789")["kid"] == "aBKS_0123456789"


@pytest.mark.requirement("LOG-01")
def test_one_text_that_is_not_plain_leaves_the_others_as_they_are() -> None:
    facts = {
        "client_id": "agent-x",
        "tenant": "José",
        "scopes_asked": ("a:read", TOKEN),
        "lifetime": 300,
    }

    record = recorded(**facts, subject="x\ny", inputs=(InputToken("subject_token", "i", "j", 1),))

    assert record["scopes_asked"] == ["a:read", TOKEN_REMOVED]
    assert (record["client_id"], record["tenant"], record["lifetime"]) == ("agent-x", "José", 300)
    assert record["subject"] == "x\\u000ay"
    assert record["inputs"] == [
        {"expires_at": 1, "issuer": "i", "jti": "j", "slot": "subject_token"}
    ]


SUSPECTS = st.sampled_from(
    [
        TOKEN,
        HEADER,
        "ey" + "A" * 62,
        "ew.." * 20,
        "bks_",
        "BKS_12345678",
        "Basic ",
        "basic",
        "YWxpY2U6c2Vj",
        "private_key_jwt",
        *("\x7f", "\x1f", " ", ".", "\u017f", "\u212a"),
        "x" * 200,
    ]
)


@pytest.mark.requirement("LOG-01")
@given(st.lists(st.lists(SUSPECTS | st.text(max_size=5), max_size=4).map("".join), max_size=6))
def test_plain_is_only_what_would_be_kept_as_it_is(texts: list[str]) -> None:
    if is_plain(texts, 128):
        assert [safe_text(text, 128) for text in texts] == texts


@given(st.text(st.characters(exclude_categories=()), max_size=400), st.integers(128, 300))
def test_safe_text_is_stable(text: str, limit: int) -> None:
    """What was made safe once is not changed again, unless it was cut."""
    once = safe_text(text, limit)

    assert len(once) <= limit
    assert once.isprintable()
    assert safe_text(once, limit) == once


def test_the_parts_of_a_record_are_closed_too() -> None:
    for part in (InputFact, ScopeFact):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"slot": "s", "scope": "s", "unknown": 1}, part)
