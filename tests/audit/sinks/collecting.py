"""Servers for records: a strict syslog reader and a collector that does as a test tells it."""

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from broker.audit.disk import DiskChain
from broker.audit.record import Record
from broker.audit.sinks.destination import Destination, Sink, SinkFailed
from broker.audit.sinks.shipper import Shipped, Shipper
from broker.fetch.deadline import Deadline
from tests.audit.chains import record

MESSAGE = re.compile(
    rb"<(?P<priority>[0-9]{1,3})>1 "
    rb"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z) "
    rb"(?P<host>[\x21-\x7e]{1,255}) (?P<app>[\x21-\x7e]{1,48}) "
    rb"(?P<process>[\x21-\x7e]{1,128}) (?P<kind>[\x21-\x7e]{1,32}) "
    rb'\[meta sequenceId="(?P<sequence>[1-9][0-9]{0,9})"\] (?P<line>\{[\x20-\x7e]*\})'
)
"""A whole message (RFC 5424 6), as far as the broker uses it."""


def read_message(raw: bytes) -> dict[str, bytes]:
    """The parts of a message; fails the test for one that is none."""
    found = MESSAGE.fullmatch(raw)
    assert found is not None, raw[:300]
    assert 0 <= int(found["priority"]) <= 191
    return found.groupdict()


def frames(stream: bytes) -> list[bytes]:
    """The messages of an octet-counted stream (RFC 6587 3.4.1); one that was cut off is left out."""
    found = []
    while stream:
        length, space, rest = stream.partition(b" ")
        assert re.fullmatch(rb"[1-9][0-9]{0,9}", length) or not space, stream[:80]
        if not space or len(rest) < int(length):
            break
        found.append(rest[: int(length)])
        stream = rest[int(length) :]
    return found


class StreamServer:
    """Accepts connections and keeps what arrives on each; ``is_reading`` cleared, it lets them stand."""

    def __init__(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        self.streams: list[bytearray] = []
        self.is_reading = threading.Event()
        self.is_reading.set()
        self._tls = tls
        self._listener = listener
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def messages(self) -> list[dict[str, bytes]]:
        """Everything that arrived whole, on all connections in turn."""
        return [read_message(one) for stream in self.streams for one in frames(bytes(stream))]

    def lines(self) -> list[bytes]:
        return [one["line"] for one in self.messages()]

    def cut(self) -> None:
        """End every connection."""
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        self.is_reading.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._read, args=(sock,), daemon=True).start()

    def _read(self, sock: socket.socket) -> None:
        with suppress(OSError), sock:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            with sock:
                self._open.append(sock)
                stream = bytearray()
                self.streams.append(stream)
                while self.is_reading.wait() and (part := sock.recv(65_536)):
                    stream += part


Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """One request to the collector."""

    protocol_version = "HTTP/1.1"
    collector: ClassVar["CollectorServer"]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        script = self.collector.scripts.pop(0) if self.collector.scripts else accept
        self.collector.body = body
        self.collector.requests.append((dict(self.headers), body))
        script(self)

    def take(self) -> None:
        """Keep the lines of the batch."""
        body = self.collector.body
        assert body.endswith(b"\n")
        self.collector.lines += body.splitlines()

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


class CollectorServer(ThreadingHTTPServer):
    """A collector; each of ``scripts`` answers one request, and after them all are accepted."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int = 0) -> None:
        self.lines: list[bytes] = []
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.scripts: list[Answer] = []
        self.body = b""
        handler = type("Bound", (Handler,), {"collector": self})
        super().__init__(("127.0.0.1", port), handler)
        threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/audit?from=broker"

    def handle_error(self, *_arguments: Any) -> None:
        """Connections that break are part of the tests."""

    def close(self) -> None:
        self.shutdown()
        self.server_close()


def accept(handler: Handler) -> None:
    handler.take()
    handler.answer(202)


def refuse(status: int, **headers: str) -> Answer:
    """Answer so, and take nothing."""
    return lambda handler: handler.answer(status, b"no", **headers)


def reset(handler: Handler) -> None:
    """End the connection without an answer."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    handler.close_connection = True
    handler.connection.close()


def take_and_reset(handler: Handler) -> None:
    """Keep the batch, and lose the answer."""
    handler.take()
    reset(handler)


def hang(gate: threading.Event) -> Answer:
    """Say nothing until the gate is opened."""

    def script(handler: Handler) -> None:
        gate.wait(60)
        reset(handler)

    return script


@contextmanager
def closing(*servers: Any) -> Iterator[None]:
    try:
        yield
    finally:
        for server in servers:
            server.close()


def in_time(seconds: float = 30.0) -> Deadline:
    return Deadline.after(seconds)


def lines_of(directory: Path, writer: str = "w1") -> list[bytes]:
    """All lines of a chain, as they stand in its files."""
    return [
        line
        for path in sorted(directory.glob(f"{writer}.*.jsonl"))
        for line in path.read_bytes().splitlines()
    ]


def some_lines(directory: Path, count: int = 3, *, records: Sequence[Record] = ()) -> list[bytes]:
    """Lines as a chain has them."""
    chain = DiskChain(directory, writer="w1", now=lambda: 1_800_000_000.25)
    chain.open("start")
    chain.append(records or [record(number) for number in range(count)])
    chain.close()
    return lines_of(directory)


@contextmanager
def shipping(directory: Path, *sinks: Shipped, patience: float = 0.1) -> Iterator[Shipper]:
    """A shipper that looks often."""
    shipper = Shipper(directory, sinks, timeout=30.0, interval=0.02, patience=patience)
    shipper.begin()
    try:
        yield shipper
    finally:
        shipper.close()


class Memory(Destination):
    """A sink of a test's own: keeps what it is given, or fails while ``failure`` is set."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.sizes: list[int] = []
        self.failure: SinkFailed | None = None
        self.attempts = 0

    def take(self, lines: Sequence[bytes], _deadline: Deadline) -> None:
        self.attempts += 1
        if self.failure is not None:
            raise self.failure
        self.sizes.append(len(lines))
        self.lines += lines

    def close(self) -> None:
        """There is nothing to let go of."""

    def sink(self, name: str = "memory") -> Sink:
        return Sink(name, self)


def seconds_for(act: Callable[[], object]) -> float:
    """How long something took."""
    started = time.monotonic()
    act()
    return time.monotonic() - started
