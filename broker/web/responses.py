"""Tokens, errors and public documents become HTTP responses."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

import msgspec

from broker.errors import InsufficientUserAuthentication, OAuthError, TemporarilyUnavailable
from broker.model import IssuedToken

DECISION_ID: Final = "Broker-Decision-Id"

Headers = tuple[tuple[str, str], ...]

_STATUS_LINES: Final = {one.value: f"{one.value} {one.phrase}" for one in HTTPStatus}
_JSON: Final = ("Content-Type", "application/json")
_TEXT: Final = ("Content-Type", "text/plain; charset=utf-8")
_PRIVATE: Final[Headers] = (
    ("Cache-Control", "no-store"),
    ("Pragma", "no-cache"),
    ("X-Content-Type-Options", "nosniff"),
)
_CHALLENGE: Final = ("WWW-Authenticate", 'Basic realm="token endpoint", charset="UTF-8"')
_PUBLIC: Final[Headers] = (
    ("Access-Control-Allow-Origin", "*"),
    ("X-Content-Type-Options", "nosniff"),
)

_NO_LOGIN_PAGE: Final = b"""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>No sign-in here</title>
<h1>There is no sign-in here</h1>
<p>This authorization server has no interactive sign-in. It exchanges tokens for applications that
already hold one: sign in at your own identity provider, and let the application present that token
at the token endpoint.</p>
<p>Error: <code>unsupported_response_type</code></p>
</html>
"""


@dataclass(frozen=True, slots=True)
class Response:
    """A response that is ready to be written."""

    status: int
    headers: Headers
    body: bytes = field(default=b"", repr=False)

    @property
    def status_line(self) -> str:
        """The status as WSGI wants it."""
        return _STATUS_LINES[self.status]


def granted(issued: IssuedToken, request_id: str) -> Response:
    """A successful token response (RFC 6749 5.1, RFC 8693 2.2.1)."""
    members: dict[str, Any] = {
        "access_token": issued.token,
        "issued_token_type": issued.issued_token_type,
        "token_type": issued.token_type,
        "expires_in": issued.expires_in,
        "resource": issued.resource,
    }
    if issued.scopes:
        members["scope"] = " ".join(issued.scopes)
    return _private(200, members, ((DECISION_ID, request_id),))


def told(document: Mapping[str, Any], request_id: str) -> Response:
    """What is told of a token (RFC 7662 2.2); nothing may keep it, since it may change at once."""
    return _private(200, document, ((DECISION_ID, request_id),))


def withdrawn(request_id: str) -> Response:
    """The same empty answer whether or not there was anything to withdraw (RFC 7009 2.2)."""
    return Response(200, (_TEXT, *_PRIVATE, (DECISION_ID, request_id), _length(b"")))


def refused(error: OAuthError, request_id: str | None = None) -> Response:
    """
    An error response (RFC 6749 5.2).

    Its body is the same to the byte for all refusals with the same sentence; only the header tells
    which decision it was.
    """
    members: dict[str, Any] = {"error": error.error, "error_description": error.description}
    headers: Headers = ((DECISION_ID, request_id),) if request_id else ()
    if isinstance(error, InsufficientUserAuthentication):
        if error.acr_values:
            members["acr_values"] = error.acr_values
        if error.max_age is not None:
            members["max_age"] = error.max_age
    if isinstance(error, TemporarilyUnavailable):
        headers += (("Retry-After", str(error.retry_after)),)
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        headers += (_CHALLENGE,)
    return _private(error.http_status, members, headers)


def turned_away(error: TemporarilyUnavailable) -> Response:
    """The same for a refusal that has no record, made once for all that are alike: there are many."""
    return _turned_away(error.error, error.description, error.http_status, error.retry_after)


@lru_cache(maxsize=256)
def _turned_away(code: str, description: str, status: int, retry_after: int) -> Response:
    members = {"error": code, "error_description": description}
    return _private(status, members, (("Retry-After", str(retry_after)),))


def public_document(
    document: Mapping[str, Any], *, max_age: int, unverified_etags: str = ""
) -> Response:
    """
    A JSON document that everybody may read and keep for ``max_age`` seconds.

    ``unverified_etags`` is the ``If-None-Match`` header; a match is answered without the body.
    """
    body = msgspec.json.encode(document)
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers: Headers = (
        *_PUBLIC,
        ("Cache-Control", f"public, max-age={max_age}"),
        ("ETag", etag),
    )
    offered = {one.strip().removeprefix("W/") for one in unverified_etags[:1024].split(",")}
    if etag in offered or "*" in offered:
        return Response(304, headers)
    return Response(200, (_JSON, *headers, _length(body)), body)


def preflight_passed() -> Response:
    """Leave for a page of any origin to read a public document (Fetch 3.2)."""
    allowed: Headers = (
        ("Access-Control-Allow-Methods", "GET, HEAD"),
        ("Access-Control-Allow-Headers", "*"),
        ("Access-Control-Max-Age", "86400"),
    )
    return Response(204, (*_PUBLIC, *allowed))


def no_login() -> Response:
    """What a browser gets that was sent here to log in: there is no such flow (RFC 6749 4.1.2.1)."""
    headers: Headers = (
        ("Content-Type", "text/html; charset=utf-8"),
        *_PRIVATE,
        (
            "Content-Security-Policy",
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        ("Referrer-Policy", "no-referrer"),
        _length(_NO_LOGIN_PAGE),
    )
    return Response(400, headers, _NO_LOGIN_PAGE)


def plain(status: int, *, allowed: Iterable[str] = ()) -> Response:
    """A refusal from before any endpoint was reached; ``allowed`` are the methods of a 405."""
    body = f"{HTTPStatus(status).phrase}.\n".encode()
    allow: Headers = (("Allow", ", ".join(allowed)),) if allowed else ()
    return Response(status, (_TEXT, *_PRIVATE, *allow, _length(body)), body)


def _private(status: int, members: Mapping[str, Any], headers: Headers) -> Response:
    body = msgspec.json.encode(members)
    return Response(status, (_JSON, *_PRIVATE, *headers, _length(body)), body)


def _length(body: bytes) -> tuple[str, str]:
    return ("Content-Length", str(len(body)))
