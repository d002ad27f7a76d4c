"""The pretend identity provider of development mode: it signs an ID token for whoever is named."""

import json
import secrets
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

_LIFETIME = 3600


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
        idp = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = idp.answer(self.path)
                body = json.dumps(answer if answer is not None else {"error": "not_found"}).encode()
                self.send_response(200 if answer is not None else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
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
                "authorization_endpoint": self.issuer + "/login",
                "token_endpoint": self.issuer + "/token",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            }
        if parts.path == "/jwks":
            return {"keys": [self._jwk()]}
        if parts.path == "/login":
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            return {"id_token": self.id_token(**query)}
        return None

    def id_token(self, sub: str = "ann", client_id: str = "agent-desk", acr: str = "pwd") -> str:
        """An ID token as if ``sub`` had just logged in to ``client_id``."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": sub,
            "aud": client_id,
            "iat": now,
            "exp": now + _LIFETIME,
            "auth_time": now,
            "acr": acr,
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self._kid})

    def _jwk(self) -> dict[str, Any]:
        members = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {**members, "kid": self._kid, "alg": "ES256", "use": "sig"}


def main(port: int) -> None:
    """Serve on the port until interrupted: ``python -m broker.dev.idp 18961``."""
    PretendIdp(port).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]))
