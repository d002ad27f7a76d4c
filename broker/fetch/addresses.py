"""Which addresses the broker may connect to: its own table of special-use ranges (RFC 6890)."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def _table(*ranges: str) -> tuple[Network, ...]:
    return tuple(ip_network(one) for one in ranges)


_LOOPBACK: Final = _table("127.0.0.0/8", "::1/128")

_SPECIAL_IPV4: Final = _table(
    "0.0.0.0/8",  # "This network", RFC 1122; Linux connects 0.0.0.0 to itself.
    "10.0.0.0/8",  # Private, RFC 1918.
    "100.64.0.0/10",  # Shared by carriers, RFC 6598; also a cloud's metadata service.
    "127.0.0.0/8",  # Loopback, RFC 1122.
    "168.63.129.16/32",  # The host agent of a large cloud: public by number only.
    "169.254.0.0/16",  # Link-local, RFC 3927; most clouds' metadata service.
    "172.16.0.0/12",  # Private, RFC 1918.
    "192.0.0.0/24",  # Protocol assignments, RFC 6890.
    "192.0.2.0/24",  # Documentation, RFC 5737.
    "192.31.196.0/24",  # AS112, RFC 7535.
    "192.52.193.0/24",  # Multicast tunnels, RFC 7450.
    "192.88.99.0/24",  # 6to4 relays, RFC 7526.
    "192.168.0.0/16",  # Private, RFC 1918.
    "192.175.48.0/24",  # AS112, RFC 7534.
    "198.18.0.0/15",  # Benchmarks, RFC 2544.
    "198.51.100.0/24",  # Documentation, RFC 5737.
    "203.0.113.0/24",  # Documentation, RFC 5737.
    "224.0.0.0/4",  # Multicast, all scopes, RFC 5771.
    "240.0.0.0/4",  # Reserved, and 255.255.255.255, RFC 1112 and RFC 919.
)

# Of IPv6 only the global unicast block is ever allocated to hosts of the Internet. To begin there
# refuses, without a line for each: ::, ::1, the IPv4-compatible ::/96, the IPv4-mapped
# ::ffff:0:0/96, the translated 64:ff9b::/96 and 64:ff9b:1::/48 (RFC 6052, RFC 8215), 100::/64
# (RFC 6666), 5f00::/16 (RFC 9602), fc00::/7 (RFC 4193), fe80::/10, fec0::/10 (RFC 3879), ff00::/8,
# and whatever will be carved from the rest.
_GLOBAL_UNICAST_IPV6: Final = IPv6Network("2000::/3")

_SPECIAL_IPV6: Final = _table(
    "2001::/23",  # Protocol assignments, RFC 2928: Teredo (RFC 4380), ORCHID, benchmarks.
    "2001:db8::/32",  # Documentation, RFC 3849.
    "2002::/16",  # 6to4, RFC 3056: an IPv4 address in disguise.
    "2620:4f:8000::/48",  # AS112, RFC 7534.
    "3ffe::/16",  # The 6bone, returned, RFC 3701.
    "3fff::/20",  # Documentation, RFC 9637.
)

_MAY_BE_DECLARED: Final = _table(
    "10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"
)

# Cloud metadata services that live inside ranges which an operator may declare as his own.
_NEVER: Final = _table("100.100.100.200/32", "fd00:ec2::254/128", "fd20:ce::254/128")


@dataclass(frozen=True, slots=True)
class AddressGuard:
    """
    Tells which addresses may be connected to.

    ``is_loopback_allowed`` is for development on one machine. ``private_networks`` are the private
    ranges in which the operator runs servers of his own that the broker must reach.
    """

    is_loopback_allowed: bool = False
    private_networks: tuple[Network, ...] = ()

    def allows(self, address: Address) -> bool:
        """Whether a connection to this address may be opened."""
        if is_loopback(address):
            return self.is_loopback_allowed
        if _is_in(address, self.private_networks):
            return not _is_in(address, _NEVER)
        if isinstance(address, IPv4Address):
            return not _is_in(address, _SPECIAL_IPV4)
        return address in _GLOBAL_UNICAST_IPV6 and not _is_in(address, _SPECIAL_IPV6)


def is_loopback(address: Address) -> bool:
    """Whether the address means this machine, spelled plainly: ``::ffff:127.0.0.1`` does not count."""
    return _is_in(address, _LOOPBACK)


def read_address(text: str) -> Address | None:
    """The address that a numeric text is in its one canonical spelling, without a zone."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return None
    return address


def read_private_networks(networks: Iterable[str]) -> tuple[Network, ...]:
    """
    The private ranges that an operator declares as his own.

    Raises ``ValueError`` for anything that is not inside one of the private ranges: a public range
    needs no declaration, and link-local, loopback and multicast never become reachable this way.
    """
    declared = _table(*networks)
    for network in declared:
        if not any(_is_within(network, allowed) for allowed in _MAY_BE_DECLARED):
            raise ValueError(f"{network} is not inside a private range")
    return declared


def _is_in(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)


def _is_within(inner: Network, outer: Network) -> bool:
    return (
        inner.version == outer.version
        and inner.network_address in outer
        and inner.prefixlen >= outer.prefixlen
    )
