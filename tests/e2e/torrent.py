"""
Callers who do not wait for each other: requests go out at a rate, whatever becomes of those before.

A process of its own that sends the same bytes again and again and looks at answers no closer than it must,
so that it can ask for several times what a broker can do. It reads what to do from standard input and
writes what it saw to standard output.
"""

import json
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Protocol

ROOT: Final = Path(__file__).parents[2]

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _WINDOW = 0, 1, 3, 4, 6, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_WIDE: Final = struct.pack(">I", 2**30)
_CALLS_AT_ONCE: Final = 16
_LONGEST_ANSWER: Final = 10.0


@dataclass(frozen=True, slots=True)
class Torrent:
    """
    What to send, and how fast: ``head`` and ``body`` of a request over HTTP, or of a call over gRPC.

    ``rates`` are requests a second, each for ``seconds``, one after the other without a pause between.
    """

    face: str
    port: int
    head: str
    body: str
    rates: Sequence[float]
    seconds: float
    connections: int = 256


@dataclass(slots=True)
class Stretch:
    """What became of the requests of one rate: seconds until they were granted, and the others."""

    rate: float
    seconds: float
    waits: list[float] = field(default_factory=list)
    refused: int = 0
    unsent: int = 0
    broken: int = 0

    @property
    def goodput(self) -> float:
        """How many were granted in a second."""
        return len(self.waits) / self.seconds

    def wait(self, share: float) -> float:
        """The seconds within which this share of what was granted was granted."""
        ordered = sorted(self.waits)
        return ordered[int(len(ordered) * share)] if ordered else float("inf")


