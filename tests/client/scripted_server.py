"""A real server that answers as it is told, and remembers what it was asked."""

import json
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import trustme

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Asked:
    """One request; a header that came twice is joined by commas."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        """Its form, in which nothing is repeated."""
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}

    @property
    def bearer(self) -> str | None:
        """The token it carries."""
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None


@dataclass(frozen=True)
class Reply:
    """
    One answer, which is held back until ``gate`` opens.

    ``drip`` is how many seconds pass between each byte and the next.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    gate: threading.Event | None = None
    drip: float = 0.0


def told(document: Any, status: int = 200, **headers: str) -> Reply:
    """A JSON answer; an underscore in a header's name stands for a hyphen."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(document).encode(), {**JSON, **more})


class ScriptedServer:
    """
    Answers with what is next in ``script``, and by ``otherwise`` when there is nothing left.

    ``asked`` are the requests so far.
    """

    def __init__(self, port: int, scheme: str) -> None:
        self.port = port
        self.origin = f"{scheme}://127.0.0.1:{port}"
        self.script: deque[Reply] = deque()
        self.otherwise: Callable[[Asked], Reply] = lambda _asked: Reply(404)
        self.asked: list[Asked] = []
        self._lock = threading.Lock()

    def answer(self, asked: Asked) -> Reply:
        """The answer to a request."""
        with self._lock:
            self.asked.append(asked)
            scripted = self.script.popleft() if self.script else None
        return self.otherwise(asked) if scripted is None else scripted


class _Listener(ThreadingHTTPServer):
    scripted: ScriptedServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of those who go while they greet."""


class _Handler(BaseHTTPRequestHandler):
    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        names = {name.lower() for name in self.headers}
        headers = {name: ",".join(self.headers.get_all(name, [])) for name in names}
        asked = Asked(self.command, self.path, headers, self.rfile.read(length))
        listener = self.server
        assert isinstance(listener, _Listener)
        reply = listener.scripted.answer(asked)
        if reply.gate is not None:
            reply.gate.wait(30)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        # Whoever asked may have had enough.
        with suppress(OSError):
            self._write(reply)

    def _write(self, reply: Reply) -> None:
        if not reply.drip:
            self.wfile.write(reply.body)
            return
        for one in reply.body:
            self.wfile.write(bytes([one]))
            time.sleep(reply.drip)

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def scripted_server(certificate: trustme.LeafCert | None = None) -> Iterator[ScriptedServer]:
    """A server on a port of its own, until the end of the block; with a certificate it speaks TLS."""
    listener = _Listener(("127.0.0.1", 0), _Handler)
    if certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(tls)
        listener.socket = tls.wrap_socket(listener.socket, server_side=True)
    scheme = "http" if certificate is None else "https"
    listener.scripted = ScriptedServer(listener.server_address[1], scheme)
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield listener.scripted
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
