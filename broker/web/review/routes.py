"""The addresses of the auditor's pages, and what is shown where one cannot be."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from broker.audit.query import PeopleAway, QueryRefused, QueryTooExpensive, RecordChanged
from broker.audit.telling.handover import NotSigned
from broker.errors import RateLimited, TemporarilyUnavailable
from broker.web.review.desk import Desk, TooBusy
from broker.web.review.live import Streams
from broker.web.review.pages import NotFound, Pages
from broker.web.review.rendering import Hardened, Rendering
from broker.web.review.rows import BASE

Answering = Callable[[Request], Awaitable[Response]]

_PROBLEMS: Final[Mapping[type[Exception], tuple[int, str]]] = {
    QueryRefused: (400, "This cannot be asked"),
    NotFound: (404, "There is nothing here"),
    RecordChanged: (500, "This record is not as it was"),
    QueryTooExpensive: (422, "This takes too long to answer"),
    TooBusy: (503, "Too many ask at once"),
    RateLimited: (429, "This is too much at once"),
    TemporarilyUnavailable: (503, "This cannot be put on record"),
    PeopleAway: (503, "People cannot be looked for just now"),
    NotSigned: (503, "This cannot be signed just now"),
    OSError: (503, "The record cannot be read"),
}


def review_routes(desk: Desk, *, streams: Streams | None = None) -> list[BaseRoute]:
    """
    The auditor's pages, for whoever asks: somebody else has to stand before them and let in who may look.

    Where ``request.state.auditor`` tells a name, every page shows it with a button to log out, which sends
    ``request.state.form_token``.
    """
    rendering = Rendering()
    pages = Pages(desk, rendering, streams or Streams())
    hardened = [Middleware(Hardened)]

    def page(path: str, answer: Answering) -> Route:
        return Route(path, _told(rendering, answer), methods=["GET"], middleware=hardened)

    async def nothing(_request: Request) -> Response:
        raise NotFound("No page has this address.")

    return [
        Route(f"{BASE}/static/{{name}}", rendering.assets.answer, middleware=hardened),
        page(BASE, pages.records),
        page(f"{BASE}/events/{{event_id:path}}", pages.event),
        page(f"{BASE}/proofs/{{event_id:path}}", pages.proof),
        page(f"{BASE}/lineage", pages.lineage),
        page(f"{BASE}/find", pages.find),
        page(f"{BASE}/tail", pages.tail),
        page(f"{BASE}/tail/stream", pages.stream),
        page(f"{BASE}/export", pages.export),
        *_party_pages(page, pages),
        page(f"{BASE}/{{rest:path}}", nothing),
    ]


def _party_pages(page: Callable[[str, Answering], Route], pages: Pages) -> Sequence[Route]:
    return [
        page(f"{BASE}/people", pages.party_of("person")),
        page(f"{BASE}/clients", pages.party_of("client")),
        page(f"{BASE}/servers", pages.party_of("mcp_server")),
        page(f"{BASE}/resources", pages.party_of("resource")),
    ]


def _told(rendering: Rendering, answer: Answering) -> Answering:
    """The same, with a page for each way in which it can fail."""

    async def told(request: Request) -> Response:
        try:
            return await answer(request)
        except tuple(_PROBLEMS) as problem:
            kind = next(one for one in _PROBLEMS if isinstance(problem, one))
            status, title = _PROBLEMS[kind]
            response = rendering.problem(request, status, title, _sentences(problem))
            if status in {429, 503}:
                response.headers["Retry-After"] = "2"
            return response

    return told


_SENTENCES: Final[Mapping[type[Exception], str]] = {
    RateLimited: "Wait for some seconds, then ask again.",
    TemporarilyUnavailable: (
        "What auditors look at is on record, too, and just now nothing can be recorded."
    ),
    QueryTooExpensive: "Choose a shorter time, or add a filter.",
    PeopleAway: "The keys of their pseudonyms cannot be had. The broker's log says why.",
    NotSigned: (
        "Nothing was handed over: a file comes with a manifest that the audit key signs, and that key cannot"
        " be had. The broker's log says why. Everything else here works as before."
    ),
    # The text of the error names paths of the machine.
    OSError: "A file of the audit record could not be read. The broker's log says which and why.",
}


def _sentences(problem: Exception) -> list[str]:
    if isinstance(problem, RecordChanged):
        return [str(problem), "Keep the files, and check a copy with broker audit verify."]
    for kind, sentence in _SENTENCES.items():
        if isinstance(problem, kind):
            return [sentence]
    text = str(problem)
    return [text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")]
