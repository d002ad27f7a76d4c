"""An OpenID provider on this machine that logs in whoever a test says, as wrongly as a test says."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.idp import Signer, signer

CLIENT = "audit-desk"
SECRET = "a secret/with+signs"


@dataclass
class Provider:
    """
    What it tells. ``metadata`` and ``claims`` are put over what would be right; ``None`` takes out.

    ``forms`` are what the token endpoint was sent, with the header that authenticated it.
    """

    issuer: str = ""
    signer: Signer = field(default_factory=lambda: signer("provider"))
    metadata: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    typ: str | None = "JWT"
    answer: dict[str, Any] | bytes | None = None
    status: int = 200
    challenge: str = ""
    nonce: str = ""
    metadata_status: int = 200
    asked: list[str] = field(default_factory=list)
    forms: list[tuple[dict[str, str], str]] = field(default_factory=list)

    def reset(self) -> None:
        """Be right again."""
        fresh = Provider(self.issuer)
        for name, value in vars(fresh).items():
            setattr(self, name, value)

    def send_away(self, url: str) -> str:
        """Take a browser as ``url`` sends it; gives the state to answer with."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        self.challenge, self.nonce = asked["code_challenge"], asked["nonce"]
        return asked["state"]

    def document(self, path: str) -> Any:
        """What is published at a path."""
        self.asked.append(path)
        if path == "/jwks":
            return self.signer.jwks
        return _over(
            {
                "issuer": self.issuer,
                "jwks_uri": f"{self.issuer}/jwks",
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
            },
            self.metadata,
        )

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, Any]:
        """What the token endpoint answers."""
        self.forms.append((form, authorization))
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != self.challenge:
            return 400, {"error": "invalid_grant"}
        return self.status, {"id_token": self.id_token()} if self.answer is None else self.answer

    def id_token(self) -> str:
        """The ID token of whoever logged in."""
        now = int(time.time())
        right = {
            "iss": self.issuer,
            "sub": "olga",
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": self.nonce,
            "groups": ["staff", "auditors"],
        }
        return self.signer.sign(_over(right, self.claims), typ=self.typ)


def _over(right: dict[str, Any], wrong: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**right, **wrong}.items() if value is not None}


@contextmanager
def running(provider: Provider) -> Iterator[Provider]:
    """Serve until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = provider.document(urlsplit(self.path).path)
            is_metadata = self.path != "/jwks"
            self._send(provider.metadata_status if is_metadata else 200, told)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            self._send(*provider.token(form, self.headers.get("Authorization", "")))

        def _send(self, status: int, told: Any) -> None:
            body = told if isinstance(told, bytes) else json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.issuer = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
