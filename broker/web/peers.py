"""Whose address a request came from, when proxies stand between."""

import ipaddress
from collections.abc import Iterable
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
        self._name = "HTTP_" + header.upper().replace("-", "_")
        self._trusted = tuple(ipaddress.ip_network(network) for network in trusted_proxies)

    def peer(self, environ: Environ) -> str:
        """The caller's address, or that of the nearest proxy that names nobody."""
        nearest: str = environ.get("REMOTE_ADDR", "")
        if not self._trusted or self._name not in environ:
            return nearest
        address = _address(nearest)
        for hop in reversed(environ[self._name].split(",")[-_MOST_HOPS:]):
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
