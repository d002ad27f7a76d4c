"""One connection to a Valkey or Redis server: every wait ends at one moment, and what arrives is bounded."""

import ipaddress
import re
import select
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, cast

from valkey.connection import Connection
from valkey.credentials import CredentialProvider
from valkey.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    ValkeyError,
)
from valkey.exceptions import TimeoutError as ValkeyTimeoutError

from broker.fetch.deadline import Deadline
from broker.fetch.refusals import FetchReason, FetchRefused
from broker.fetch.resolver import TimedResolver

_LARGEST_ANSWER: Final = 4 * 1024 * 1024
_LARGEST_PASSWORD: Final = 4096
_WORD: Final = re.compile(r"[A-Z]{2,20}(?= |$)")
# The client library keeps the first word of some errors in the class alone.
_CODES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (BusyLoadingError, "LOADING"),
    (AuthenticationError, "NOAUTH"),
    (NoPermissionError, "NOPERM"),
    (NoScriptError, "NOSCRIPT"),
    (OutOfMemoryError, "OOM"),
    (ReadOnlyError, "READONLY"),
)
_LACKS_RIGHTS: Final = ("ACL failure in script", "The user executing the script")

Reply = Any
"""What a server answers: bytes, a whole number, ``None``, or a list of these."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server is."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ClientTls:
    """
    Whose certificates are believed, and the one to present.

    Without ``ca_file`` the authorities are those of the operating system.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        """The files as they are now, so that a certificate may be replaced while the broker runs."""
        files = (self.ca_file, self.cert_file, self.key_file)
        return _context(self, tuple(map(_version, files)))


@lru_cache(maxsize=4)
def _context(tls: ClientTls, _versions: tuple[object, ...]) -> ssl.SSLContext:
    """Made once for what the files hold: to read the system's authorities takes a while."""
    context = ssl.create_default_context(cafile=tls.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.cert_file is not None:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    return context


def _version(file: Path | None) -> tuple[int, ...]:
    """What changes whenever somebody puts another content there."""
    if file is None:
        return ()
    status = file.stat()
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)


@dataclass(frozen=True, slots=True)
class Access:
    """
    How servers are talked to: over TLS or not, and as whom.

    The file of the password is read for every connection, so that it may be replaced meanwhile.
    """

    tls: ClientTls | None = None
    username: str | None = None
    password_file: Path | None = None
    database: int = 0


