"""The pretend identity provider of development mode: it signs an ID token for whoever is named."""

import base64
import hashlib
import json
import secrets
import socket
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

_LIFETIME = 3600
_CODE_SECONDS: Final = 60
_MOST_CODES: Final = 100
_LONGEST_FORM: Final = 16 * 1024
_USERS: Final = {"olga": ["auditors"], "ann": ["sales"]}
"""The people who can be picked at the login, and their groups."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the pretend provider answers: JSON, unless it is a page or sends the browser on."""

    told: dict[str, Any] | None = None
    page: str = ""
    location: str = ""
    status: int = 200


@dataclass(frozen=True, slots=True)
class _Code:
    """What a code stands for: who logged in, and what the request for it was."""

    sub: str
    asked: dict[str, str]
    until: float


class PretendIdp:
    """
    An issuer on loopback with a fresh key. It asks for no password, which is what pretending means.

    ``listener`` is a socket that listens on the port already, so that whoever asks early is kept waiting
    and not turned away.
    """

    def __init__(self, port: int, listener: socket.socket | None = None) -> None:
        self.issuer = f"http://127.0.0.1:{port}"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._kid = secrets.token_hex(8)
        self._codes: OrderedDict[str, _Code] = OrderedDict()
        idp = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = idp.answer(self.path)
                self._send(Answer(answer) if answer is not None else idp.page(self.path))

            def do_POST(self) -> None:
                length = self.headers.get("Content-Length", "")
                size = int(length) if length.isdecimal() else 0
                body = self.rfile.read(min(size, _LONGEST_FORM)).decode("ascii", "replace")
                self._send(idp.form(self.path, body))

            def _send(self, answer: Answer) -> None:
                told = answer.told or {"error": "not_found"}
                body = (answer.page or json.dumps(told)).encode()
                self.send_response(answer.status)
                kind = "text/html; charset=utf-8" if answer.page else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                if answer.location:
                    self.send_header("Location", answer.location)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                return

        address = ("127.0.0.1", port)
        self._server = ThreadingHTTPServer(address, Handler, bind_and_activate=listener is None)
        if listener is not None:
            self._server.socket.close()
            self._server.socket = listener
        self._server.daemon_threads = True

    def serve(self) -> None:
        """Answer until ``stop`` is called from another thread."""
        self._server.serve_forever(poll_interval=0.1)

    def stop(self) -> None:
        """End ``serve``."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, target: str) -> dict[str, Any] | None:
        """The document at this path, or ``None``."""
        parts = urlsplit(target)
        if parts.path == "/.well-known/openid-configuration":
            return {
                "issuer": self.issuer,
                "jwks_uri": self.issuer + "/jwks",
                "authorization_endpoint": self.issuer + "/authorize",
                "token_endpoint": self.issuer + "/token",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": ["none"],
                "authorization_response_iss_parameter_supported": True,
            }
        if parts.path == "/jwks":
            return {"keys": [self._jwk()]}
        if parts.path == "/login":
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            known = {name: query[name] for name in ("sub", "client_id", "acr") if name in query}
            return {"id_token": self.id_token(**known)}
        return None

    def page(self, target: str) -> Answer:
        """The login page, on which one picks who to be; with a ``user`` the way back with a code."""
        parts = urlsplit(target)
        if parts.path != "/authorize":
            return Answer(status=404)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        user = asked.pop("user", "")
        if not _is_on_loopback(asked.get("redirect_uri", "")):
            return Answer({"error": "invalid_request"}, status=400)
        if user not in _USERS:
            return Answer(page=_login_page(parts.query))
        code = secrets.token_urlsafe(32)
        while len(self._codes) >= _MOST_CODES:
            self._codes.popitem(last=False)
        self._codes[code] = _Code(user, asked, time.monotonic() + _CODE_SECONDS)
        back = {"code": code, "state": asked.get("state", ""), "iss": self.issuer}
        return Answer(location=f"{asked['redirect_uri']}?{urlencode(back)}", status=303)

    def form(self, target: str, body: str) -> Answer:
        """The answer of the token endpoint to a code (RFC 6749 4.1.3, RFC 7636 4.6)."""
        if urlsplit(target).path != "/token":
            return Answer(status=404)
        told = {name: values[0] for name, values in parse_qs(body).items()}
        code = self._codes.pop(told.get("code", ""), None)
        if code is None or time.monotonic() >= code.until or not _fits(told, code.asked):
            return Answer({"error": "invalid_grant"}, status=400)
        id_token = self.id_token(
            code.sub,
            told["client_id"],
            nonce=code.asked.get("nonce", ""),
            groups=_USERS[code.sub],
        )
        return Answer({"access_token": "none", "token_type": "Bearer", "id_token": id_token})

    def id_token(
        self, sub: str = "ann", client_id: str = "agent-desk", acr: str = "pwd", **more: Any
    ) -> str:
        """An ID token as if ``sub`` had just logged in to ``client_id``, with ``more`` claims."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": sub,
            "aud": client_id,
            "iat": now,
            "exp": now + _LIFETIME,
            "auth_time": now,
            "acr": acr,
            **more,
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self._kid})

    def _jwk(self) -> dict[str, Any]:
        members = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {**members, "kid": self._kid, "alg": "ES256", "use": "sig"}


def _is_on_loopback(url: str) -> bool:
    if not url.isascii() or not url.isprintable():
        return False
    return urlsplit(url).scheme == "http" and urlsplit(url).hostname in {"127.0.0.1", "localhost"}


def _fits(told: dict[str, str], asked: dict[str, str]) -> bool:
    """Whether whoever has the code is who asked for it."""
    digest = hashlib.sha256(told.get("code_verifier", "").encode()).digest()
    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    is_same = all(told.get(name) == asked.get(name) for name in ("client_id", "redirect_uri"))
    return is_same and "client_id" in told and challenge == asked.get("code_challenge")


def _login_page(query: str) -> str:
    choices = "".join(
        f'<li><a href="/authorize?{escape(query)}&amp;user={user}">{user}</a> '
        f"({', '.join(groups)})</li>"
        for user, groups in _USERS.items()
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Pretend login</title>'
        f"<h1>Who do you want to be?</h1><p>There are no passwords here.</p><ul>{choices}</ul></html>"
    )


def main(port: int) -> None:
    """Serve on the port until interrupted: ``python -m broker.dev.idp 18961``."""
    PretendIdp(port).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]))
