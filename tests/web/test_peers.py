import pytest

from broker.web.peers import Peers
from tests.web.face_fakes import Caller, FakeToken, fake_endpoints

PROXIES = ("10.0.0.0/8", "2001:db8:1::/48")


def peer(forwarded: str | None, *, nearest: str = "10.1.2.3") -> str:
    environ = {"REMOTE_ADDR": nearest}
    if forwarded is not None:
        environ["HTTP_X_FORWARDED_FOR"] = forwarded
    return Peers(PROXIES).peer(environ)


@pytest.mark.requirement("CAU-17")
@pytest.mark.parametrize("nearest", ["192.0.2.7", "11.0.0.1", "2001:db8:2::1", "", "unix"])
def test_who_is_no_proxy_cannot_name_another_caller(nearest: str) -> None:
    assert peer("198.51.100.1", nearest=nearest) == nearest


@pytest.mark.requirement("CAU-17")
def test_without_trusted_proxies_nobody_is_believed() -> None:
    environ = {"REMOTE_ADDR": "10.1.2.3", "HTTP_X_FORWARDED_FOR": "198.51.100.1"}
    assert Peers().peer(environ) == "10.1.2.3"


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("198.51.100.1:4711", "198.51.100.1"),
        ("[2001:db8:2::1]:4711", "2001:db8:2::1"),
        ("2001:db8:2::1", "2001:db8:2::1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("203.0.113.9, 198.51.100.1", "198.51.100.1"),
        ("203.0.113.9, 198.51.100.1, 10.9.9.9", "198.51.100.1"),
        ("10.9.9.9", "10.9.9.9"),
    ],
)
def test_a_trusted_proxy_names_the_caller(forwarded: str, expected: str) -> None:
    assert peer(forwarded) == expected


@pytest.mark.requirement("CAU-17")
@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        (None, "10.1.2.3"),
        ("", "10.1.2.3"),
        ("unknown", "10.1.2.3"),
        ("127.1", "10.1.2.3"),
        ("0x7f000001", "10.1.2.3"),
        ("198.51.100.1, nonsense", "10.1.2.3"),
        ("198.51.100.1, nonsense, 10.9.9.9", "10.9.9.9"),
        (", ".join(["203.0.113.9"] + ["10.9.9.9"] * 40), "10.9.9.9"),
        ("198.51.100.1\r\nx", "10.1.2.3"),
    ],
)
def test_what_cannot_be_followed_ends_at_the_last_proxy(
    forwarded: str | None, expected: str
) -> None:
    assert peer(forwarded) == expected


def test_a_proxy_over_ipv4_is_known_by_a_mapped_address_too() -> None:
    assert peer("198.51.100.1", nearest="::ffff:10.1.2.3") == "198.51.100.1"


@pytest.mark.requirement("CAU-17")
def test_other_headers_of_a_proxy_say_nothing() -> None:
    token = FakeToken()
    call = Caller(fake_endpoints(token), peers=Peers(PROXIES))
    headers = {
        "HTTP_X_SSL_CLIENT_CERT": "cert",
        "HTTP_X_FORWARDED_CLIENT_CERT": "cert",
        "HTTP_X_CLIENT_ID": "agent-x",
        "HTTP_X_FORWARDED_USER": "root",
        "HTTP_FORWARDED": "for=198.51.100.1",
        "HTTP_X_REAL_IP": "198.51.100.1",
    }
    call.post("grant_type=g", REMOTE_ADDR="10.1.2.3", **headers)
    plain = FakeToken()
    Caller(fake_endpoints(plain)).post("grant_type=g", REMOTE_ADDR="10.1.2.3")
    assert token.requests == plain.requests
    assert token.contexts[0].peer == "10.1.2.3"


@pytest.mark.parametrize(
    ("address", "is_proxy"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("192.0.2.1", False), ("", False)],
)
def test_proxies_are_known_by_the_address_of_their_socket(address: str, *, is_proxy: bool) -> None:
    assert Peers(["10.0.0.0/8"]).is_proxy(address) is is_proxy
    assert not Peers().is_proxy(address)
