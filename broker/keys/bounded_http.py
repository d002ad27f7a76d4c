"""HTTP with one server, bounded in time and size, as hvac asks for it."""

import io
import json
import socket
import ssl
import time
from collections.abc import Mapping
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection

_LARGEST_ANSWER: Final = 1_048_576
"""In bytes, head included. The largest true answer, 400 signatures, has a tenth of that."""


class BoundedAnswer:
    """An answer with as much of the interface of ``requests.Response`` as hvac looks at."""

    def __init__(self, response: BaseHTTPResponse) -> None:
        self.status_code = response.status
        self.headers = response.headers
        self._body = response.data

    @property
    def ok(self) -> bool:
        """Whether it is no error."""
        return self.status_code < 400

    @property
    def text(self) -> str:
        """The body, whatever it is."""
        return self._body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON; raises ``ValueError``, or ``RecursionError`` if it is too deep."""
        return json.loads(self._body)


class BoundedSession:
    """
    The session that hvac's adapter sends its requests through, instead of one of ``requests``.

    It speaks to one origin, so that a token cannot reach another, whatever an answer says. It
    follows no redirect, keeps no cookie, and takes no proxy, credential or certificate bundle from
    the environment. ``timeout`` bounds the connection and then the whole answer.

    Without a ``ca_file`` the authorities of the operating system are believed.
    """

    verify = cert = proxies = None

    def __init__(self, origin: str, *, ca_file: Path | None, timeout: Timeout) -> None:
        parts = urlsplit(origin)
        host = parts.hostname or ""
        self._pool: HTTPConnectionPool
        if parts.scheme == "https":
            context = _tls_context(ca_file)
            self._pool = _HttpsPool(
                host, parts.port, maxsize=2, timeout=timeout, retries=False, ssl_context=context
            )
        else:
            self._pool = _HttpPool(host, parts.port, maxsize=2, timeout=timeout, retries=False)

    def request(
        self, method: str, url: str, *, headers: Mapping[str, str], **others: Any
    ) -> BoundedAnswer:
        """
        One request and its whole answer, as ``requests.Session`` has it.

        Of the further arguments ``json`` counts; the rest would only loosen what is bounded here.
        Raises what urllib3 raises, and ``ValueError`` for an answer that is too large or encoded.
        """
        body = others.get("json")
        response = self._pool.urlopen(
            method.upper(),
            urlsplit(url).path,
            body=None if body is None else json.dumps(body).encode("ascii"),
            headers={"Content-Type": "application/json", "Accept-Encoding": "identity", **headers},
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        with response:
            # The size of a compressed body cannot be known beforehand, so none is read.
            if response.headers.get("Content-Encoding", "identity") != "identity":
                response.close()
                raise ValueError("the answer is encoded")
            response.read(cache_content=True)
        return BoundedAnswer(response)

    def close(self) -> None:
        """Close the connections that are idle."""
        self._pool.close()


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    # The standard library's ready-made context would write the session's secrets to a file that the
    # environment may name.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cafile=ca_file)
    return context


class _BoundedRaw(io.RawIOBase):
    """A socket's bytes until a moment and up to a size; then it raises."""

    def __init__(self, raw: io.RawIOBase, connection: socket.socket) -> None:
        self._raw = raw
        self._connection = connection
        self._timeout = connection.gettimeout()
        self._until = time.monotonic() + (self._timeout or 0)
        self._left = _LARGEST_ANSWER

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        remaining = self._until - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the answer took too long")
        if self._left <= 0:
            raise ValueError("the answer is too large")
        self._connection.settimeout(remaining)
        count = self._raw.readinto(buffer)
        self._left -= count or 0
        return count

    def close(self) -> None:
        if not self.closed:
            if self._connection.fileno() != -1:
                # The connection is kept for the next request, which has its time to itself.
                self._connection.settimeout(self._timeout)
            self._raw.close()
        super().close()


class _BoundedResponse(HTTPResponse):
    """
    An answer, head and body, that is complete within the socket's timeout or not at all.

    The timeout of a socket alone bounds only the pause between two reads: a server that drips one
    byte at a time would hold the caller for hours.
    """

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_BoundedRaw(self.fp.detach(), sock))


class _BoundedHttp(HTTPConnection):
    response_class = _BoundedResponse


class _BoundedHttps(HTTPSConnection):
    response_class = _BoundedResponse


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _BoundedHttp


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _BoundedHttps
