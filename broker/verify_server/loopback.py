"""A small HTTP server on this machine, for as long as a trial takes."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

_HOST: Final = "127.0.0.1"
_LARGEST: Final = 64 * 1024
_SECONDS: Final = 10.0

Answering = Callable[[str, bytes], Any]
"""What is told at a path to a body: a JSON document or bytes; ``None`` when there is nothing."""


@contextmanager
def serving(answering: Answering, *, port: int = 0) -> Iterator[str]:
    """Serve until the end of the block; the value is the origin. Raises ``OSError`` for a port in use."""

    class Handler(BaseHTTPRequestHandler):
        timeout = _SECONDS

        def do_GET(self) -> None:
            self._answer(answering(self.path, b""))

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "0")
            size = int(length) if length.isascii() and length.isdigit() else 0
            self._answer(answering(self.path, self.rfile.read(min(size, _LARGEST))))

        def _answer(self, told: Any) -> None:
            body = told if isinstance(told, bytes) else json.dumps(told).encode()
            self.send_response(404 if told is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Cache-Control", "no-store")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            return

    server = ThreadingHTTPServer((_HOST, port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://{_HOST}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
