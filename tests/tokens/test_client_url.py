"""Which client ids can name a metadata document."""

from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.fetch import read_url
from broker.tokens.client_url import LONGEST_CLIENT_URL, client_url_host, is_url_like

MALFORMED = [
    "",
    "app",
    "https:",
    "https://",
    "https://c.test",
    "https://c.test/",
    "https://c.test//",
    "http://c.test/app.json",
    "HTTPS://c.test/app.json",
    "https:/c.test/app.json",
    "https:///app.json",
    "ftp://c.test/app.json",
    "https://c.test/app.json#part",
    "https://c.test/app.json#",
    "https://c.test/app.json?a=b",
    "https://c.test/app.json?",
    "https://user@c.test/app.json",
    "https://user:pass@c.test/app.json",
    "https://@c.test/app.json",
    "https://c.test@evil.test/app.json",
    "https://c.test/./app.json",
    "https://c.test/../app.json",
    "https://c.test/a/..",
    "https://c.test/.",
    "https://c.test/%2e/app.json",
    "https://c.test/%2E%2e/app.json",
    "https://c.test/.%2e/app.json",
    "https://c.test/a%2fb",
    "https://c.test/a%5Cb",
    "https://c.test/a%00b",
    "https://c.test/a%0d%0ab",
    "https://c.test/a%7fb",
    "https://c.test/100%",
    "https://c.test/%zz",
    "https://c.test\\app.json",
    "https:\\\\c.test\\app.json",
    "https://c.test/a\\b",
    "https://c.test/a b",
    " https://c.test/app.json",
    "https://c.test/app.json ",
    "https://c.test/app.json\n",
    "https://c.test/a\tb",
    "https://c.te\tst/app.json",
    "https://c.test/a\r\nb",
    "https://c.test/a\x00b",
    "https://c.test/caf\u00e9",
    "https://\u0441.test/app.json",
    "https://c\u3002test/app.json",
    "https://C.test/app.json",
    "https://C.TEST./app.json",
    "https://c.test./app.json",
    "https://.c.test/app.json",
    "https://c..test/app.json",
    "https://-c.test/app.json",
    "https://c_d.test/app.json",
    "https://c.test%2eevil/app.json",
    "https://127.0.0.1/app.json",
    "https://127.1/app.json",
    "https://2130706433/app.json",
    "https://0x7f.1/app.json",
    "https://0x7f000001/app.json",
    "https://c.0x/app.json",
    "https://0177.0.0.1/app.json",
    "https://\u2460\u2461\u2466.0.0.1/app.json",
    "https://c.test.1/app.json",
    "https://[::1]/app.json",
    "https://[::ffff:127.0.0.1]/app.json",
    "https://c.test:/app.json",
    "https://c.test:0/app.json",
    "https://c.test:0443/app.json",
    "https://c.test:65536/app.json",
    "https://c.test:443:443/app.json",
    "https://c.test:x/app.json",
    f"https://{'c' * 64}.test/app.json",
    "https://c.test/" + "a" * LONGEST_CLIENT_URL,
    "https://c.test/" + "a" * 2048,
]


@pytest.mark.requirement("NET-01", "NET-04", "CIMD-01")
@pytest.mark.parametrize("client_id", MALFORMED, ids=ascii)
def test_a_malformed_url_names_no_document(client_id: str) -> None:
    assert client_url_host(client_id) is None


@pytest.mark.requirement("CIMD-01")
@pytest.mark.parametrize(
    ("client_id", "host"),
    [
        ("https://c.test/app.json", "c.test"),
        ("https://c.test/a", "c.test"),
        ("https://c.test/a/", "c.test"),
        ("https://c.test/.well-known/a..b/...", "c.test"),
        ("https://c.test:443/app.json", "c.test:443"),
        ("https://c.test:65535/app.json", "c.test:65535"),
        ("https://localhost:8443/app.json", "localhost:8443"),
        ("https://xn--80ak6aa92e.test/app.json", "xn--80ak6aa92e.test"),
        ("https://1.c2.test/app.json", "1.c2.test"),
        ("https://c.test/caf%C3%A9", "c.test"),
        ("https://c.test/~a;b=c,d@e:f!$&'()*+", "c.test"),
        ("https://c.test/" + "a" * (LONGEST_CLIENT_URL - 15), "c.test"),
    ],
)
def test_the_host_has_its_port_as_it_is_written(client_id: str, host: str) -> None:
    assert client_url_host(client_id) == host


@pytest.mark.requirement("NET-01", "NET-13")
@given(st.text("abC1.-%2eE/\\@:?#[]x \t", max_size=24))
@example("c.test/a")
@example("c.test:8443/a")
def test_whoever_reads_an_accepted_url_finds_the_same_host_and_path(rest: str) -> None:
    """What is compared with the list is what is fetched, however the URL is read."""
    url = f"https://{rest}"
    host = client_url_host(url)
    if host is None:
        return
    target, split = read_url(url), urlsplit(url)

    assert target.address is None
    assert host in (target.authority, f"{target.host}:443")
    assert (split.netloc, split.path, split.query, split.fragment) == (host, target.path, "", "")
    assert url == f"https://{host}{target.path}"


@pytest.mark.requirement("CIMD-12")
def test_what_is_meant_as_a_url_is_told_from_other_ids() -> None:
    assert all(
        map(is_url_like, ["https://c.test", "HTTP:c", " https:", "https:\\\\c", "\thttp://c"])
    )
    assert not any(
        map(is_url_like, ["agent-x", "", "httpsc", "client:https://c", None, 1, ["https:"]])
    )
