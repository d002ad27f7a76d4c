"""The OAuth face: routes, the error boundary, and one translation each way."""

import re
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit
from wsgiref.types import StartResponse, WSGIEnvironment

import structlog

from broker.endpoints import Endpoints
from broker.endpoints.limits import source_of
from broker.endpoints.overload import Places
from broker.errors import OAuthError, Reason, ServerError, TemporarilyUnavailable
from broker.model import RequestContext, new_request_id
from broker.web import responses
from broker.web.overdue import BodyReads
from broker.web.peers import Peers
from broker.web.requests import read_inquiry, read_token_request, take_body
from broker.web.responses import Response

_Route = Callable[[WSGIEnvironment, str], Response]

_METADATA_MAX_AGE: Final = 300
_QUEUE_SECONDS: Final = 2.0
_HOST: Final = re.compile(r"(?:[A-Za-z0-9_.-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")

_log = structlog.get_logger("broker.web")


class OAuthApp:
    """
    The face as a WSGI application (PEP 3333).

    Its paths are those that the metadata of ``issuer`` names; a path either is one of them, byte for
    byte once the server has undone its escapes (RFC 3986 6.2.2.2: ``/tok%65n`` is ``/token``), or is
    not found. At most ``max_concurrent`` requests are in the core at once; others wait for two seconds
    at most and are then turned away. ``request_timeout`` is how long a caller is expected to wait.
    ``body_reads`` and ``peers`` are for the server, which must see to it that bodies arrive in time
    and that nobody but a proxy takes all connections.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        issuer: str,
        max_body_bytes: int = 65_536,
        max_concurrent: int = 16,
        peers: Peers | None = None,
        request_timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        self.body_reads = BodyReads()
        self.peers = peers or Peers()
        self._endpoints = endpoints
        self._max_body_bytes = max_body_bytes
        self._places = Places(max_concurrent, patience=_QUEUE_SECONDS)
        self._request_timeout = request_timeout.total_seconds()
        self._routes = self._routes_for(urlsplit(issuer).path.rstrip("/"))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        """Answer one request. This is the boundary: only ``OAuthError`` has anything to tell a caller."""
        request_id = ""
        try:
            # What is to be turned away is so before anything else is done for it, its body unread.
            if environ["REQUEST_METHOD"] == "POST":
                self._places.check()
            request_id = new_request_id()
            response = self._answer(environ, request_id)
        except OAuthError as error:
            response = self._refused(error, request_id)
        except Exception as error:  # noqa: BLE001 - Whatever it is, the caller learns nothing of it.
            _log_failure(error, request_id)
            response = responses.refused(ServerError(Reason.INTERNAL_ERROR), request_id)
        start_response(response.status_line, list(response.headers))
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else response.body]

    def _refused(self, error: OAuthError, request_id: str) -> Response:
        if error.is_recorded or not isinstance(error, TemporarilyUnavailable):
            return responses.refused(error, request_id)
        self._endpoints.limits.count("http", error)
        return responses.turned_away(error)

    def _routes_for(self, base: str) -> Mapping[str, Mapping[str, _Route]]:
        metadata = _public(self._metadata)
        return {
            f"{base}/token": {"POST": self._token},
            f"{base}/introspect": {"POST": self._introspect},
            f"{base}/revoke": {"POST": self._revoke},
            f"{base}/authorize": {"GET": _no_login, "HEAD": _no_login},
            f"{base}/jwks": _public(self._key_set),
            # RFC 8414 3.1 puts the well-known part before the issuer's path, OpenID Connect after it.
            f"/.well-known/oauth-authorization-server{base}": metadata,
            f"/.well-known/openid-configuration{base}": metadata,
            f"{base}/.well-known/openid-configuration": metadata,
        }

    def _answer(self, environ: WSGIEnvironment, request_id: str) -> Response:
        # A missing or doubled Host header comes as something that is no host name (RFC 9112 3.2).
        if not _HOST.fullmatch(environ.get("HTTP_HOST", "unsaid")):
            return responses.plain(400)
        methods = self._routes.get(environ.get("PATH_INFO", ""))
        if methods is None:
            return responses.plain(404)
        route = methods.get(environ["REQUEST_METHOD"])
        if route is None:
            return responses.plain(405, allowed=methods)
        return route(environ, request_id)

    def _token(self, environ: WSGIEnvironment, request_id: str) -> Response:
        endpoint, here = self._endpoints.token, self._endpoints.discovery.token_endpoint
        context, body = self._entered(environ, request_id)
        with self._places:
            issued = endpoint.issue(
                context, lambda: read_token_request(environ, body, proof_target=here)
            )
        return responses.granted(issued, request_id)

    def _introspect(self, environ: WSGIEnvironment, request_id: str) -> Response:
        endpoint = self._endpoints.introspection
        context, body = self._entered(environ, request_id)
        with self._places:
            document = endpoint.introspect(context, lambda: read_inquiry(environ, body))
        return responses.told(document, request_id)

    def _revoke(self, environ: WSGIEnvironment, request_id: str) -> Response:
        endpoint = self._endpoints.revocation
        context, body = self._entered(environ, request_id)
        with self._places:
            endpoint.revoke(context, lambda: read_inquiry(environ, body))
        return responses.withdrawn(request_id)

    def _entered(
        self, environ: WSGIEnvironment, request_id: str
    ) -> tuple[RequestContext, bytes | OAuthError]:
        """Who asks, and the body that came or what is wrong with it; who may not enter is refused."""
        peer = self.peers.peer(environ)
        context = RequestContext(
            face="http",
            request_id=request_id,
            peer=peer,
            deadline=time.monotonic() + self._request_timeout,
            # A proxy that names nobody speaks for everybody behind it.
            source="" if self.peers.is_proxy(peer) else source_of(peer),
        )
        self._endpoints.limits.enter(context)
        with self.body_reads:
            body = take_body(environ, self._max_body_bytes)
        # Once more, or whoever holds many bodies back gets them all in together.
        self._endpoints.limits.enter(context)
        return context, body

    def _metadata(self, environ: WSGIEnvironment, _request_id: str) -> Response:
        return responses.public_document(
            self._endpoints.discovery.metadata(),
            max_age=_METADATA_MAX_AGE,
            unverified_etags=environ.get("HTTP_IF_NONE_MATCH", ""),
        )

    def _key_set(self, environ: WSGIEnvironment, _request_id: str) -> Response:
        key_set = self._endpoints.discovery.key_set()
        return responses.public_document(
            {"keys": key_set.keys},
            max_age=key_set.max_age,
            unverified_etags=environ.get("HTTP_IF_NONE_MATCH", ""),
        )


def _public(document: _Route) -> Mapping[str, _Route]:
    return {"GET": document, "HEAD": document, "OPTIONS": _preflight}


def _preflight(_environ: WSGIEnvironment, _request_id: str) -> Response:
    return responses.preflight_passed()


def _no_login(_environ: WSGIEnvironment, _request_id: str) -> Response:
    return responses.no_login()


def _log_failure(error: Exception, request_id: str) -> None:
    """Log where it went wrong, but not the message, which may hold anything."""
    places = [f"{one.filename}:{one.lineno}" for one in traceback.extract_tb(error.__traceback__)]
    _log.error(
        "request_failed", request_id=request_id, kind=type(error).__name__, places=places[-8:]
    )
