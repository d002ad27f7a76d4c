"""What stands before the auditor's pages: the right name, the right origin, and somebody who logged in."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders, URLPath
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Match, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.web.peers import Peers
from broker.web.review.login_pages import onward_page
from broker.web.review.place import BASE, Place
from broker.web.review.sessions import Session, Sessions

LOGIN: Final = f"{BASE}/login"
LOGOUT: Final = f"{BASE}/logout"

_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
_METHODS: Final = _SAFE_METHODS | {"POST"}
_OWN_DOING: Final = frozenset({"same-origin", "none"})
"""What browsers tell (Fetch Metadata) when one of our pages asks, or somebody typed the address."""
_LONGEST_FORM: Final = 16 * 1024
_FORM_SECONDS: Final = 5.0
_MOST_FIELDS: Final = 64
_FORM_TYPE: Final = "application/x-www-form-urlencoded"

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "interest-cohort=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""What every answer below ``/audit`` says unless its page says otherwise."""


class FormRefused(Exception):
    """What was sent is no form that is taken here."""


def session_of(request: Request) -> Session:
    """The session in which a guarded page is asked for."""
    session: Session = request.scope["broker.session"]
    return session


def require_auditor(
    routes: Sequence[BaseRoute],
    sessions: Sessions,
    place: Place,
    *,
    open_routes: Sequence[BaseRoute] = (),
    open_prefixes: Collection[str] = (f"{BASE}/static/",),
    peers: Peers | None = None,
) -> BaseRoute:
    """
    The routes, for auditors alone, as one route of the operators' port.

    Paths are whole: they begin with ``/audit``. Pages find the name of the auditor as
    ``request.state.auditor`` and what their forms must carry as ``request.state.form_token``.
    Whoever another site led to a question is shown a link to it first.
    ``open_routes`` answer everybody, as the login must;
    so does what lies under ``open_prefixes``. Everything else, existing or not, sends whoever is not logged
    in to the login, or refuses a form with 401. ``request.client`` is whom ``peers`` tell.
    """
    inner = Router([*open_routes, *routes], redirect_slashes=False)

    def is_open(path: str) -> bool:
        if path.startswith(tuple(open_prefixes)):
            return True
        return path == LOGIN or path.startswith(f"{LOGIN}/")

    # What is not found is told in here as well, with the headers of the pages.
    return _Below(
        inner,
        _Guard(ExceptionMiddleware(inner), sessions, place, peers or Peers(), is_open=is_open),
    )


async def read_form(request: Request) -> dict[str, str]:
    """
    The fields of a form that was sent, each once.

    Raises ``FormRefused`` for what is too large, too slow, of another type, or names a field twice.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM_TYPE:
        raise FormRefused
    try:
        async with asyncio.timeout(_FORM_SECONDS):
            body = await _body(request)
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            max_num_fields=_MOST_FIELDS,
            errors="strict",
        )
    except (TimeoutError, ValueError, ClientDisconnect):
        raise FormRefused from None
    if len(dict(pairs)) != len(pairs):
        raise FormRefused
    return dict(pairs)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_FORM:
            raise FormRefused
    return bytes(body)


class _Below(BaseRoute):
    """Everything from ``/audit`` on, so that no path beside the guard leads to a page."""

    def __init__(self, inner: Router, guard: ASGIApp) -> None:
        self._inner = inner
        self._guard = guard

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        path = scope.get("path", "")
        is_below = path == BASE or path.startswith(f"{BASE}/")
        return (Match.FULL if scope["type"] == "http" and is_below else Match.NONE), {}

    def url_path_for(self, name: str, /, **path_params: object) -> URLPath:
        return self._inner.url_path_for(name, **path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._guard(scope, receive, send)


class _Guard:
    """Refuses, sends to the login, or lets in with the session beside the request."""

    def __init__(
        self,
        inner: ASGIApp,
        sessions: Sessions,
        place: Place,
        peers: Peers,
        *,
        is_open: Callable[[str], bool],
    ) -> None:
        self._inner = inner
        self._sessions = sessions
        self._place = place
        self._peers = peers
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                # A form tells its origin not even to its own site where no referrer is told.
                headers["Referrer-Policy"] = HEADERS["Referrer-Policy"]
            await send(message)

        nearest, port = scope.get("client") or ("", 0)
        told = Headers(scope=scope).getlist(self._peers.header)
        scope = {**scope, "client": (self._peers.caller(nearest, told), port)}
        request = Request(scope)
        refusal = self._refusal(request)
        if refusal is not None:
            await refusal(scope, receive, send_with_headers)
            return
        session = self._session(request)
        if session is not None:
            scope["broker.session"] = session
            request.state.auditor = session.auditor.name
            request.state.form_token = session.form_token
        elif not self._is_open(scope["path"]):
            await _to_login(request)(scope, receive, send_with_headers)
            return
        if session is not None and not self._is_open(scope["path"]) and _is_led_here(request):
            # Somebody else's page must not make anybody ask about anybody.
            page = HTMLResponse(onward_page(_asked(request)))
            await page(scope, receive, send_with_headers)
            return
        await self._inner(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        if request.headers.getlist("host") != [self._place.authority]:
            return _plain(421, f"The pages are at {self._place.url('')} and under no other name.")
        if request.method not in _METHODS:
            return _plain(405, "This method is not served here.")
        if request.method not in _SAFE_METHODS and not self._is_from_here(request.headers):
            return _plain(403, "The form was not sent from a page of this site.")
        return None

    def _is_from_here(self, headers: Headers) -> bool:
        """Whether a form comes from a page of ours; browsers tell at least one of the two."""
        origins = headers.getlist("origin")
        if origins not in ([], ["null"]):
            return origins == [self._place.origin]
        return headers.getlist("sec-fetch-site") == ["same-origin"]

    def _session(self, request: Request) -> Session | None:
        secret = request.cookies.get(self._place.cookie_name("audit"), "")
        return self._sessions.find(secret) if secret else None


def _is_led_here(request: Request) -> bool:
    """Whether another site had this asked, by what browsers tell; the first page asks about nobody."""
    if request.method not in _SAFE_METHODS or _asked(request) == BASE:
        return False
    return not _OWN_DOING.issuperset(request.headers.getlist("sec-fetch-site"))


def _asked(request: Request) -> str:
    path, query = quote(request.scope["path"]), request.url.query
    return path if not query else f"{path}?{query}"


def _to_login(request: Request) -> Response:
    if request.method not in _SAFE_METHODS:
        return _plain(401, "Log in first.")
    asked = _asked(request)
    target = LOGIN if asked == BASE else f"{LOGIN}?{urlencode({'next': asked})}"
    return RedirectResponse(target, status_code=303)


def _plain(status: int, sentence: str) -> Response:
    return PlainTextResponse(f"{sentence}\n", status_code=status)
