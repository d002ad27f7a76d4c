"""A server that speaks as much of Vault's protocol as a key store needs, and lies as it is told."""

import base64
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

TOKEN = "hvs.pretended-token-that-nobody-else-may-see"


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any

    @property
    def token(self) -> str | None:
        return self.headers.get("X-Vault-Token")


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer; ``drip`` names the part that is sent one byte at a time, ever so slowly."""

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    drip: Literal["", "head", "body"] = ""

    @property
    def payload(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()

    @property
    def head(self) -> bytes:
        fixed = {"Content-Type": "application/json", "Content-Length": str(len(self.payload))}
        lines = [f"{name}: {value}" for name, value in (fixed | dict(self.headers)).items()]
        return "\r\n".join([f"HTTP/1.1 {self.status} Whatever", *lines, "", ""]).encode()


Script = Callable[[Seen], Answer]


class PretendVault:
    """
    Signs ES256 with a key of its own, as transit does.

    ``scripts`` replaces the answer to a path. ``seen`` holds every request in order.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.private_key = ec.generate_private_key(ec.SECP256R1())
        self.seen: list[Seen] = []
        self.scripts: dict[str, Script] = {}
        self.is_leaving = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.is_leaving.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, seen: Seen) -> Answer:
        self.seen.append(seen)
        if seen.path in self.scripts:
            return self.scripts[seen.path](seen)
        match seen.path.split("/"):
            case [*_, "login"] | [*_, "renew-self"]:
                return login()
            case [*_, "keys", _]:
                return self.key()
            case [*_, "sign", _]:
                return results(*map(self.sign, seen.body["batch_input"]))
        return Answer({"errors": []}, 404)

    def paths(self, ending: str) -> list[Seen]:
        """The requests whose path ends so."""
        return [seen for seen in self.seen if seen.path.endswith(ending)]

    def key(self, **others: Any) -> Answer:
        """The answer to a read of the key, with one version made long ago."""
        version = {"creation_time": "2020-01-01T00:00:00.123456789Z", "public_key": self.public_pem}
        return Answer({"data": {"type": "ecdsa-p256", "keys": {"1": version}, **others}})

    @property
    def public_pem(self) -> str:
        return public_pem(self.private_key)

    def sign(self, item: Mapping[str, str]) -> Mapping[str, Any]:
        """One result of a batch."""
        digest = base64.b64decode(item["input"])
        der = self.private_key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        r, s = utils.decode_dss_signature(der)
        raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        text = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        return {"signature": f"vault:v1:{text}", "key_version": 1}


def login(token: str = TOKEN, *, seconds: int = 3600, renewable: bool = True) -> Answer:
    """The answer to a login or a renewal."""
    auth = {"client_token": token, "lease_duration": seconds, "renewable": renewable}
    return Answer({"auth": auth})


def results(*items: Mapping[str, Any]) -> Answer:
    """The answer to a batch."""
    return Answer({"data": {"batch_results": list(items)}})


def public_pem(key: ec.EllipticCurvePrivateKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def refused(*sentences: str, status: int = 403) -> Answer:
    """An error as Vault words it."""
    return Answer({"errors": list(sentences or ("permission denied",))}, status)


@contextlib.contextmanager
def pretend_vault(tls: ssl.SSLContext | None = None) -> Iterator[PretendVault]:
    vault = PretendVault(tls)
    try:
        yield vault
    finally:
        vault.close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Keep quiet: a client that gives up in the middle is what is being tested."""


def _handler(vault: PretendVault) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(json.loads(body) if body else None)

        def _answer(self, body: Any) -> None:
            seen = Seen(self.command, self.path.removeprefix("/v1/"), dict(self.headers), body)
            answer = vault.answer(seen)
            with contextlib.suppress(OSError):
                self._send(answer.head, is_dripping=answer.drip == "head")
                self._send(answer.payload, is_dripping=answer.drip == "body")

        def _send(self, data: bytes, *, is_dripping: bool) -> None:
            for part in [data] if not is_dripping else [bytes([byte]) for byte in data]:
                self.wfile.write(part)
                if is_dripping and vault.is_leaving.wait(0.05):
                    return

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    return Handler
