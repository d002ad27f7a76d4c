"""A requests session that takes nothing from the environment and bounds every answer in time and size."""

import io
import socket
import time
from http.client import HTTPResponse
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, Final

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

_LARGEST_ANSWER: Final = 1_048_576
"""In bytes, head included. The largest true answer, 400 signatures, has about a tenth of that."""


def bounded_session(ca_file: Path | None) -> requests.Session:
    """
    A session without proxies, ``.netrc``, cookies, or the environment's certificate bundle.

    The read timeout given with a request bounds its whole answer. ``ca_file`` holds the only
    authorities that are believed; without one they are those of the ``certifi`` package.
    """
    session = requests.Session()
    session.trust_env = False
    session.verify = True if ca_file is None else str(ca_file)
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    session.headers["Accept-Encoding"] = "identity"
    session.hooks["response"].append(_refuse_encoded)
    for scheme in ("http://", "https://"):
        session.mount(scheme, _BoundedAdapter(pool_connections=1, pool_maxsize=2))
    return session


def _refuse_encoded(response: requests.Response, **_: Any) -> None:
    """Refuse a compressed body unread: its true size cannot be known beforehand."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise ValueError("the body is encoded")


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
            raise OSError("the answer is too large")
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


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _BoundedHttp


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _BoundedHttps


class _BoundedAdapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
