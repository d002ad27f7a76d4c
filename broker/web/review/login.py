"""The login of auditors: a one-time link from the command line, or an OpenID provider."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from hmac import compare_digest
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from broker.endpoints.allowances import LocalAllowances
from broker.endpoints.limits import Limits, LimitTerms, source_of
from broker.errors import OAuthError, RateLimited, Reason, TemporarilyUnavailable, TokenRejected
from broker.interfaces import AuditLog
from broker.model import Quota, RequestContext, new_request_id
from broker.web.peers import Peers
from broker.web.review.guard import (
    LOGIN,
    LOGOUT,
    FormRefused,
    read_form,
    require_auditor,
    session_of,
)
from broker.web.review.links import Links
from broker.web.review.login_pages import (
    begin_page,
    link_page,
    login_page,
    refused_page,
)
from broker.web.review.openid import NotAnAuditor, OpenIdProvider
from broker.web.review.pending import PENDING_SECONDS, Pending, PendingLogins
from broker.web.review.place import BASE, Place, page_after_login
from broker.web.review.sessions import Auditor, Session, Sessions

_LONGEST_ANSWER: Final = 8 * 1024
_COOKIE: Final = "audit"
_PENDING_COOKIE: Final = "audit-login"
_ATTEMPTS: Final = Quota(rate=0.5, burst=30)

Prove = Callable[[], Auditor]
"""Proves who somebody is, or raises."""


class ReviewAccess:
    """
    Who may look at the auditor's pages.

    Every login, refusal and logout has an audit record, written before it counts. ``provider`` is ``None``
    where nobody logs in but by a link. Failures from one address are limited, and whoever proves to be an
    auditor never is.
    """

    def __init__(
        self,
        place: Place,
        links: Links,
        audit: AuditLog,
        *,
        sessions: Sessions | None = None,
        provider: OpenIdProvider | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.place = place
        self.sessions = Sessions(monotonic=monotonic) if sessions is None else sessions
        self._links = links
        self._audit = audit
        self._provider = provider
        self._pending = PendingLogins(monotonic)
        self._limits = Limits(
            LocalAllowances(now=monotonic), LimitTerms(per_source=_ATTEMPTS), monotonic=monotonic
        )

    def guarded(self, routes: Sequence[BaseRoute], *, peers: Peers | None = None) -> BaseRoute:
        """
        The auditor's pages behind the login, with the login beside them.

        ``peers`` tells from where they are asked for, where trusted proxies stand between.
        """
        return require_auditor(
            routes, self.sessions, self.place, open_routes=self._routes(), peers=peers
        )

    def close(self) -> None:
        """Give back what limits hold."""
        self._limits.close()

    def _routes(self) -> Sequence[BaseRoute]:
        return (
            Route(LOGIN, self._choose, methods=["GET"]),
            Route(f"{LOGIN}/link", self._take_link, methods=["POST"]),
            Route(f"{LOGIN}/link/{{secret}}", self._show_link, methods=["GET"]),
            Route(f"{LOGIN}/begin", self._begin, methods=["GET"]),
            Route(f"{LOGIN}/return", self._return, methods=["GET"]),
            Route(LOGOUT, self._logout, methods=["POST"]),
        )

    async def _choose(self, request: Request) -> Response:
        if "broker.session" in request.scope:
            return _to(page_after_login(request.query_params.get("next", "")))
        page = page_after_login(request.query_params.get("next", ""))
        issuer = None if self._provider is None else self._provider.issuer
        return HTMLResponse(login_page(issuer, page, command=self._links.command))

    async def _show_link(self, request: Request) -> Response:
        # It is only a page with a button: what looks at links ahead of people spends none.
        return HTMLResponse(link_page(request.path_params["secret"]))

    async def _take_link(self, request: Request) -> Response:
        try:
            secret = (await read_form(request)).get("secret", "")
        except FormRefused:
            return self._refused(TokenRejected(Reason.FORM_FORGED))

        def prove() -> Auditor:
            return Auditor(self._links.spend(secret), "link")

        # The form was sent by a page of ours, and whoever came by a link came from no other site.
        return await self._attempt(request, "link", prove, page=BASE, same_site="Strict")

    async def _begin(self, request: Request) -> Response:
        provider = self._provider
        if provider is None:
            page = refused_page(Reason.LOGIN_UNAVAILABLE.sentence, command=self._links.command)
            return HTMLResponse(page, status_code=404)
        try:
            # Nobody's attempts use up what others may: it costs no memory, and the provider is asked once.
            begun = await run_in_threadpool(provider.begin)
        except OAuthError as error:
            return self._refused(error)
        page = page_after_login(request.query_params.get("next", ""))
        sealed = self._pending.sealed(Pending(begun, page))
        response = HTMLResponse(begin_page(begun.url))
        response.status_code, response.headers["Location"] = 303, begun.url
        response.headers.append(
            "Set-Cookie",
            self.place.cookie(_PENDING_COOKIE, sealed, lifetime=PENDING_SECONDS),
        )
        return response

    async def _return(self, request: Request) -> Response:
        provider, answer = self._provider, _answer(request)
        sealed = request.cookies.get(self.place.cookie_name(_PENDING_COOKIE), "")
        pending = self._pending.opened(sealed, answer.get("state", ""))

        def prove() -> Auditor:
            if provider is None or pending is None:
                raise TokenRejected(Reason.LOGIN_UNKNOWN)
            return provider.finish(pending.begun, answer)

        page = BASE if pending is None else pending.page
        response = await self._attempt(request, "openid", prove, page=page)
        if pending is not None:
            response.headers.append(
                "Set-Cookie", self.place.cookie(_PENDING_COOKIE, "", lifetime=0)
            )
        return response

    async def _logout(self, request: Request) -> Response:
        session = session_of(request)
        try:
            told = (await read_form(request)).get("form_token", "")
        except FormRefused:
            told = ""
        if not compare_digest(told.encode("utf-8", "replace"), session.form_token.encode()):
            return self._refused(TokenRejected(Reason.FORM_FORGED))
        # It ends whether or not that can be recorded.
        self.sessions.end(session)
        try:
            await run_in_threadpool(self._record_logout, _context(request), session)
        except OAuthError as error:
            response = self._refused(error)
        else:
            response = _to(LOGIN)
        response.headers.append("Set-Cookie", self.place.cookie(_COOKIE, "", lifetime=0))
        return response

    def _record_logout(self, context: RequestContext, session: Session) -> None:
        with self._audit.entry("audit.logout", context) as entry:
            entry.note(auditor=session.auditor.name, auth_method=session.auditor.how)

    async def _attempt(
        self, request: Request, how: str, prove: Prove, *, page: str, same_site: str = "Lax"
    ) -> Response:
        """Log in whoever proves to be an auditor, and show the page; or say why not."""
        context = _context(request)
        try:
            secret = await run_in_threadpool(self._login, context, how, prove)
        except TokenRejected as rejected:
            self._limits.charge(context.source)
            return self._refused(rejected)
        except OAuthError as error:
            return self._refused(error)
        if "broker.session" in request.scope:
            self.sessions.end(session_of(request))
        response = _to(page)
        cookie = self.place.cookie(_COOKIE, secret, same_site=same_site)
        response.headers.append("Set-Cookie", cookie)
        return response

    def _login(self, context: RequestContext, how: str, prove: Prove) -> str:
        """The secret of a new session; it exists only once the login is on record."""
        with ExitStack() as undo:
            with self._audit.entry("audit.login", context) as entry:
                entry.note(auth_method=how)
                try:
                    auditor = prove()
                except NotAnAuditor as somebody:
                    entry.note(auditor=somebody.name)
                    raise
                except TokenRejected:
                    # Who proves something is never turned away for what others, behind one proxy, did not.
                    self._limits.enter(context)
                    raise
                entry.note(auditor=auditor.name)
                secret = self.sessions.begin(auditor)
                undo.callback(self._end, secret)
            undo.pop_all()
        return secret

    def _refused(self, error: OAuthError | TokenRejected) -> Response:
        """A page that says why not, in the sentence of the reason."""
        status = 403
        headers = {}
        if isinstance(error, OAuthError):
            status = error.http_status
        if isinstance(error, TemporarilyUnavailable):
            headers["Retry-After"] = str(error.retry_after)
        sentence = _sentence(error)
        return HTMLResponse(
            refused_page(sentence, command=self._links.command), status_code=status, headers=headers
        )

    def _end(self, secret: str) -> None:
        session = self.sessions.find(secret)
        if session is not None:
            self.sessions.end(session)


def _answer(request: Request) -> Mapping[str, str]:
    """The parameters that a provider answered with, each once; nothing when they are not so."""
    if len(request.url.query) > _LONGEST_ANSWER:
        return {}
    pairs = request.query_params.multi_items()
    return dict(pairs) if len(dict(pairs)) == len(pairs) else {}


def _context(request: Request) -> RequestContext:
    peer = request.client.host if request.client is not None else ""
    return RequestContext("admin", new_request_id(), peer, source=source_of(peer))


def _to(target: str) -> Response:
    return RedirectResponse(target, status_code=303)


_TOLD: Final = frozenset(
    {
        Reason.LINK_UNKNOWN,
        Reason.LOGIN_UNKNOWN,
        Reason.LOGIN_REFUSED,
        Reason.LOGIN_UNAVAILABLE,
        Reason.AUDITOR_UNKNOWN,
        Reason.FORM_FORGED,
        Reason.OVERLOADED,
        Reason.AUDIT_UNAVAILABLE,
    }
)


def _sentence(error: OAuthError | TokenRejected) -> str:
    if isinstance(error, RateLimited):
        return "Too many attempts came from this address. Try again in a minute."
    return error.reason.sentence if error.reason in _TOLD else Reason.LOGIN_REFUSED.sentence
