"""One HTTP request over one socket, bounded in time and in bytes."""

import io
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any, Final

from urllib3 import BaseHTTPResponse
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.exceptions import SSLError as WrappedSslError

from broker.fetch.deadline import Deadline
from broker.fetch.refusals import FetchReason, FetchRefused
from broker.fetch.url import Target

_HEADER_ALLOWANCE: Final = 32 * 1024


def ask(
    target: Target,
    sock: socket.socket,
    *,
    headers: Mapping[str, str],
    deadline: Deadline,
    max_bytes: int,
    body: bytes | None = None,
) -> BaseHTTPResponse:
    """
    The head of the answer to a request, sent over a socket that is already where it should be.

    It is a POST request where there is a ``body``, else a GET request. Nothing is followed, repeated,
    decoded, proxied or added from the environment. What may arrive in all is twice ``max_bytes``, since
    chunks have a frame, and 32 KiB of headers.
    """
    connection = _Connection(target.host, target.port)
    connection.sock = _BoundedSocket(sock, deadline=deadline, budget=2 * max_bytes)
    connection.request(
        "GET" if body is None else "POST",
        target.path,
        body=body,
        headers=headers,
        preload_content=False,
        decode_content=False,
    )
    return connection.getresponse()


def read_body(response: BaseHTTPResponse, *, max_bytes: int) -> bytes:
    """The whole body, or ``FetchRefused`` once one byte more than ``max_bytes`` has arrived."""
    body = bytearray()
    while chunk := response.read(max_bytes + 1 - len(body), decode_content=False):
        body += chunk
        if len(body) > max_bytes:
            raise FetchRefused(FetchReason.TOO_LARGE)
    return bytes(body)


def send_all(sock: socket.socket, data: bytes, *, deadline: Deadline) -> None:
    """Send everything by the deadline; over TLS a socket's own timeout begins anew with every part."""
    rest = memoryview(data)
    while rest:
        sock.settimeout(deadline.remaining())
        rest = rest[sock.send(rest) :]


@contextmanager
def failures_as_refusals() -> Iterator[None]:
    """Turn everything that a connection can raise into ``FetchRefused``."""
    try:
        yield
    except (TimeoutError, ReadTimeoutError):
        raise FetchRefused(FetchReason.TIMEOUT) from None
    except (ssl.SSLError, WrappedSslError) as error:
        detail = getattr(error, "verify_message", None) or getattr(error, "reason", None)
        raise FetchRefused(FetchReason.TLS, str(detail or "")) from None
    except (OSError, HTTPException, HTTPError) as error:
        raise FetchRefused(FetchReason.FAILED, type(error).__name__) from None


class _Connection(HTTPConnection):
    """A connection that is given its socket and never opens one: that would resolve again."""

    auto_open = 0


class _BoundedSocket:
    """
    A connected socket, as far as an HTTP connection looks at it.

    Every wait ends at the deadline, where a socket's own timeout begins anew with every byte. The
    socket belongs to whoever opened it: closing this leaves it open for the body to be read.
    """

    def __init__(self, sock: socket.socket, *, deadline: Deadline, budget: int) -> None:
        self._sock = sock
        self._deadline = deadline
        self._budget = budget + _HEADER_ALLOWANCE

    def sendall(self, data: bytes) -> None:
        send_all(self._sock, data, deadline=self._deadline)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_BoundedReader(self))

    def receive(self, buffer: Any) -> int:
        """Receive into the buffer what is there by the deadline; 0 at the end."""
        self._sock.settimeout(self._deadline.remaining())
        count = self._sock.recv_into(buffer)
        self._budget -= count
        if self._budget < 0:
            raise FetchRefused(FetchReason.TOO_LARGE)
        return count

    def settimeout(self, timeout: float | None) -> None:
        """Keep the deadline: a connection's own timeout is of no interest."""

    def close(self) -> None:
        """Leave the socket to its owner."""


class _BoundedReader(io.RawIOBase):
    """What arrives on a bounded socket, as a file."""

    def __init__(self, sock: _BoundedSocket) -> None:
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        return self._sock.receive(buffer)