class ValkeyFault(Exception):
    """
    A server did not do what it was asked.

    ``detail`` is what an audit record may say: the first word of the server's error, or what happened
    to the connection. ``is_answer`` tells that the server itself said no, and the connection is well.
    """

    def __init__(self, detail: str, *, is_answer: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.is_answer = is_answer


@contextmanager
def reading() -> Iterator[None]:
    """Whatever an answer is that was not to be expected, it is a fault like any other."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError):
        # Somebody else answers, or has written there, or removed a part of it.
        raise ValkeyFault("its memory is not as the broker writes it", is_answer=True) from None


class Link(Connection):
    """
    A connection for one thread at a time. It connects when it is first asked something.

    The library knows one timeout for each wait; here all waits of a call end at the same moment, those for
    the name, the handshake and the password included. A call that failed half-way closes the connection.
    """

    def __init__(self, endpoint: Endpoint, access: Access, *, resolver: TimedResolver) -> None:
        self.endpoint = endpoint
        self._access = access
        self._resolver = resolver
        self._bounds = _Bounds()
        has_credential = access.password_file is not None or access.username is not None
        # The library is typed in part.
        super().__init__(  # type: ignore[no-untyped-call]
            host=endpoint.host,
            port=endpoint.port,
            db=access.database,
            credential_provider=_Credential(access) if has_credential else None,
            lib_name=None,
            lib_version=None,
        )

    def ask(self, *command: bytes | str | float, moment: float) -> Reply:
        """
        The answer to one command, by that moment of the monotonic clock.

        Raises ``ValkeyFault``.
        """
        self._bounds.begin(moment)
        with _faults():
            self.send_command(*command, check_health=False)  # type: ignore[no-untyped-call]
            return self.read_response()  # type: ignore[no-untyped-call]

    @property
    def is_open(self) -> bool:
        """Whether it is connected, as far as is known."""
        return self._sock is not None

    def close(self) -> None:
        """Close it; it connects anew when it is asked something again."""
        self.disconnect()  # type: ignore[no-untyped-call]

    def is_stale(self) -> bool:
        """Whether the server has closed this idle connection, or said something unasked."""
        if self._sock is None:
            return True
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    def _connect(self) -> socket.socket:
        addresses = self._addresses()
        failure = OSError("the name has no address")
        for at, address in enumerate(addresses):
            try:
                return self._connect_to(address, within=1 / (len(addresses) - at))
            except OSError as error:
                failure = error
        raise failure

    def _addresses(self) -> list[str]:
        try:
            return [str(ipaddress.ip_address(self.endpoint.host))]
        except ValueError:
            deadline = Deadline(self._bounds.moment)
            found = self._resolver.resolve(
                self.endpoint.host, self.endpoint.port, deadline=deadline
            )
            return list(found)

    def _connect_to(self, address: str, *, within: float) -> socket.socket:
        """Use up that part of the time that is left at most: the next address may be the one that answers."""
        left = self._bounds.remaining() * within
        plain = socket.create_connection((address, self.endpoint.port), timeout=left)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return cast(socket.socket, _BoundedSocket(self._secured(plain), self._bounds))
        except BaseException:
            plain.close()
            raise

    def _secured(self, plain: socket.socket) -> socket.socket:
        if self._access.tls is None:
            return plain
        context = self._access.tls.context()
        plain.settimeout(self._bounds.remaining())
        return context.wrap_socket(plain, server_hostname=self.endpoint.host)


class _Credential(CredentialProvider):
    """The user's name and the password in the file."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = ""
        if self._access.password_file is not None:
            with self._access.password_file.open("rb") as file:
                content = file.read(_LARGEST_PASSWORD + 1)
            if len(content) > _LARGEST_PASSWORD:
                raise OSError("the password file is too large")
            password = content.decode().strip()
        username = self._access.username
        return (password,) if username is None else (username, password)


class _Bounds:
    """The moment at which a call ends, and how many bytes may still arrive."""

    def __init__(self) -> None:
        self.moment = 0.0
        self._room = 0

    def begin(self, moment: float) -> None:
        self.moment = moment
        self._room = _LARGEST_ANSWER

    def remaining(self) -> float:
        left = self.moment - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def take(self, count: int) -> None:
        self._room -= count
        if self._room < 0:
            raise OSError("the answer is too large")


class _BoundedSocket:
    """A connected socket, as far as the library looks at it; the bounds are those of the call."""

    def __init__(self, sock: socket.socket, bounds: _Bounds) -> None:
        self._sock = sock
        self._bounds = bounds

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._bounds.remaining())
        self._sock.sendall(data)

    def recv(self, size: int) -> bytes:
        self._sock.settimeout(self._bounds.remaining())
        data = self._sock.recv(size)
        self._bounds.take(len(data))
        return data

    def recv_into(self, buffer: Any) -> int:
        self._sock.settimeout(self._bounds.remaining())
        count = self._sock.recv_into(buffer)
        self._bounds.take(count)
        return count

    def settimeout(self, timeout: float | None) -> None:
        """Keep the moment: the library's timeouts are of no interest."""

    def fileno(self) -> int:
        return self._sock.fileno()

    def shutdown(self, how: int) -> None:
        self._sock.shutdown(how)

    def close(self) -> None:
        self._sock.close()


@contextmanager
def _faults() -> Iterator[None]:
    """Turn everything that a call can raise into ``ValkeyFault``, which quotes nothing that was sent."""
    try:
        yield
    except ResponseError as error:
        raise ValkeyFault(_code(error), is_answer=True) from None
    except (TimeoutError, ValkeyTimeoutError):
        raise ValkeyFault("timed out") from None
    except FetchRefused as refused:
        is_late = refused.reason is FetchReason.TIMEOUT
        raise ValkeyFault("timed out" if is_late else "the name does not resolve") from None
    except (ValkeyError, OSError, ValueError, RecursionError) as error:
        raise ValkeyFault(_what_broke(error)) from None


def _what_broke(error: Exception) -> str:
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    # The library says a failed handshake in words alone; what it caught is behind it.
    causes = (error, error.__context__)
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in causes):
        return "certificate not trusted"
    return "no TLS" if any(isinstance(one, ssl.SSLError) for one in causes) else "unreachable"


def _code(error: ResponseError) -> str:
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    text = str(error).removeprefix("ERR ")
    if text.startswith(_LACKS_RIGHTS):
        return "NOPERM"
    found = _WORD.match(text)
    return found[0] if found else "ERR"
