"""The URLs that the broker fetches, read without any leniency."""

import re
import unicodedata
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

from broker.fetch.addresses import Address, read_address
from broker.fetch.refusals import FetchReason, FetchRefused

MAX_URL_LENGTH: Final = 2048
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}

# What stands before the host's own syntax is looked at. Control characters, spaces, backslashes,
# user information and fragments have no place in it, so nothing is ever removed or repaired.
_URL: Final = re.compile(
    r"(?P<scheme>https?)://"
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\x00-\x20\x7f/?#:@\\\[\]]+))"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>(?:/[!$-;=@-Z_a-z~%]*)?(?:\?[!$-;=?-Z_a-z~%/]*)?)"
)
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


@dataclass(frozen=True, slots=True)
class Target:
    """
    Where a URL points. ``host`` is in lower case and without brackets.

    ``address`` is set when the host is a numeric address. ``path`` is the request target of
    RFC 9112 3.2.1, exactly as written.
    """

    scheme: str
    host: str
    port: int
    path: str
    address: Address | None = None

    @property
    def authority(self) -> str:
        """Host and port as the ``Host`` header has them: the default port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port (RFC 6454 4)."""
        return self.scheme, self.host, self.port


def read_url(url: str) -> Target:
    """
    The target of an absolute ``http`` or ``https`` URL (RFC 3986).

    Raises ``FetchRefused``: ``fetch_blocked`` for a host that is a number in disguise, such as
    ``0x7f.1``, which resolvers take for an address; ``fetch_url`` for everything else that is not
    plain ASCII of at most 2,048 characters with a host name or address and no user information,
    fragment, or trailing dot.
    """
    match = _URL.fullmatch(url) if len(url) <= MAX_URL_LENGTH else None
    if match is None:
        raise FetchRefused(FetchReason.URL)
    scheme, path = match["scheme"], match["path"]
    port = int(match["port"] or _DEFAULT_PORTS[scheme])
    if port > 65535:
        raise FetchRefused(FetchReason.URL)
    host, address = _ipv6(match["ipv6"]) if match["ipv6"] else _host(match["host"])
    return Target(scheme, host, port, path if path.startswith("/") else f"/{path}", address)


def _ipv6(text: str) -> tuple[str, Address]:
    address = read_address(text)
    if not isinstance(address, IPv6Address):
        raise FetchRefused(FetchReason.URL)
    return str(address), address


def _host(text: str) -> tuple[str, Address | None]:
    # A host that ends in a number is an address to every resolver and browser, in spellings that
    # go back to inet_aton; only the canonical one is read, the rest is refused as what it is.
    last_label = unicodedata.normalize("NFKC", text).rpartition(".")[2]
    if _NUMBER.fullmatch(last_label):
        address = read_address(text) if text.isascii() else None
        if address is None:
            raise FetchRefused(FetchReason.BLOCKED)
        return str(address), address
    if len(text) > 253 or not _NAME.fullmatch(text):
        raise FetchRefused(FetchReason.URL)
    return text.lower(), None
