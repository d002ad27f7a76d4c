"""The guarded fetch: the only way in which the broker asks somebody else's server for a document."""

import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Protocol

from broker.fetch.addresses import (
    Address,
    AddressGuard,
    is_loopback,
    read_address,
    read_private_networks,
)
from broker.fetch.deadline import Deadline
from broker.fetch.refusals import FetchReason, FetchRefused
from broker.fetch.resolver import Resolve, TimedResolver, resolve_by_system
from broker.fetch.url import Target, read_url
from broker.fetch.wire import ask, failures_as_refusals, read_body

_MAX_ATTEMPTS: Final = 4
_MAX_AGE: Final = re.compile(r'max-age="?([0-9]{1,9})"?')

Connect = Callable[[tuple[str, int], float], socket.socket]
"""Opens a TCP connection to a numeric address and port within so many seconds, or ``OSError``."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """
    A document as it arrived: with status 200, whole, and of a media type that was asked for.

    ``max_age`` is for how many seconds more its server calls it fresh (RFC 9111 4.2); ``None`` when
    it does not say.
    """

    body: bytes = field(repr=False)
    media_type: str
    max_age: int | None = None


class Fetcher(Protocol):
    """
    Gets documents from other servers.

    One of ``media_types`` that begins with a plus is a suffix, such as ``+json`` (RFC 6838 4.2.8): any
    type that ends so is accepted. ``within`` shortens the fetcher's own deadline; in seconds. Raises
    ``FetchRefused`` and nothing else.
    """

    def get(
        self,
        url: str,
        *,
        max_bytes: int,
        media_types: frozenset[str],
        within: float | None = None,
    ) -> Fetched: ...


@dataclass(frozen=True, slots=True)
class _Posted:
    """What is sent with a request."""

    body: bytes = field(repr=False)
    content_type: str
    authorization: str = field(default="", repr=False)


class Sender(Fetcher, Protocol):
    """A fetcher that also sends, with the same bounds and refusals."""

    def post(
        self,
        url: str,
        body: bytes,
        *,
        content_type: str,
        max_bytes: int,
        answer_type: str,
        authorization: str = "",
    ) -> bytes: ...


class GuardedFetcher:
    """
    Fetches over https, from addresses that may be reached, and nothing else.

    Every address that a name resolves to is checked, and the connection goes to a checked number:
    nothing is resolved twice, so no name can change its mind in between. The certificate must
    still be the name's. Redirects are not followed, nothing is repeated, and no credential, cookie,
    proxy or other ambient setting takes part. ``deadline``, in seconds, covers all of it.

    ``allow_loopback`` is for development: then, and only then, this machine may be reached, also by
    plain http. ``ca_file`` replaces the system's certification authorities. ``private_networks`` are
    ranges such as ``10.20.0.0/16`` in which servers of the operator's own may be reached; anything
    outside the private ranges raises ``ValueError``.
    """

    def __init__(
        self,
        *,
        allow_loopback: bool = False,
        deadline: float = 3.0,
        ca_file: Path | None = None,
        private_networks: Sequence[str] = (),
        resolve: Resolve = resolve_by_system,
        connect: Connect = socket.create_connection,
    ) -> None:
        self._guard = AddressGuard(allow_loopback, read_private_networks(private_networks))
        self._deadline = deadline
        # Authorities in a file that cannot be used are told of at the start.
        self._own_tls = None if ca_file is None else tls_context(ca_file)
        self._resolver = TimedResolver(resolve)
        self._connect = connect

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        # To read the system's authorities takes a tenth of a second; who fetches nothing need not wait.
        return self._own_tls or tls_context(None)

    def get(
        self,
        url: str,
        *,
        max_bytes: int,
        media_types: frozenset[str],
        within: float | None = None,
    ) -> Fetched:
        """The document at the URL, of at most ``max_bytes``. Raises ``FetchRefused``."""
        return self._ask(url, max_bytes=max_bytes, media_types=media_types, within=within)

    def post(
        self,
        url: str,
        body: bytes,
        *,
        content_type: str,
        max_bytes: int,
        answer_type: str,
        authorization: str = "",
    ) -> bytes:
        """
        What the server answers to a body, once and in at most ``max_bytes``.

        ``authorization`` is the header of that name. Raises ``FetchRefused``.
        """
        posted = _Posted(body, content_type, authorization)
        media_types = frozenset({answer_type})
        return self._ask(url, max_bytes=max_bytes, media_types=media_types, posted=posted).body

    def _ask(
        self,
        url: str,
        *,
        max_bytes: int,
        media_types: frozenset[str],
        within: float | None = None,
        posted: _Posted | None = None,
    ) -> Fetched:
        deadline = Deadline.after(self._deadline if within is None else min(within, self._deadline))
        target = read_url(url)
        if target.scheme != "https" and not self._guard.is_loopback_allowed:
            raise FetchRefused(FetchReason.URL)
        addresses = self._addresses(target, deadline)
        with failures_as_refusals(), self._connected(target, addresses, deadline) as sock:
            response = ask(
                target,
                sock,
                headers=_headers(target, media_types, posted),
                deadline=deadline,
                max_bytes=max_bytes,
                body=None if posted is None else posted.body,
            )
            _check_status(response.status)
            media_type = _media_type(response.headers, media_types)
            body = read_body(response, max_bytes=max_bytes)
        return Fetched(body, media_type, _max_age(response.headers))

    def _addresses(self, target: Target, deadline: Deadline) -> Sequence[Address]:
        """All addresses of the target, each of which may be reached."""
        if target.address is not None:
            return [self._checked(target.address, target)]
        found = self._resolver.resolve(target.host, target.port, deadline=deadline)
        if not found:
            raise FetchRefused(FetchReason.FAILED, "the name does not resolve")
        # One bad address condemns the name: a host that is public and internal at once is a trap.
        return [self._checked(read_address(one), target) for one in found]

    def _checked(self, address: Address | None, target: Target) -> Address:
        if address is None or not self._guard.allows(address):
            raise FetchRefused(FetchReason.BLOCKED)
        if target.scheme != "https" and not is_loopback(address):
            raise FetchRefused(FetchReason.BLOCKED)
        return address

    @contextmanager
    def _connected(
        self, target: Target, addresses: Sequence[Address], deadline: Deadline
    ) -> Iterator[socket.socket]:
        sock = self._first_connection(target.port, addresses[:_MAX_ATTEMPTS], deadline=deadline)
        try:
            if target.scheme == "https":
                # The handshake has one timeout for all its messages, so it needs no bounding.
                sock.settimeout(deadline.remaining())
                sock = self._tls.wrap_socket(sock, server_hostname=target.host)
            yield sock
        finally:
            sock.close()

    def _first_connection(
        self, port: int, addresses: Sequence[Address], *, deadline: Deadline
    ) -> socket.socket:
        """A connection to the first address that answers; each has an equal share of the time left."""
        failure: OSError = OSError()
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            try:
                return self._connect((str(address), port), deadline.remaining() / left)
            except OSError as error:
                failure = error
        raise failure


def tls_context(
    ca_file: Path | None, *, protocols: Sequence[str] = ("http/1.1",)
) -> ssl.SSLContext:
    """TLS to other servers, 1.2 or newer; ``ca_file`` replaces the system's certification authorities."""
    # Not ssl.create_default_context(): that one writes session secrets to the file that the
    # environment names in SSLKEYLOGFILE.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if protocols:
        context.set_alpn_protocols([*protocols])
    if ca_file is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        context.load_verify_locations(cafile=ca_file)
    return context


