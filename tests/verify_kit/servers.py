"""Servers to try: at an address that is known before they are built, careful or with one fault."""

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import uvicorn

from broker.client.refusals import InvalidToken, NotServed
from broker.client.resource import metadata_path
from broker.client.verify import Incoming, SyncTokenVerifier
from broker.errors import Reason
from tests.e2e.patience import until

SCOPE = "pages.read"


@contextmanager
def serving_at(build: Callable[[str], Any]) -> Iterator[str]:
    """The address of an MCP server, whose ASGI application is built for it, until the end of the block."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    config = uvicorn.Config(build(url), log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        until(lambda: server.started, seconds=60, what="the server has started")
        yield url
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()


@dataclass(frozen=True)
class Asked:
    """A request to a server, which is at ``url`` and takes the tokens of ``issuer``."""

    issuer: str
    url: str
    authorization: tuple[str, ...]
    query: str
    proofs: tuple[str, ...] = ()
    method: str = "POST"

    def bearing(self, *authorization: str) -> "Asked":
        """The same request with other headers."""
        return replace(self, authorization=authorization)

    @property
    def token(self) -> str:
        """What stands in the header, whatever it is."""
        return "".join(self.authorization).rpartition(" ")[2]

    @property
    def claims(self) -> dict[str, Any]:
        """The claims of the token, which nobody has verified."""
        return part_of(self.token, 1)

    @property
    def audiences(self) -> list[str]:
        """Whom the token is for."""
        audience = self.claims.get("aud", [])
        return audience if isinstance(audience, list) else [audience]


Refusal = tuple[int, str, bytes]
"""The status of a refusal, its challenge and its body."""


@dataclass(frozen=True)
class Fault:
    """
    What a server does wrong, which is nothing unless told.

    It ``hears`` another request than it got; ``takes`` a token that is refused for a reason; ``serves`` good
    tokens, or not; ``answers`` a refusal otherwise; ``tells`` other metadata.
    """

    hears: Callable[[Asked], Asked] = lambda asked: asked
    takes: Callable[[Asked, Reason], bool] = lambda _asked, _reason: False
    serves: Callable[[Asked], bool] = lambda _asked: True
    answers: Callable[[NotServed, Asked, Refusal], Refusal] = lambda _refused, _asked, told: told
    tells: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda document: document


NO_FAULT = Fault()


@dataclass
class Plain:
    """A server of the standard library that does everything right, but for its fault."""

    issuer: str
    url: str
    fault: Fault = NO_FAULT
    leeway: timedelta = timedelta(seconds=30)

    def __post_init__(self) -> None:
        self._verifier = SyncTokenVerifier(
            self.issuer, self.url, required_scopes=[SCOPE], leeway=self.leeway
        )

    def refusal(self, asked: Asked) -> Refusal | None:
        """How a request is refused, if it is."""
        try:
            self._check(self.fault.hears(asked))
        except NotServed as refused:
            told = (refused.status, refused.www_authenticate, b"refused")
            return self.fault.answers(refused, asked, told)
        return None

    def metadata(self) -> dict[str, Any] | None:
        """The document that is served at its place."""
        return self.fault.tells(self._verifier.metadata().document())

    def _check(self, asked: Asked) -> None:
        try:
            self._verifier.verify_request(
                Incoming(asked.authorization, asked.proofs, method=asked.method, url=asked.url)
            )
        except InvalidToken as refused:
            if not self.fault.takes(asked, refused.reason):
                raise
        if not self.fault.serves(asked):
            raise InvalidToken(Reason.CLAIM_MALFORMED, self.url)


def part_of(token: str, number: int) -> dict[str, Any]:
    """The header (0) or the claims (1) of a token, which nobody has verified; nothing if it has none."""
    try:
        part = token.split(".")[number]
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, IndexError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def serving_plainly(build: Callable[[str], Plain]) -> Iterator[str]:
    """The address of a plain server, until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        # A connection serves for all requests of a trial, and an answer is sent in one piece.
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            if self.path.startswith("/.well-known/"):
                document = server.metadata() if self.path == metadata_path(server.url) else None
                self._answer(404 if document is None else 200, "", json.dumps(document).encode())
            else:
                self.do_POST()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            values = tuple(self.headers.get_all("Authorization") or ())
            query = urlsplit(self.path).query
            proofs = tuple(self.headers.get_all("DPoP") or ())
            asked = Asked(server.issuer, server.url, values, query, proofs, self.command)
            served = (200, "", b'{"jsonrpc": "2.0", "id": 1, "result": {"tools": []}}')
            self._answer(*(server.refusal(asked) or served))

        def _answer(self, status: int, challenge: str, body: bytes) -> None:
            self.send_response(status)
            if challenge:
                self.send_header("WWW-Authenticate", challenge)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = build(f"http://127.0.0.1:{listener.server_address[1]}/mcp")
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.url
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


def fetched(url: str) -> Any:
    """The JSON document at an address that a careless server asks."""
    return httpx2.get(url, trust_env=False).json()


def tokens_in_query(query: str) -> list[str]:
    """The tokens that stand in a query."""
    return parse_qs(query).get("access_token", [])
