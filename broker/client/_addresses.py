"""Where tokens and secrets may go: origins, and which of them are this machine."""

import ipaddress
from typing import Final, NamedTuple
from urllib.parse import urlsplit

DIRECT: Final = (("grpc.enable_http_proxy", 0),)
"""The option of a channel that goes through no proxy; else gRPC does, without TLS and on loopback too."""

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}


class Origin(NamedTuple):
    """Scheme, host and port (RFC 6454 4); the host in lower case, the port a number."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def origin(scheme: str, host: str, port: int | None) -> Origin:
    """The origin of an address in parts; raises ``ValueError`` for what has none."""
    scheme, host = scheme.lower(), host.lower()
    if scheme not in _DEFAULT_PORTS or not host or not host.isascii():
        raise ValueError("not an http or https address with a host")
    return Origin(scheme, _normal(host), _DEFAULT_PORTS[scheme] if port is None else port)


def origin_of(url: str) -> Origin:
    """
    The origin of a URL; raises ``ValueError`` for what has none.

    A URL with a user in it has none here: what reads it next may take the user for the host.
    """
    # A backslash and whitespace are where readers of URLs disagree most.
    if not url.isascii() or any(one in url for one in "\\ \t\r\n"):
        raise ValueError("not a plain URL")
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("a URL with a user in it")
    return origin(parts.scheme, parts.hostname or "", parts.port)


def private_origin(url: str) -> Origin:
    """
    The origin of a URL that a secret may be sent to: https, or http on this machine.

    Raises ``ValueError`` for any other.
    """
    found = origin_of(url)
    if found.scheme == "http" and not is_loopback(found.host):
        raise ValueError(f"{found} must be https: http is for loopback addresses only.")
    return found


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, as an address or as ``localhost``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _normal(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host
