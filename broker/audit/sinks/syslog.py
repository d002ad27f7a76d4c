"""Records as syslog messages (RFC 5424), over a Unix socket, UDP, TCP or TLS."""

import errno
import json
import re
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from broker.audit.chain import line_hash
from broker.audit.sinks.destination import SinkFailed, failures_as_sink_failures
from broker.audit.sinks.dialing import Dialer, is_ended
from broker.fetch.deadline import Deadline
from broker.fetch.wire import send_all

_LOG_AUDIT: Final = 13
_INFORMATIONAL: Final = 6
_WARNING: Final = 4
_LARGEST_SEQUENCE_ID: Final = 2**31 - 1
_NOT_PRINTABLE: Final = re.compile(r"[^\x21-\x7e]")
# What a connection may have had under way when it tore is sent again over the next.
_KEPT_BYTES: Final = 1024 * 1024
# Larger datagrams do not exist; most networks take much smaller ones.
_LARGEST_DATAGRAM: Final = 65_507
_UNIX_BUFFER: Final = 1024 * 1024


class _Told(Struct, gc=False):
    """What a message says about a record outside of it."""

    decision: str
    event: str
    seq: int
    time: str
    writer: str


_DECODER: Final = msgspec.json.Decoder(_Told)


class Transport(Protocol):
    """Brings messages to a syslog server. Raises what a connection can raise."""

    def send(self, messages: Sequence[bytes], deadline: Deadline) -> None: ...

    def close(self) -> None: ...


class Syslog:
    """
    Sends each record as one message; it is taken once this system has it to send.

    The whole line of the record is the message, so that it can be checked and counted where it arrives. A
    line that the transport cannot carry is told of by its place and hash, and stands in the files.
    """

    def __init__(self, transport: Transport, *, host: str = "") -> None:
        named = _NOT_PRINTABLE.sub("", host or socket.gethostname())[:255]
        self._host = named or "-"
        self._transport = transport

    def take(self, lines: Sequence[bytes], deadline: Deadline) -> None:
        messages = [message(line, host=self._host) for line in lines]
        try:
            with failures_as_sink_failures():
                self._transport.send(messages, deadline)
        except SinkFailed:
            self._transport.close()
            raise

    def close(self) -> None:
        self._transport.close()


def message(line: bytes, *, host: str) -> bytes:
    """
    The message of a record's line (RFC 5424 6).

    Facility 13, log audit; severity 4 for a denial and 6 for all else. PROCID is the chain, MSGID the event,
    and ``sequenceId`` the record's number in its chain, so that a gap shows.
    """
    told = _DECODER.decode(line)
    priority = 8 * _LOG_AUDIT + (_WARNING if told.decision == "deny" else _INFORMATIONAL)
    sequence = told.seq % _LARGEST_SEQUENCE_ID + 1
    header = (
        f"<{priority}>1 {told.time} {host} broker {told.writer} {told.event}"
        f' [meta sequenceId="{sequence}"] '
    )
    return header.encode("ascii") + line


class StreamTransport:
    """
    TCP with octet counting (RFC 6587 3.4.1), over TLS when there is a context (RFC 5425).

    What was sent last, up to a mebibyte, is sent again over a new connection: nobody knows how much of it
    was lost with the old one.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._dialer = Dialer(host, port, tls)
        self._sock: socket.socket | None = None
        self._sent: deque[bytes] = deque()
        self._sent_bytes = 0

    def send(self, messages: Sequence[bytes], deadline: Deadline) -> None:
        if self._sock is not None and is_ended(self._sock):
            self.close()
        frames = [b"%d %s" % (len(one), one) for one in messages]
        data = b"".join(frames)
        if self._sock is None or not _is_sent(self._sock, data, deadline):
            self.close()
            self._sock = self._dialer.dial(deadline)
            send_all(self._sock, b"".join(self._sent) + data, deadline=deadline)
        self._keep(frames)

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _keep(self, frames: Sequence[bytes]) -> None:
        self._sent.extend(frames)
        self._sent_bytes += sum(map(len, frames))
        while self._sent_bytes > _KEPT_BYTES:
            self._sent_bytes -= len(self._sent.popleft())


def _is_sent(sock: socket.socket, data: bytes, deadline: Deadline) -> bool:
    """Whether an old connection took it; one that tore meanwhile is no failure yet."""
    try:
        send_all(sock, data, deadline=deadline)
    except TimeoutError:
        raise
    except OSError:
        return False
    return True


class DatagramTransport:
    """UDP, one message in each datagram (RFC 5426). Nobody is told when one is lost."""

    def __init__(self, host: str, port: int) -> None:
        self._dialer = Dialer(host, port, None)
        self._sock: socket.socket | None = None

    def send(self, messages: Sequence[bytes], deadline: Deadline) -> None:
        if self._sock is None:
            address = self._dialer.addresses(deadline)[0]
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            self._sock = socket.socket(family, socket.SOCK_DGRAM)
            self._sock.connect((address, self._dialer.port))
        for one in messages:
            self._sock.settimeout(deadline.remaining())
            self._sock.send(one if len(one) <= _LARGEST_DATAGRAM else notice(one))

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


class UnixTransport:
    """The socket of this machine's own syslog, which has datagrams, or a stream on few systems."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sock: socket.socket | None = None

    def send(self, messages: Sequence[bytes], deadline: Deadline) -> None:
        if self._sock is None:
            self._sock = self._connected(deadline)
        is_stream = self._sock.type == socket.SOCK_STREAM
        for one in messages:
            if is_stream:
                send_all(self._sock, b"%d %s" % (len(one), one), deadline=deadline)
            else:
                self._send_datagram(self._sock, one, deadline)

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _connected(self, deadline: Deadline) -> socket.socket:
        try:
            return self._open(socket.SOCK_DGRAM, deadline)
        except OSError as failure:
            if failure.errno != errno.EPROTOTYPE:
                raise
        return self._open(socket.SOCK_STREAM, deadline)

    def _open(self, kind: socket.SocketKind, deadline: Deadline) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, kind)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNIX_BUFFER)
            sock.settimeout(deadline.remaining())
            sock.connect(str(self._path))
        except BaseException:
            sock.close()
            raise
        return sock

    def _send_datagram(self, sock: socket.socket, one: bytes, deadline: Deadline) -> None:
        sock.settimeout(deadline.remaining())
        try:
            sock.send(one)
        except OSError as failure:
            if failure.errno != errno.EMSGSIZE:
                raise
            sock.send(notice(one))


def notice(whole: bytes) -> bytes:
    """The message that stands for one that is too long: its header, and the place and hash of the line."""
    start = whole.index(b"] ") + 2
    line = whole[start:]
    told = _DECODER.decode(line)
    facts = {
        "cut_bytes": len(line),
        "hash": line_hash(line),
        "seq": told.seq,
        "writer": told.writer,
    }
    return whole[:start] + json.dumps(facts, separators=(",", ":")).encode("ascii")
