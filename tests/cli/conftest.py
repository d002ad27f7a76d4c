"""The command line, and small servers for it to talk to."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result

from broker.cli import main

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Runs ``broker`` with these arguments, in an empty directory and a quiet environment."""
    # A command has no log of its own, whatever other tests of this process have set up.
    was_configured, before = structlog.is_configured(), structlog.get_config()
    structlog.reset_defaults()
    monkeypatch.chdir(tmp_path)
    for name in ("CLIENT_SECRET", "CLIENT_ID", "HTTP", "GRPC", "ADMIN", "ISSUER", "CONFIG"):
        monkeypatch.delenv(f"BROKER_{name}", raising=False)

    def invoke(*arguments: str, stdin: str = "", **environ: str) -> Result:
        return CliRunner().invoke(main, arguments, input=stdin, env=environ, prog_name="broker")

    yield invoke
    if was_configured:
        structlog.configure(**before)


@dataclass
class WebServer:
    """A server of fixed answers by path: a status, a body, and headers. It remembers what it got."""

    url: str = ""
    answers: dict[str, tuple[int, bytes, Mapping[str, str]]] = field(default_factory=dict)
    requests: list[tuple[str, str, bytes, Mapping[str, str]]] = field(default_factory=list)

    def answer(self, path: str, body: Any, *, status: int = 200, **headers: str) -> None:
        """Answer a path with JSON, or with bytes as they are."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers[path] = (status, raw, headers)

    def be_issuer(self, jwks: Any, *, issuer: str | None = None) -> str:
        """Publish metadata and keys as an issuer does."""
        name = self.url if issuer is None else issuer
        document = {"issuer": name, "jwks_uri": self.url + "/jwks"}
        self.answer("/.well-known/oauth-authorization-server", document)
        self.answer("/jwks", jwks)
        return self.url


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A web server on a free port of loopback."""
    state = WebServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("content-length", 0))
            sent = (self.command, self.path, self.rfile.read(length), dict(self.headers))
            state.requests.append(sent)
            missing: tuple[int, bytes, Mapping[str, str]] = (404, b"", {})
            status, body, headers = state.answers.get(self.path, missing)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the base class calls it so

        def log_message(self, *_args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()