def pour(torrent: Torrent) -> list[Stretch]:
    """Send it all from a process of its own, and return what became of it."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.torrent"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        input=json.dumps(asdict(torrent)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=sum(torrent.seconds for _ in torrent.rates) + 60,
    )
    return [Stretch(**one) for one in json.loads(done.stdout)]


@dataclass(slots=True)
class _Asked:
    """A request that went out, and of which stretch it is."""

    at: float
    stretch: Stretch

    def end(self, *, is_granted: bool) -> None:
        if is_granted:
            self.stretch.waits.append(time.monotonic() - self.at)
        else:
            self.stretch.refused += 1


class _Connection(Protocol):
    sock: socket.socket
    pending: int

    def ask(self, asked: _Asked) -> None: ...
    def read(self, data: bytes) -> None: ...
    def lose(self) -> None: ...


class _Http:
    """A connection that carries one request at a time."""

    most = 1

    def __init__(self, torrent: Torrent) -> None:
        self.sock = _connect(torrent.port)
        self.pending = 0
        body = torrent.body.encode("latin-1")
        self._request = (
            torrent.head.encode("latin-1") + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        )
        self._asked: _Asked | None = None
        self._read = b""

    def ask(self, asked: _Asked) -> None:
        self._asked = asked
        self.pending = 1
        self.sock.sendall(self._request)

    def read(self, data: bytes) -> None:
        self._read += data
        head, separator, body = self._read.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r", 1)[0])
        if len(body) >= length and self._asked is not None:
            self._asked.end(is_granted=head.startswith(b"HTTP/1.1 200"))
            self._asked, self._read, self.pending = None, b"", 0

    def lose(self) -> None:
        if self._asked is not None:
            self._asked.stretch.broken += 1


class _Grpc:
    """A connection that carries as many calls at a time as the broker allows."""

    most = _CALLS_AT_ONCE

    def __init__(self, torrent: Torrent) -> None:
        self.sock = _connect(torrent.port)
        self.pending = 0
        method, _, authorization = torrent.head.partition("\n")
        self._headers = (
            b"\x83\x86"
            + _literal(b":path", method.encode())
            + _literal(b":authority", b"x")
            + _literal(b"content-type", b"application/grpc")
            + _literal(b"te", b"trailers")
            + (_literal(b"authorization", authorization.encode()) if authorization else b"")
        )
        message = torrent.body.encode("latin-1")
        self._message = b"\0" + struct.pack(">I", len(message)) + message
        self._next = 1
        self._calls: dict[int, tuple[_Asked, bool]] = {}
        self._read = b""
        self.sock.sendall(_PREFACE + _frame(_SETTINGS, 0, 0) + _frame(_WINDOW, 0, 0, _WIDE))

    def ask(self, asked: _Asked) -> None:
        self._calls[self._next] = (asked, False)
        self.pending = len(self._calls)
        self.sock.sendall(
            _frame(_HEADERS, _END_HEADERS, self._next, self._headers)
            + _frame(_DATA, _END_STREAM, self._next, self._message)
        )
        self._next += 2

    def read(self, data: bytes) -> None:
        self._read += data
        answers = b""
        for kind, flags, stream, payload in self._frames():
            if kind == _SETTINGS and not flags & _ACK:
                answers += _frame(_SETTINGS, _ACK, 0)
            elif kind == _PING and not flags & _ACK:
                answers += _frame(_PING, _ACK, 0, payload)
            elif stream in self._calls:
                asked, has_message = self._calls[stream]
                # Only a call that is granted is answered with a message.
                has_message = has_message or (kind == _DATA and len(payload) > 5)
                self._calls[stream] = (asked, has_message)
                if kind == _RESET or (kind in {_DATA, _HEADERS} and flags & _END_STREAM):
                    del self._calls[stream]
                    asked.end(is_granted=has_message)
        self.pending = len(self._calls)
        if answers:
            self.sock.sendall(answers)

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        while len(self._read) >= 9:
            length = int.from_bytes(self._read[:3], "big")
            if len(self._read) < 9 + length:
                return
            kind, flags = self._read[3], self._read[4]
            stream = int.from_bytes(self._read[5:9], "big") & 0x7FFFFFFF
            payload, self._read = self._read[9 : 9 + length], self._read[9 + length :]
            yield kind, flags, stream, payload

    def lose(self) -> None:
        for asked, _ in self._calls.values():
            asked.stretch.broken += 1


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


def _literal(name: bytes, value: bytes) -> bytes:
    assert len(value) < 127
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


class _Pouring:
    """All connections, and the moment at which the next request is due."""

    def __init__(self, torrent: Torrent) -> None:
        self._torrent = torrent
        self._kind: type[_Http | _Grpc] = _Http if torrent.face == "http" else _Grpc
        self._most = max(1, torrent.connections // self._kind.most)
        self._selector = selectors.DefaultSelector()
        self._free: deque[_Connection] = deque()
        self._number = 0

    def pour(self) -> list[Stretch]:
        stretches = [Stretch(rate, self._torrent.seconds) for rate in self._torrent.rates]
        for stretch in stretches:
            self._pour(stretch)
        end = time.monotonic() + _LONGEST_ANSWER
        while time.monotonic() < end and any(
            key.data.pending for key in self._selector.get_map().values()
        ):
            self._listen(0.1)
        return stretches

    def _pour(self, stretch: Stretch) -> None:
        begun = due = time.monotonic()
        while due < begun + stretch.seconds:
            now = time.monotonic()
            while due <= now and due < begun + stretch.seconds:
                self._send(_Asked(due, stretch))
                due += 1 / stretch.rate
            self._listen(max(0.0, min(due - time.monotonic(), 0.005)))

    def _send(self, asked: _Asked) -> None:
        connection = self._connection()
        if connection is None:
            asked.stretch.unsent += 1
            return
        try:
            connection.ask(asked)
        except OSError:
            self._lose(connection)
            return
        if connection.pending < self._kind.most:
            self._free.append(connection)

    def _connection(self) -> _Connection | None:
        if self._free:
            return self._free.popleft()
        if self._number >= self._most:
            return None
        try:
            connection = self._kind(self._torrent)
        except OSError:
            return None
        self._number += 1
        self._selector.register(connection.sock, selectors.EVENT_READ, connection)
        return connection

    def _listen(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            connection: _Connection = key.data
            was_full = connection.pending >= self._kind.most
            try:
                data = connection.sock.recv(262_144)
                if data:
                    connection.read(data)
            except OSError:
                data = b""
            if not data:
                self._lose(connection)
            elif was_full and connection.pending < self._kind.most:
                self._free.append(connection)

    def _lose(self, connection: _Connection) -> None:
        connection.lose()
        self._selector.unregister(connection.sock)
        connection.sock.close()
        self._number -= 1
        if connection in self._free:
            self._free.remove(connection)


if __name__ == "__main__":
    told = _Pouring(Torrent(**json.load(sys.stdin))).pour()
    json.dump([asdict(one) for one in told], sys.stdout)
