"""Which addresses a fetch may reach. No packet leaves: the connector of these tests only counts."""

import socket
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from broker.fetch import FetchReason, FetchRefused, GuardedFetcher
from broker.fetch.addresses import AddressGuard, read_private_networks

JSON = frozenset({"application/json"})
PUBLIC = ("93.184.215.14", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e")

SPECIAL_IPV4 = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "255.255.255.255/32",
)
SPECIAL_IPV6 = (
    "::/128",
    "::1/128",
    "::/96",
    "::ffff:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/32",
    "2001::/23",
    "2001:2::/48",
    "2001:10::/28",
    "2001:db8::/32",
    "2002::/16",
    "2620:4f:8000::/48",
    "3ffe::/16",
    "3fff::/20",
    "4000::/3",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
)


class Network:
    """A resolver with fixed answers and a connector that connects nowhere; both count."""

    ca_file: Path | None = None

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.lookups: list[str] = []
        self.connections: list[tuple[str, int]] = []

    def resolve(self, host: str, port: int) -> Sequence[str]:
        self.lookups.append(f"{host}:{port}")
        return self.addresses

    def connect(self, address: tuple[str, int], _timeout: float) -> socket.socket:
        self.connections.append(address)
        raise ConnectionRefusedError

    def reason(
        self,
        url: str = "https://idp.test/jwks",
        *,
        allow_loopback: bool = False,
        private_networks: Sequence[str] = (),
    ) -> FetchReason:
        """Why a fetch through this network is refused."""
        fetcher = GuardedFetcher(
            allow_loopback=allow_loopback,
            private_networks=private_networks,
            ca_file=self.ca_file,
            resolve=self.resolve,
            connect=self.connect,
        )
        with pytest.raises(FetchRefused) as refused:
            fetcher.get(url, max_bytes=100, media_types=JSON)
        return refused.value.reason


@pytest.fixture(autouse=True)
def small_trust_store(ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare each of the many fetchers the reading of the system's certification authorities."""
    monkeypatch.setattr(Network, "ca_file", ca_file)


def ends_of(network: str) -> tuple[str, str]:
    read = ip_network(network)
    return str(read[0]), str(read[-1])


@pytest.mark.requirement("NET-02")
@pytest.mark.parametrize("network", SPECIAL_IPV4)
def test_no_packet_goes_to_a_special_ipv4_address(network: str) -> None:
    for address in ends_of(network):
        resolved, literal = Network(address), Network()

        assert resolved.reason() is FetchReason.BLOCKED
        assert literal.reason(f"https://{address}/jwks") is FetchReason.BLOCKED
        assert (resolved.connections, literal.connections, literal.lookups) == ([], [], [])


@pytest.mark.requirement("NET-03")
@pytest.mark.parametrize("network", SPECIAL_IPV6)
def test_no_packet_goes_to_a_special_ipv6_address(network: str) -> None:
    for address in ends_of(network):
        resolved, literal = Network(address), Network()

        assert resolved.reason() is FetchReason.BLOCKED
        assert literal.reason(f"https://[{address}]/jwks") is FetchReason.BLOCKED
        assert (resolved.connections, literal.connections, literal.lookups) == ([], [], [])


@pytest.mark.requirement("NET-03")
@pytest.mark.parametrize(
    "disguised",
    [
        "::ffff:169.254.169.254",
        "::ffff:0:169.254.169.254",
        "::169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "2001:0:a9fe:a9fe::1",
        "fd00:ec2::254",
    ],
)
def test_an_ipv4_address_inside_an_ipv6_address_stays_blocked(disguised: str) -> None:
    network = Network(disguised)

    assert network.reason() is FetchReason.BLOCKED
    assert network.connections == []


@pytest.mark.requirement("NET-04")
@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "0177.0.0.1", "①②⑦.0.0.1"])
def test_an_odd_spelling_of_an_address_is_never_resolved(host: str) -> None:
    network = Network("93.184.215.14")

    assert network.reason(f"https://{host}/") is FetchReason.BLOCKED
    assert network.lookups == []


@pytest.mark.requirement("CIMD-06")
@pytest.mark.parametrize("position", range(4))
def test_one_special_address_among_public_ones_blocks_the_name(position: int) -> None:
    addresses = list(PUBLIC[:3])
    addresses.insert(position, "10.0.0.1")
    network = Network(*addresses)

    assert network.reason() is FetchReason.BLOCKED
    assert network.connections == []


