"""A TCP proxy on loopback that delays, swallows, drips and cuts what passes through it."""

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from enum import Enum, auto
from typing import Final

_CHUNK: Final = 65_536
_PATIENCE: Final = 60.0


class Fault(Enum):
    """What happens to what passes."""

    NONE = auto()
    CUT = auto()
    """Connections are ended, and new ones as soon as they are made."""
    BLACKHOLE = auto()
    """Everything is accepted, and nothing arrives anywhere."""
    LOST_ANSWERS = auto()
    """Requests arrive, answers do not."""
    DRIP = auto()
    """Answers arrive byte by byte, ten a second."""
    RESET = auto()
    """New connections are made, and reset as soon as something comes over them."""


class FaultProxy:
    """
    Stands before a server on this machine and passes everything on, until told otherwise.

    With ``tls`` it speaks TLS to those who connect, and plainly to the server. ``delay`` is how long answers
    are held back, in seconds. ``accepted`` counts the connections that were made to it.
    """

    def __init__(self, target_port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.fault = Fault.NONE
        self.delay = 0.0
        self.accepted = 0
        self._target_port = target_port
        self._tls = tls
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every connection, and refuse new ones until mended."""
        self.fault = Fault.CUT
        self.end_connections()

    def mend(self) -> None:
        """Pass everything on from now on; connections made meanwhile may be of no use."""
        self.fault = Fault.NONE
        self.delay = 0.0

    def retarget(self, port: int) -> None:
        """Pass new connections on to another server."""
        self._target_port = port
        self.end_connections()

    def end_connections(self) -> None:
        """End every connection that there is."""
        with self._lock:
            every = list(self._open)
        for sock in every:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Leave nothing behind."""
        self.fault = Fault.CUT
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.end_connections()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.accepted += 1
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.ExitStack() as closing, contextlib.suppress(OSError):
            # A handshake that is never finished must not hold the proxy up.
            sock.settimeout(5)
            client = closing.enter_context(sock)
            if self.fault is Fault.CUT:
                return
            if self.fault is Fault.RESET:
                sock.recv(1)
                # Without time to linger, closing means a reset.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            if self._tls is not None:
                client = closing.enter_context(self._tls.wrap_socket(sock, server_side=True))
            server = socket.create_connection(("127.0.0.1", self._target_port), timeout=5)
            closing.enter_context(server)
            for one in (client, server):
                closing.enter_context(self._listed(one))
            ends = _End(client), _End(server)
            answers = threading.Thread(target=self._answer, args=ends, daemon=True)
            answers.start()
            self._request(*ends)
            answers.join()

    @contextlib.contextmanager
    def _listed(self, sock: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(sock)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(sock)

    def _request(self, client: "_End", server: "_End") -> None:
        with _ending(client, server):
            while data := client.receive():
                if self.fault is not Fault.BLACKHOLE:
                    server.send(data)

    def _answer(self, client: "_End", server: "_End") -> None:
        with _ending(server, client):
            while data := server.receive():
                time.sleep(self.delay)
                if self.fault is Fault.DRIP:
                    self._drip(client, data)
                elif self.fault not in {Fault.BLACKHOLE, Fault.LOST_ANSWERS}:
                    client.send(data)

    def _drip(self, client: "_End", data: bytes) -> None:
        for at in range(len(data)):
            client.send(data[at : at + 1])
            time.sleep(0.1)


class _End:
    """
    One end of a connection, read by one thread while another writes to it.

    They take turns, since a TLS connection has one state for both directions; waiting is done outside of it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._turn = threading.Lock()

    def receive(self) -> bytes:
        """What came; nothing at the end, or when nothing comes for a minute."""
        # Unlike select, it knows descriptors of any number.
        readable = select.poll()
        readable.register(self.sock, select.POLLIN)
        while readable.poll(_PATIENCE * 1000):
            with self._turn, contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
                self.sock.settimeout(0)
                # All of a TLS record is taken, so that no part of it waits unseen.
                return self.sock.recv(_CHUNK)
        return b""

    def send(self, data: bytes) -> None:
        """Pass it on, within a minute."""
        with self._turn:
            self.sock.settimeout(_PATIENCE)
            self.sock.sendall(data)


@contextlib.contextmanager
def _ending(*ends: _End) -> Iterator[None]:
    """When one direction has ended, the connection has."""
    try:
        with contextlib.suppress(OSError):
            yield
    finally:
        for end in ends:
            with contextlib.suppress(OSError):
                end.sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def fault_proxy(target_port: int, *, tls: ssl.SSLContext | None = None) -> Iterator[FaultProxy]:
    """A proxy that is closed in the end."""
    proxy = FaultProxy(target_port, tls=tls)
    try:
        yield proxy
    finally:
        proxy.close()
