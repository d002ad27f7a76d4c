"""Connections to a server that the operator named."""

import socket
import ssl
from collections.abc import Sequence
from typing import Final

from broker.fetch import FetchReason, FetchRefused
from broker.fetch.addresses import read_address
from broker.fetch.deadline import Deadline
from broker.fetch.resolver import TimedResolver, resolve_by_system

_MAX_ATTEMPTS: Final = 4
# What is sent and not yet fetched by the other side is lost when that side dies; so it is kept small.
_SEND_BUFFER: Final = 256 * 1024


class Dialer:
    """
    Opens TCP connections to a host and port, over TLS when there is a context for it.

    The name is resolved anew each time. The operator's word is what the table of special addresses is for
    documents that strangers name, so it is not asked here.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._host = host
        self.port = port
        self._tls = tls
        self._resolver = TimedResolver(resolve_by_system, max_lookups=2)

    def addresses(self, deadline: Deadline) -> Sequence[str]:
        """Where the host is, as numeric text. Raises ``FetchRefused``."""
        if read_address(self._host) is not None:
            return [self._host]
        found = self._resolver.resolve(self._host, self.port, deadline=deadline)
        if not found:
            raise FetchRefused(FetchReason.FAILED, "the name does not resolve")
        return found[:_MAX_ATTEMPTS]

    def dial(self, deadline: Deadline) -> socket.socket:
        """A new connection. Raises ``OSError`` or ``FetchRefused``."""
        sock = self._first_connection(self.addresses(deadline), deadline)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is None:
                return sock
            sock.settimeout(deadline.remaining())
            return self._tls.wrap_socket(sock, server_hostname=self._host)
        except BaseException:
            sock.close()
            raise

    def _first_connection(self, addresses: Sequence[str], deadline: Deadline) -> socket.socket:
        failure = OSError()
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            try:
                return socket.create_connection((address, self.port), deadline.remaining() / left)
            except OSError as error:
                failure = error
        raise failure


def is_ended(sock: socket.socket) -> bool:
    """Whether the other side has closed a connection, or sent something where nothing was due."""
    sock.settimeout(0)
    try:
        sock.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    return True
