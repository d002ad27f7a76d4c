"""Endpoints that do as they are told, and a way to call the OAuth face in process."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from wsgiref.validate import validator

from broker.endpoints import Endpoints
from broker.endpoints.discovery import KeySet
from broker.errors import OAuthError
from broker.model import ExplainRequest, Explanation, IssuedToken, RequestContext, TokenRequest
from broker.oauth import TOKEN_TYPE_ACCESS_TOKEN
from broker.web.app import OAuthApp

ISSUER = "https://sts.test"
CANARY = "canary-3f9c2b7d"

ISSUED = IssuedToken(
    token="header.payload.signature",
    issued_token_type=TOKEN_TYPE_ACCESS_TOKEN,
    token_type="Bearer",
    expires_in=300,
    scopes=("b:read", "b:write"),
    resource="https://api.test/v1",
    claims={"sub": "u1"},
)

METADATA = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/authorize",
    "token_endpoint": f"{ISSUER}/token",
    "jwks_uri": f"{ISSUER}/jwks",
    "response_types_supported": [],
    "grant_types_supported": ["urn:ietf:params:oauth:grant-type:token-exchange"],
    "token_endpoint_auth_methods_supported": ["client_secret_basic", "private_key_jwt"],
    "token_endpoint_auth_signing_alg_values_supported": ["ES256"],
}

JWK = {"kty": "EC", "kid": "k1", "use": "sig", "alg": "ES256", "crv": "P-256", "x": "eA", "y": "eQ"}

EXPLAINED = Explanation(is_permitted=True, policy_digest="00" * 32, claims={"sub": "u1"})


@dataclass
class FakeToken:
    """
    A token endpoint that reads the request and answers as told: with a token or by raising.

    ``while_issuing`` runs once the request is read. ``refusals`` holds what reading raised.
    """

    answer: IssuedToken | BaseException = ISSUED
    while_issuing: Callable[[], object] = lambda: None
    contexts: list[RequestContext] = field(default_factory=list)
    requests: list[TokenRequest] = field(default_factory=list)
    refusals: list[OAuthError] = field(default_factory=list)

    def issue(self, context: RequestContext, read: Callable[[], TokenRequest]) -> IssuedToken:
        self.contexts.append(context)
        try:
            self.requests.append(read())
        except OAuthError as refusal:
            self.refusals.append(refusal)
            raise
        self.while_issuing()
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@dataclass
class FakeExplain:
    """An explain endpoint of the same kind."""

    answer: Explanation | BaseException = EXPLAINED
    requests: list[ExplainRequest] = field(default_factory=list)

    def explain(self, _context: RequestContext, read: Callable[[], ExplainRequest]) -> Explanation:
        self.requests.append(read())
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@dataclass
class FakeDiscovery:
    """A discovery endpoint with one key; ``failure`` is raised instead when set."""

    failure: Exception | None = None
    keys: tuple[Mapping[str, str], ...] = (JWK,)
    issuer: str = ISSUER
    token_endpoint: str = f"{ISSUER}/token"

    def metadata(self) -> Mapping[str, Any]:
        if self.failure is not None:
            raise self.failure
        return METADATA

    def key_set(self) -> KeySet:
        if self.failure is not None:
            raise self.failure
        return KeySet(self.keys, max_age=120)


@dataclass
class FakeInquiries:
    """Endpoints about tokens and parties that read what is asked and answer as told."""

    answer: Any = None
    requests: list[Any] = field(default_factory=list)
    refusals: list[OAuthError] = field(default_factory=list)

    def ask(self, _context: RequestContext, read: Callable[[], Any]) -> Any:
        try:
            self.requests.append(read())
        except OAuthError as refusal:
            self.refusals.append(refusal)
            raise
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    introspect = revoke = withdraw = ask


def fake_endpoints(
    token: FakeToken | None = None,
    *,
    discovery: FakeDiscovery | None = None,
    explain: FakeExplain | None = None,
    inquiries: FakeInquiries | None = None,
) -> Endpoints:
    """All together, where the real ones would stand."""
    asked: Any = inquiries or FakeInquiries({"active": False})
    return Endpoints(
        token=cast("Any", token or FakeToken()),
        introspection=asked,
        revocation=asked,
        withdrawal=asked,
        discovery=cast("Any", discovery or FakeDiscovery()),
        explain=cast("Any", explain or FakeExplain()),
    )


@dataclass(frozen=True)
class Reply:
    """What came back over HTTP; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Input(io.BytesIO):
    """A request body that knows how much of it was read."""

    was_read = 0

    def read(self, size: int | None = -1) -> bytes:
        chunk = super().read(size)
        self.was_read += len(chunk)
        return chunk


class Caller:
    """Calls the face as a WSGI server would; every call is checked against PEP 3333."""

    def __init__(self, endpoints: Endpoints, *, issuer: str = ISSUER, **options: Any) -> None:
        self.app = OAuthApp(endpoints, issuer=issuer, **options)

    def __call__(self, method: str, path: str, body: bytes | None = None, **environ: Any) -> Reply:
        """One request; a value of ``None`` leaves out what would be there otherwise."""
        return self._call(validator(self.app), wsgi_environ(method, path, body, environ))

    def unchecked(self, method: str, path: str, body: bytes | None = None, **environ: Any) -> Reply:
        """The same for what the check would not let through, but a careless server might."""
        return self._call(self.app, wsgi_environ(method, path, body, environ))

    @staticmethod
    def _call(app: Any, environ: Mapping[str, Any]) -> Reply:
        seen: dict[str, Any] = {}

        def start_response(
            status: str, headers: list[tuple[str, str]], _exc_info: Any = None
        ) -> Callable[[bytes], object]:
            seen["status"] = int(status.split(maxsplit=1)[0])
            seen["headers"] = {name.lower(): value for name, value in headers}
            return lambda _data: None

        iterator = app(dict(environ), start_response)
        try:
            body = b"".join(iterator)
        finally:
            if hasattr(iterator, "close"):
                iterator.close()
        return Reply(seen["status"], seen["headers"], body)

    def post(self, body: bytes | str, **environ: Any) -> Reply:
        """A form sent to the token endpoint."""
        raw = body if isinstance(body, bytes) else body.encode()
        return self("POST", "/token", raw, **environ)


def wsgi_environ(
    method: str, path: str, body: bytes | None, changes: Mapping[str, Any]
) -> dict[str, Any]:
    """What a server hands to the application, with ``changes``."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "sts.test",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.7",
        "HTTP_HOST": "sts.test",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input": Input(body or b""),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if body is not None:
        environ["CONTENT_TYPE"] = "application/x-www-form-urlencoded"
        environ["CONTENT_LENGTH"] = str(len(body))
    environ.update(changes)
    return {name: value for name, value in environ.items() if value is not None}
