"""
Connections of the load generator: prepared bytes out, and no more read than who was granted what.

A client library costs its process more than the broker spends on a request. These two know just the one
exchange of messages that is measured, and trust the server, which runs on the same machine.
"""

import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_FRAME_HEAD: Final = 9
_WIDEST_WINDOW: Final = 2**31 - 1
_FIRST_WINDOW: Final = 65_535
_LARGEST_FRAME: Final = 16_384


class BrokenConnectionError(Exception):
    """The server closed, or said something that ends the measurement."""


class Connection(ABC):
    """
    One connection with at most one request on its way.

    ``answer`` is what came last, for a person to read when it was not the right one.
    """

    answer: bytes = b""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @abstractmethod
    def send(self, body: bytes) -> None:
        """Send one request."""

    @abstractmethod
    def receive(self) -> bool | None:
        """Read what has come: whether the request was granted, ``None`` while that is not known."""

    def close(self) -> None:
        """Close it."""
        self.socket.close()

    def _read(self) -> bytes:
        data = self.socket.recv(65_536)
        if not data:
            raise BrokenConnectionError("the server closed the connection")
        return data


class HttpConnection(Connection):
    """HTTP/1.1, kept alive. Granted is what is answered with 200 and holds a token."""

    def __init__(
        self, port: int, *, verb: str, path: str, headers: Sequence[tuple[str, str]]
    ) -> None:
        super().__init__(port)
        lines = [f"{verb} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
        lines += [f"{name}: {text}" for name, text in headers]
        self._head = "\r\n".join([*lines, "Content-Length: "]).encode()
        self._received = b""

    def send(self, body: bytes) -> None:
        self._received = b""
        self.socket.sendall(b"%s%d\r\n\r\n%s" % (self._head, len(body), body))

    def receive(self) -> bool | None:
        self._received += self._read()
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or len(body) < _content_length(head):
            return None
        self.answer = self._received
        return head.startswith(b"HTTP/1.1 200") and b"token" in body


def _content_length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    if not found:
        raise BrokenConnectionError(f"an answer without a length: {head[:200]!r}")
    return int(rest.partition(b"\r\n")[0])


class GrpcConnection(Connection):
    """
    Unary gRPC over HTTP/2 without TLS. Granted is what is answered with a message.

    A call that fails has no message in its answer, so the compressed headers need not be read.
    """

    def __init__(self, port: int, *, path: str, headers: Sequence[tuple[str, str]]) -> None:
        super().__init__(port)
        self._block = _header_block(port, path, headers)
        self._stream = -1
        self._received = b""
        self._has_message = False
        settings = struct.pack(">HI", 4, _WIDEST_WINDOW)
        wider = struct.pack(">I", _WIDEST_WINDOW - _FIRST_WINDOW)
        opening = _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW_UPDATE, 0, 0, wider)
        self.socket.sendall(_PREFACE + opening)

    def send(self, body: bytes) -> None:
        self._stream += 2
        self._has_message = False
        message = struct.pack(">BI", 0, len(body)) + body
        assert len(message) <= _LARGEST_FRAME
        self.socket.sendall(
            _frame(_HEADERS, _END_HEADERS, self._stream, self._block)
            + _frame(_DATA, _END_STREAM, self._stream, message)
        )

    def receive(self) -> bool | None:
        self._received += self._read()
        result = None
        while (frame := self._next_frame()) is not None:
            kind, flags, stream, payload = frame
            if stream == 0:
                self._mind(kind, flags, payload)
            elif stream == self._stream and self._is_end(kind, flags, payload):
                result = self._has_message and kind != _RESET
                self.answer = payload
        return result

    def _next_frame(self) -> tuple[int, int, int, bytes] | None:
        data = self._received
        if len(data) < _FRAME_HEAD:
            return None
        end = _FRAME_HEAD + (data[0] << 16 | data[1] << 8 | data[2])
        if len(data) < end:
            return None
        self._received = data[end:]
        (stream,) = struct.unpack_from(">I", data, 5)
        return data[3], data[4], stream, data[_FRAME_HEAD:end]

    def _is_end(self, kind: int, flags: int, payload: bytes) -> bool:
        """Take notice of a frame of the call; whether it is the last."""
        self._has_message |= kind == _DATA and len(payload) > 5
        return kind == _RESET or (kind in (_DATA, _HEADERS) and bool(flags & _END_STREAM))

    def _mind(self, kind: int, flags: int, payload: bytes) -> None:
        """What concerns the connection as a whole."""
        if kind == _GOAWAY:
            raise BrokenConnectionError(f"the server said goodbye: {payload[8:]!r}")
        if kind in (_PING, _SETTINGS) and not flags & _ACK:
            self.socket.sendall(_frame(kind, _ACK, 0, payload if kind == _PING else b""))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _header_block(port: int, path: str, headers: Sequence[tuple[str, str]]) -> bytes:
    """The headers of a call (RFC 7541), by the static table where it has them, and never indexed."""
    fixed = b"\x83\x86"  # :method POST, :scheme http
    named = _literal(b"\x04", path) + _literal(b"\x01", f"127.0.0.1:{port}")
    every = (("content-type", "application/grpc"), ("te", "trailers"), *headers)
    new = (_literal(b"\x00" + _text(name), text) for name, text in every)
    return fixed + named + b"".join(new)


def _literal(name: bytes, text: str) -> bytes:
    return name + _text(text)


def _text(text: str) -> bytes:
    data = text.encode("ascii")
    assert len(data) < 127
    return bytes([len(data)]) + data
