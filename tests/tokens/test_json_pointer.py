import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.tokens.json_pointer import is_pointer, value_at

RFC_6901 = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}
"""The document of RFC 6901 5."""


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
    ],
)
def test_a_pointer_leads_where_the_standard_says(pointer: str, value: object) -> None:
    assert is_pointer(pointer)
    assert value_at(RFC_6901, pointer) == value


def test_an_escaped_tilde_before_a_digit_is_no_escaped_slash() -> None:
    assert value_at({"~1": "tilde", "/": "slash"}, "/~01") == "tilde"


@pytest.mark.parametrize(
    "pointer",
    [
        "/nowhere",
        "/foo/2",
        "/foo/-",
        "/foo/-1",
        "/foo/00",
        "/foo/+0",
        "/foo/\u0660",
        "/foo/" + "9" * 5000,
        "/foo/length",
        "/foo/0/0",
        "/a~1b/x",
        "//x",
    ],
    ids=lambda pointer: ascii(pointer)[:12],
)
def test_a_pointer_that_leads_nowhere_finds_nothing(pointer: str) -> None:
    assert value_at(RFC_6901, pointer) is None


@pytest.mark.parametrize("text", ["", "foo", "#/foo", "/~", "/~2", "/a~", "/a~/b", "/~~0"])
def test_a_text_that_is_no_pointer_is_told(text: str) -> None:
    assert not is_pointer(text)


@given(st.text(max_size=40))
def test_every_name_has_a_pointer(name: str) -> None:
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")

    assert is_pointer(pointer)
    assert value_at({name: "found"}, pointer) == "found"
