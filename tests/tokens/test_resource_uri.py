import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InvalidTarget, Reason
from broker.tokens.resource_uri import normalise_resource


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("https://api.example/v1", "https://api.example/v1"),
        ("HTTPS://API.Example/V1", "https://api.example/V1"),
        ("https://api.example/", "https://api.example"),
        ("https://api.example", "https://api.example"),
        ("https://api.example/v1/", "https://api.example/v1/"),
        ("https://api.example//", "https://api.example//"),
        ("https://api.example/%7Euser", "https://api.example/%7Euser"),
        ("https://api.example/a?B=%C3%A4&c", "https://api.example/a?B=%C3%A4&c"),
        ("https://API.example:443/", "https://api.example:443"),
        ("http://[2001:DB8::1]:8080/mcp", "http://[2001:db8::1]:8080/mcp"),
        ("MCP://Tools.example/x", "mcp://tools.example/x"),
        ("URN:example:Api:v1", "urn:example:Api:v1"),
    ],
)
def test_only_scheme_host_and_a_lone_slash_are_brought_to_one_form(
    written: str, normal: str
) -> None:
    """RFC 8707 2 wants an absolute URI; the rest of it may mean something in each byte."""
    assert normalise_resource(written) == normal


@pytest.mark.parametrize(
    "value",
    [
        "",
        "api.example",
        "/v1",
        "//api.example/v1",
        "https:api.example",
        "https:/api.example",
        "https://",
        "https:///v1",
        "https://api.example/#part",
        "https://api.example#",
        "https://user@api.example/",
        "https://user:secret@api.example/",
        "https://api.example@evil.example/",
        "https://api.example/a b",
        " https://api.example/",
        "https://api.example/\n",
        "https://api.example/\t",
        "https://api.example\\@evil.example/",
        "https://api.example/\\..",
        "https://api.example/\x00",
        "https://\u0430pi.example/",
        "https://api.example/\u00e4",
        "https://api.example\u2044v1",
        "javascript:alert(1)",
        "javascript://api.example/%0aalert(1)",
        "data:text/plain,x",
        "data://api.example/x",
        "file:///etc/passwd",
        "file://api.example/etc/passwd",
        "mailto:someone@example.com",
        "urn:",
        "urn:x",
        "urn:example:a#b",
        "https://api.example/" + "a" * 2048,
    ],
)
def test_anything_but_an_absolute_uri_of_a_host_is_refused(value: str) -> None:
    with pytest.raises(InvalidTarget) as refused:
        normalise_resource(value)

    assert refused.value.reason is Reason.TARGET_MALFORMED


@given(st.text(max_size=60))
def test_whatever_is_accepted_is_already_in_normal_form_the_second_time(tail: str) -> None:
    try:
        normal = normalise_resource("https://API.example" + tail)
    except InvalidTarget:
        return

    assert normalise_resource(normal) == normal
    assert normal.isascii()
    assert not any(character.isspace() for character in normal)
