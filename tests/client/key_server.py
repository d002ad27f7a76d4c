"""A server that publishes keys, as well or as badly as a test needs it."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Page:
    """One answer. It is held back until ``gate`` opens; a body of several pieces comes in those."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    gate: threading.Event | None = None


def json_page(document: Any, **headers: str) -> Page:
    """A document with further headers; an underscore in their names stands for a hyphen."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return Page(json.dumps(document).encode(), headers={**JSON, **more})


class KeyServer:
    """Serves ``pages`` by path, and remembers in ``asked`` which were asked for."""

    def __init__(self, port: int) -> None:
        self.origin = f"http://127.0.0.1:{port}"
        self.pages: dict[str, Page] = {}
        self.asked: list[str] = []

    @property
    def issuer(self) -> str:
        """An issuer whose keys are here."""
        return f"{self.origin}/broker"

    def publish(self, *keys: Mapping[str, Any], path: str = "/broker/jwks", **headers: str) -> None:
        """Publish a set of these keys."""
        self.pages[path] = json_page({"keys": list(keys)}, **headers)


@contextmanager
def running_key_server() -> Iterator[KeyServer]:
    """A key server on a port of its own, until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(self.path)
            page = server.pages.get(self.path, Page(status=404))
            if page.gate is not None:
                page.gate.wait(30)
            self.send_response(page.status)
            for name, value in page.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(page.body)))
            self.end_headers()
            self.wfile.write(page.body)

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = KeyServer(listener.server_address[1])
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