@pytest.mark.parametrize("answer", ["fe80::1%eth0", "2606:4700::1%1", "idp.test", "127.1", ""])
def test_a_resolver_that_answers_with_anything_but_plain_addresses_is_blocked(answer: str) -> None:
    network = Network(answer)

    assert network.reason() is FetchReason.BLOCKED
    assert network.connections == []


@pytest.mark.requirement("CIMD-06")
def test_the_name_is_resolved_once_and_the_connection_goes_to_the_checked_number() -> None:
    class Rebinding(Network):
        def resolve(self, host: str, port: int) -> Sequence[str]:
            answers = super().resolve(host, port)
            self.addresses = ("169.254.169.254",)
            return answers

    network = Rebinding("93.184.215.14")

    assert network.reason() is FetchReason.FAILED
    assert network.lookups == ["idp.test:443"]
    assert network.connections == [("93.184.215.14", 443)]


def test_public_addresses_are_tried_in_turn_but_only_four_of_them() -> None:
    network = Network(*PUBLIC, "8.8.8.8", "9.9.9.9")

    assert network.reason() is FetchReason.FAILED
    assert network.connections == [(address, 443) for address in PUBLIC]


@pytest.mark.requirement("NET-18")
@pytest.mark.parametrize("port", [22, 443, 8200, 65535])
def test_what_an_internal_host_runs_cannot_be_told_from_the_refusal(port: int) -> None:
    network = Network("10.0.0.1")

    assert network.reason(f"https://vault.internal.test:{port}/") is FetchReason.BLOCKED
    assert network.connections == []


@pytest.mark.parametrize("url", ["http://idp.test/jwks", "http://127.0.0.1/", "http://[::1]/"])
def test_plain_http_is_refused_before_anything_is_resolved(url: str) -> None:
    network = Network("93.184.215.14")

    assert network.reason(url) is FetchReason.URL
    assert (network.lookups, network.connections) == ([], [])


@pytest.mark.parametrize("address", ["127.0.0.1", "127.255.255.254", "::1"])
def test_loopback_is_reached_only_where_it_is_allowed(address: str) -> None:
    network = Network(address)

    assert network.reason("http://localhost:8080/", allow_loopback=True) is FetchReason.FAILED
    assert network.connections == [(address, 8080)]


@pytest.mark.parametrize(
    "address", ["::ffff:127.0.0.1", "0.0.0.1", "::", "10.0.0.1", "169.254.0.1"]
)
def test_allowing_loopback_allows_no_other_special_address(address: str) -> None:
    network = Network(address)

    assert network.reason(allow_loopback=True) is FetchReason.BLOCKED
    assert network.connections == []


@pytest.mark.parametrize("addresses", [("93.184.215.14",), ("127.0.0.1", "93.184.215.14")])
def test_plain_http_never_leaves_this_machine(addresses: tuple[str, ...]) -> None:
    network = Network(*addresses)

    assert network.reason("http://idp.test/", allow_loopback=True) is FetchReason.BLOCKED
    assert network.connections == []


def test_a_declared_private_network_is_reached_and_its_neighbours_are_not() -> None:
    declared = ("10.20.0.0/16", "fd12:3456::/32")

    for address in ("10.20.255.255", "fd12:3456::1"):
        assert Network(address).reason(private_networks=declared) is FetchReason.FAILED
    for address in ("10.21.0.0", "10.19.255.255", "fd12:3457::1", "192.168.0.1"):
        assert Network(address).reason(private_networks=declared) is FetchReason.BLOCKED


@pytest.mark.parametrize("address", ["100.100.100.200", "fd00:ec2::254", "fd20:ce::254"])
def test_a_metadata_service_stays_blocked_inside_a_declared_network(address: str) -> None:
    network = Network(address)
    declared = ("100.64.0.0/10", "fc00::/7")

    assert network.reason(private_networks=declared) is FetchReason.BLOCKED
    assert network.connections == []


@pytest.mark.parametrize(
    "network",
    [
        "0.0.0.0/0",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "169.254.169.254/32",
        "8.8.8.0/24",
        "8.0.0.0/5",
        "::/0",
        "::1/128",
        "fe80::/10",
        "ff00::/8",
        "::ffff:10.0.0.0/104",
        "10.0.0.1/8",
        "ten",
        "",
    ],
)
def test_only_private_networks_can_be_declared(network: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_private_networks([network])


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert AddressGuard().allows(ip_address(address))


def test_a_name_without_addresses_fails() -> None:
    assert Network().reason() is FetchReason.FAILED