def _headers(
    target: Target, media_types: frozenset[str], posted: _Posted | None
) -> Mapping[str, str]:
    """All headers that are sent, but for the length of a body."""
    headers = {} if posted is None else {"Content-Type": posted.content_type}
    if posted is not None and posted.authorization:
        headers["Authorization"] = posted.authorization
    return {
        **headers,
        "Host": target.authority,
        "Accept": ", ".join(sorted(one for one in media_types if not one.startswith("+"))),
        "Accept-Encoding": "identity",
        "User-Agent": "delegation-broker",
        "Connection": "close",
    }


def _check_status(status: int) -> None:
    if 300 <= status < 400:
        raise FetchRefused(FetchReason.REDIRECT, str(status))
    if status != 200:
        raise FetchRefused(FetchReason.STATUS, str(status))


def _media_type(headers: Mapping[str, str], accepted: frozenset[str]) -> str:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    _, plus, suffix = media_type.rpartition("+")
    if not {media_type, plus + suffix}.intersection(accepted):
        raise FetchRefused(FetchReason.MEDIA_TYPE)
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise FetchRefused(FetchReason.MEDIA_TYPE, "the answer is encoded")
    return media_type


def _max_age(headers: Mapping[str, str]) -> int | None:
    directives = [one.strip() for one in headers.get("cache-control", "").lower().split(",")]
    if "no-store" in directives or "no-cache" in directives:
        return 0
    ages = [int(found[1]) for found in map(_MAX_AGE.fullmatch, directives) if found]
    if not ages:
        return None
    age = headers.get("age", "")
    return max(0, min(ages) - (int(age) if re.fullmatch("[0-9]{1,9}", age) else 0))
