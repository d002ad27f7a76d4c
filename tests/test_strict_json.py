"""JSON with one meaning, or none (RFC 7519 4, RFC 8725 3.7)."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import Reason
from broker.strict_json import StrictJsonError, _read_any_form, loads_strict


def refusal_of(raw: bytes) -> Reason:
    with pytest.raises(StrictJsonError) as error:
        loads_strict(raw)
    return error.value.reason


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.requirement("CLM-01")
@pytest.mark.parametrize(
    "document",
    [
        b'{"sub":"a","sub":"b"}',
        b'{"sub":"a","sub":"a"}',
        b'{"sub":1,"x":2,"sub":null}',
        b'{"sub":"a","s\\u0075b":"b"}',
        b'{"x":{"y":[{"z":1,"z":2}]}}',
        b'{"":1,"":2}',
    ],
)
def test_a_member_given_twice_is_refused_at_any_depth(document: bytes) -> None:
    assert refusal_of(document) is Reason.DUPLICATE_MEMBER


def test_members_that_only_look_alike_are_kept_apart() -> None:
    assert loads_strict('{"sub":1,"Sub":2,"\u0455ub":3,"sub ":4}'.encode()) == {
        "sub": 1,
        "Sub": 2,
        "\u0455ub": 3,
        "sub ": 4,
    }


@pytest.mark.requirement("CLM-02")
@pytest.mark.parametrize("depth", [17, 33, 900, 100_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    assert refusal_of(nested(depth)) is Reason.JSON_TOO_DEEP
    assert refusal_of(b'{"a":' * depth + b"1" + b"}" * depth) is Reason.JSON_TOO_DEEP
    assert refusal_of(b"[" * depth) is Reason.JSON_TOO_DEEP


def test_nesting_to_the_limit_and_any_breadth_is_read() -> None:
    assert json.dumps(loads_strict(nested(16))).encode() == nested(16)
    assert len(loads_strict(b"[" + b"[[]]," * 5000 + b"[]]")) == 5001


def test_brackets_inside_strings_are_no_nesting() -> None:
    text = '[{"' * 100 + '\\"[' * 100

    assert loads_strict(json.dumps([text, [text]]).encode()) == [text, [text]]


def test_a_caller_may_ask_for_less_depth() -> None:
    assert loads_strict(b"[[1]]", max_depth=2) == [[1]]
    with pytest.raises(StrictJsonError) as error:
        loads_strict(b"[[[1]]]", max_depth=2)
    assert error.value.reason is Reason.JSON_TOO_DEEP


@pytest.mark.requirement("CLM-03")
@pytest.mark.parametrize(
    "number",
    [
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e309",
        b"-1e400",
        b"1e99999",
        b"9" * 33,
        b"9" * 4000,
        b"9" * 100_000,
        b"9" * 400 + b".5",
    ],
)
def test_a_number_that_is_not_finite_or_absurdly_long_is_refused(number: bytes) -> None:
    assert refusal_of(number) is Reason.CLAIM_MALFORMED
    assert refusal_of(b'{"exp":' + number + b"}") is Reason.CLAIM_MALFORMED


@pytest.mark.requirement("CLM-10")
@pytest.mark.parametrize(
    "document",
    [
        '{"sub":"a"}'.encode("utf-16"),
        '{"sub":"a"}'.encode("utf-16-le"),
        '{"sub":"a"}'.encode("utf-32"),
        b"\xef\xbb\xbf{}",
        b'{"sub":"\xff"}',
        b'{"sub":"\xc0\x80"}',
        b'{"sub":"\xed\xa0\x80"}',
        b'{"sub":"\xf4\x90\x80\x80"}',
        b'{"sub":"a\x00b"}',
        b'{"sub":"a\nb"}',
    ],
)
def test_another_encoding_is_refused(document: bytes) -> None:
    assert refusal_of(document) is Reason.MALFORMED_TOKEN


@pytest.mark.requirement("CLM-09")
@pytest.mark.parametrize(
    "document",
    [
        b'{"sub":"\\ud800"}',
        b'{"sub":"\\udc00\\ud800"}',
        b'{"\\udfff":1}',
        b'["a",{"x":["\\uD83D"]}]',
    ],
)
def test_a_lone_surrogate_is_refused(document: bytes) -> None:
    refusal_of(document)


def test_an_escaped_pair_of_surrogates_is_a_character() -> None:
    assert loads_strict(b'"\\ud83d\\ude00"') == "\U0001f600"


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b" ",
        b"{",
        b"[1,]",
        b"{'a':1}",
        b"{a:1}",
        b"{}{}",
        b"{} x",
        b"// x\n{}",
        b"01",
        b"+1",
        b"\\",
    ],
)
def test_what_is_not_json_is_refused(document: bytes) -> None:
    assert refusal_of(document) is Reason.MALFORMED_TOKEN


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    ).filter(lambda value: json.dumps(value).count("[") + json.dumps(value).count("{") <= 16)
)
def test_sound_documents_keep_their_meaning(value: Any) -> None:
    for is_ascii in (True, False):
        assert loads_strict(json.dumps(value, ensure_ascii=is_ascii).encode()) == value


@given(
    st.binary(max_size=200)
    | st.text(alphabet='[]{}",:\\u0d8a1.eE-tfn ', max_size=60).map(str.encode)
)
def test_whatever_the_bytes_there_is_a_value_or_a_refusal(raw: bytes) -> None:
    try:
        value = loads_strict(raw)
    except StrictJsonError:
        return
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.requirement("CLM-02")
@pytest.mark.parametrize("tail", [b'"' + b'\\"' * 125_000, b'"' + b"\\" * 250_000, b'""' * 125_000])
def test_a_string_that_never_ends_costs_no_more_than_its_length(tail: bytes) -> None:
    # Twenty brackets make the depth be looked at; reading the rest anew from every escaped quote
    # would take minutes here.
    assert refusal_of(b"[" + b"[]," * 20 + tail) is Reason.MALFORMED_TOKEN


_MEMBER = st.sampled_from(
    [
        '"a":1',
        '"a": 1',
        '"b":"\\u0061"',
        '"b":"\\ud800"',
        '"c":1e400',
        '"d":1.0',
        '"d":-0',
        '"e":1E5',
        '"f":"é"',
        '"g":[1,{"a":2}]',
        '"g":{"a":1,"a":1}',
        '"h":' + "9" * 33,
        '"h":-' + "9" * 32,
        '"i":"\\n\\/"',
        '"j":null',
        '"\\u006a":true',
        '"k":"\x7f"',
        '"l":01',
        "",
        " ",
        "\t",
    ]
)


@pytest.mark.requirement("CLM-01")
@given(st.lists(_MEMBER, max_size=4), st.sampled_from([",", ", ", " ,\n"]))
def test_a_document_in_its_shortest_form_means_what_it_means_in_any(
    members: list[str], comma: str
) -> None:
    raw = ("{" + comma.join(members) + "}").encode()

    assert _outcome(loads_strict, raw) == _outcome(_read_any_form, raw)


def _outcome(read: Callable[[bytes], Any], raw: bytes) -> str:
    try:
        return repr(read(raw))
    except StrictJsonError as refused:
        return refused.reason.code
