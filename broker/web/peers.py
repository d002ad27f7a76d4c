"""Whose address a request came from, when proxies stand between."""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any, Final

from broker.web.requests import Environ

FORWARDED_HEADER: Final = "X-Forwarded-For"
_MOST_HOPS: Final = 16

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Peers:
    """
    Tells the caller's address.

    ``header`` is believed only when it comes from one of ``trusted_proxies`` (networks in CIDR form),
    and only as far back as addresses of such proxies reach. Nothing else that a proxy might say about a
    caller is believed at all. A proxy must set the header itself. WSGI cannot tell ``X-Forwarded-For``
    from ``X_Forwarded_For``, which a proxy that lets underscores pass takes from anybody; a header whose
    name has no dash has no such twin.
    """

    def __init__(
        self, trusted_proxies: Iterable[str] = (), *, header: str = FORWARDED_HEADER
    ) -> None:
        self.header = header
        """The header in which proxies name the caller."""
        self._name = "HTTP_" + header.upper().replace("-", "_")
        self._trusted = tuple(ipaddress.ip_network(network) for network in trusted_proxies)

    def peer(self, environ: Environ) -> str:
        """The caller's address, or that of the nearest proxy that names nobody."""
        told = [environ[self._name]] if self._name in environ else []
        return self.caller(environ.get("REMOTE_ADDR", ""), told)

    def caller(self, nearest: str, told: Sequence[str]) -> str:
        """The same from the address of the nearest proxy and every value of the header."""
        if not self._trusted or not told:
            return nearest
        address = _address(nearest)
        for hop in reversed(",".join(told).split(",")[-_MOST_HOPS:]):
            if address is None or not self._is_trusted(address):
                break
            named = _address(_without_port(hop.strip()))
            if named is None:
                break
            address = named
        return nearest if address is None else str(address)

    def is_proxy(self, text: str) -> bool:
        """Whether an address, as a socket tells it, is that of a trusted proxy."""
        if not self._trusted:
            return False
        address = _address(text)
        return address is not None and self._is_trusted(address)

    def _is_trusted(self, address: _Address) -> bool:
        return any(address in network for network in self._trusted)


def _address(text: Any) -> _Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
