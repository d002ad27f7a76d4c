import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.fetch import FetchReason, FetchRefused, read_url


def refusal_of(url: str) -> FetchReason:
    with pytest.raises(FetchRefused) as refused:
        read_url(url)
    return refused.value.reason


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "authority"),
    [
        ("https://idp.test", "idp.test", 443, "/", "idp.test"),
        ("https://IDP.Test/a/./b", "idp.test", 443, "/a/./b", "idp.test"),
        (
            "https://idp.test:8443/keys?v=1&x=a/b",
            "idp.test",
            8443,
            "/keys?v=1&x=a/b",
            "idp.test:8443",
        ),
        ("https://idp.test?v=1", "idp.test", 443, "/?v=1", "idp.test"),
        ("https://idp.test:443/", "idp.test", 443, "/", "idp.test"),
        ("http://127.0.0.1:8080/jwks", "127.0.0.1", 8080, "/jwks", "127.0.0.1:8080"),
        ("https://[2606:4700:0::1]/", "2606:4700::1", 443, "/", "[2606:4700::1]"),
        ("https://xn--bcher-kva.test/", "xn--bcher-kva.test", 443, "/", "xn--bcher-kva.test"),
    ],
)
def test_a_plain_url_is_read_as_it_stands(
    url: str, host: str, port: int, path: str, authority: str
) -> None:
    target = read_url(url)

    assert (target.host, target.port, target.path, target.authority) == (
        host,
        port,
        path,
        authority,
    )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "idp.test/jwks",
        "//idp.test/jwks",
        "https:/idp.test/",
        "https:///jwks",
        "https://",
        "ftp://idp.test/",
        "file:///etc/passwd",
        "gopher://idp.test/",
        "HTTPS://idp.test/",
        " https://idp.test/",
        "https://idp.test/ ",
        "https://idp.test/a b",
        "https://idp.test/\t",
        "https://idp\t.test/",
        "https://idp.test/a\r\nHost: evil.test",
        "https://idp.test/a\nb",
        "https://idp.test/\x00",
        "https://idp.test/\x7f",
        "https://idp.test\\@evil.test/",
        "https://idp.test/\\..\\x",
        "https://user@idp.test/",
        "https://user:secret@idp.test/",
        "https://idp.test@evil.test/",
        "https://idp.test/#fragment",
        "https://idp.test#@evil.test/",
        "https://idp.test./",
        "https://.idp.test/",
        "https://idp..test/",
        "https://-idp.test/",
        "https://idp-.test/",
        "https://idp_a.test/",
        "https://idp%2etest/",
        "https://idp.test%00.evil.test/",
        "https://*.idp.test/",
        "https://idp.test:/",
        "https://idp.test:0/",
        "https://idp.test:0443/",
        "https://idp.test:65536/",
        "https://idp.test:443443/",
        "https://idp.test:port/",
        "https://idp.test:-1/",
        "https://bücher.test/",
        "https://\u0430gent.test/",
        "https://idp\u3002test/",
        "https://idp.test/\u00e9",
        "https://[::1/",
        "https://::1/",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://[127.0.0.1]/",
        "https://[::1]x/",
        "https://127.0.0.1./",
        "https://" + "a" * 64 + ".test/",
        "https://" + "a." * 127 + "test/",
        "https://idp.test/" + "a" * 2048,
    ],
)
def test_anything_that_another_reader_might_repair_is_refused(url: str) -> None:
    assert refusal_of(url) is FetchReason.URL


@pytest.mark.requirement("NET-04")
@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f.1",
        "127.1",
        "0177.0.0.1",
        "127.0.0.01",
        "①②⑦.0.0.1",
        "127.0.0.①",
        "\uff11\uff12\uff17.0.0.1",
        "0x7f000001",
        "0X7F.0x0.0x0.0x1",
        "017700000001",
        "127.0.1",
        "127.0.0.0.1",
        "256.0.0.1",
        "0",
        "0x",
        "localhost.1",
        "00000127.0.0.1",
        "4294967296",
    ],
)
def test_a_host_that_is_a_number_in_disguise_is_blocked(host: str) -> None:
    assert refusal_of(f"https://{host}/jwks") is FetchReason.BLOCKED


@given(st.text(max_size=80))
def test_whatever_is_read_is_printable_ascii_without_user_information(text: str) -> None:
    try:
        target = read_url("https://" + text)
    except FetchRefused:
        return

    assert (target.host + target.path).isascii()
    assert all("!" <= character <= "~" for character in target.host + target.path)
    assert "@" not in target.authority
    assert target.path.startswith("/")
    assert text.endswith(target.path.removeprefix("/"))
