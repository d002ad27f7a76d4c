"""The auditor's pages, one method each: a question to the record, answered by a template."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from broker.audit.query import (
    CURSOR,
    Branch,
    Lineage,
    Page,
    Party,
    Query,
    QueryRefused,
    QueryTooExpensive,
)
from broker.audit.telling.formats import FORMATS
from broker.errors import Reason
from broker.web.review import histogram as histograms
from broker.web.review import rows
from broker.web.review.asking import LISTS, LONGEST_ADDRESS, Asked, address, read, written
from broker.web.review.desk import Desk, Look, TooBusy
from broker.web.review.download import Downloads, as_file
from broker.web.review.events import EventView, view
from broker.web.review.evidence import Standing, standing
from broker.web.review.export import MOST_EXPORTED, Exporting
from broker.web.review.histogram import Histogram
from broker.web.review.live import LONGEST, Streams
from broker.web.review.rendering import Rendering
from broker.web.review.views import saved_views, spans

ROWS: Final = 50
"""So many records are on a page."""

_LONGEST_NAME: Final = 1_024
_RECEIPT: Final = re.compile(r"([^@\s]{1,256})@[0-9a-f]{16}/\S{1,128}")
_FILTERS_BY_KIND: Final = {
    "person": "person",
    "client": "client",
    "mcp_server": "server",
    "resource": "resource",
}


_TYPED: Final = frozenset({"reason", "client", "server", "resource", "policy", "token"})
"""Filters whose values are typed in, and may be a name in the wrong place."""

_NAMES: Final = frozenset({"person", "auditor"})
"""Filters whose values are names of people, and in no text on record."""

_Found = TypeVar("_Found")


class NotFound(Exception):
    """There is nothing of that name; the sentence says what was looked for."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What the list shows."""

    page: Page
    rows: Sequence[rows.Row]
    histogram: Histogram | None
    is_uncounted: bool
    standing: Standing


class Pages:
    """
    The pages of one desk.

    Each raises what the record raises, which ``broker.web.review.routes`` turns into a page of its own.
    """

    def __init__(self, desk: Desk, rendering: Rendering, streams: Streams) -> None:
        self._desk = desk
        self._rendering = rendering
        self._streams = streams
        self._downloads = Downloads()

    async def records(self, request: Request) -> Response:
        """The list, with its filters, its chart and the ready-made questions."""
        asked = self._asked(request, "cursor")
        if asked.has_blanks:
            return RedirectResponse(asked.address(rows.BASE), status_code=303)
        cursor = _cursor(request)
        listing = await self._desk.show(
            request,
            _look("records", asked),
            lambda: self._listing(asked, cursor),
            size=lambda listing: len(listing.rows),
        )
        older = listing.page.next_cursor
        told = {
            "asked": asked,
            "listing": listing,
            "views": saved_views(asked),
            "spans": spans(asked),
            "chips": [(*pair, address(rows.BASE, asked.without(pair))) for pair in asked.pairs],
            "newest": asked.address(rows.BASE) if cursor else "",
            "older": asked.address(rows.BASE, cursor=older) if older else "",
            "exports": _exports(asked),
            "most_exported": MOST_EXPORTED,
            "tail": asked.address(f"{rows.BASE}/tail"),
            "grants": rows.GRANTS,
            "events": rows.EVENTS,
            "reasons": [one.code for one in Reason],
        }
        return self._rendering.page(request, "records.html", told)

    async def event(self, request: Request) -> Response:
        """One record."""
        found = await self._event(request)
        return self._rendering.page(request, "event.html", {"event": found})

    async def proof(self, request: Request) -> Response:
        """The proof of one record, as a file."""
        proving = (await self._event(request)).proving
        found = _there(proving.proof, proving.fault or "This record is not sealed yet.")
        name = re.sub(r"[^0-9A-Za-z-]", "_", request.path_params["event_id"])[:80]
        return Response(
            found.text, media_type="text/plain; charset=utf-8", headers=as_file(f"{name}.proof")
        )

    def party_of(self, kind: str) -> Callable[[Request], Awaitable[Response]]:
        """The page of a person, client, MCP server or resource."""

        async def answer(request: Request) -> Response:
            name = _only(request, "name", _LONGEST_NAME)
            asked = _of_party(kind, name)
            look = Look("person", (name,)) if kind == "person" else _typed(kind, name)
            found = await self._desk.show(
                request, look, lambda: self._party(kind, name, asked), size=_one_or_none
            )
            party, listing = _there(found, f"No record names this {rows.PARTY_NAMES[kind]}.")
            told = {
                "party": party,
                "listing": listing,
                "all": asked.address(rows.BASE),
                "denied": asked.address(rows.BASE, decision="deny"),
            }
            return self._rendering.page(request, "party.html", told)

        return answer

    async def lineage(self, request: Request) -> Response:
        """What came of a token."""
        jti = _only(request, "token", _LONGEST_NAME)
        found = await self._desk.show(
            request,
            _typed("lineage", jti),
            lambda: self._desk.reader.lineage(jti),
            size=lambda lineage: len(_beginnings(lineage)),
        )
        if not _beginnings(found):
            raise NotFound("Nothing is recorded of a token with this id.")
        return self._rendering.page(
            request, "lineage.html", {"lineage": found, "beginnings": _beginnings(found)}
        )

    async def find(self, request: Request) -> Response:
        """To the record or the lineage that an id is of."""
        text = _only(request, "id", _LONGEST_NAME).strip()
        if text.startswith("eyJ") or text.count(".") == 2:
            raise QueryRefused("that looks like a token; only its id (jti) may be sent here")
        receipt = _RECEIPT.fullmatch(text)
        event_id = receipt[1] if receipt else text

        def question() -> str | None:
            if self._desk.reader.get(event_id) is not None:
                return rows.event_address(event_id)
            if _beginnings(self._desk.reader.lineage(text)):
                return rows.lineage_address(text)
            return None

        found = await self._desk.show(request, _typed("id", text), question, size=_one_or_none)
        place = _there(found, "No record and no token has this id.")
        return RedirectResponse(place, status_code=303)

    async def tail(self, request: Request) -> Response:
        """The newest records, and those that come."""
        asked = self._asked(request)
        if asked.has_blanks:
            return RedirectResponse(asked.address(f"{rows.BASE}/tail"), status_code=303)

        def question() -> tuple[str, Page]:
            return self._desk.reader.latest(), self._desk.reader.find(asked.query, limit=ROWS)

        latest, page = await self._desk.show(
            request, _look("newest records", asked), question, size=lambda told: len(told[1].found)
        )
        told = {
            "asked": asked,
            "rows": [rows.row(one) for one in page.found],
            "stream": asked.address(f"{rows.BASE}/tail/stream", after=latest),
            "again": asked.address(f"{rows.BASE}/tail"),
            "back": asked.address(rows.BASE),
            "now": written(self._desk.clock()),
            "minutes": int(LONGEST // 60),
        }
        return self._rendering.page(request, "tail.html", told)

    async def stream(self, request: Request) -> Response:
        """The records that come, as events."""
        asked = self._asked(request, "after")
        after = request.headers.get("last-event-id") or request.query_params.get("after", "")
        if after and not CURSOR.fullmatch(after):
            raise QueryRefused("after: it is no cursor")
        if self._streams.is_full:
            raise TooBusy("Too many streams are open.")
        latest = await self._desk.show(
            request,
            _look(
                f"records as they come, from {after}" if after else "records as they come", asked
            ),
            self._desk.reader.latest,
            size=None,
        )
        events = self._streams.follow(
            request, self._desk, self._rendering, asked.query, after=after or latest
        )
        return StreamingResponse(events, media_type="text/event-stream")

    async def export(self, request: Request) -> Response:
        """What is asked for, as a file with its manifest."""
        asked = self._asked(request, "format")
        name = request.query_params.get("format", "")
        form = FORMATS.get(name)
        if form is None:
            known = ", ".join(FORMATS)
            raise QueryRefused(f"format: it is none of {known}")
        exporting = Exporting(self._desk, asked.query, form, by=_taker(request))
        return await self._downloads.answer(
            request, self._desk, _look(f"export {name}", asked), exporting
        )

    def _asked(self, request: Request, *beside: str) -> Asked:
        if len(request.url.query) > LONGEST_ADDRESS:
            raise QueryRefused(f"the address is longer than {LONGEST_ADDRESS} characters")
        return read(request.query_params, now=self._desk.clock(), beside=beside)

    def _listing(self, asked: Asked, cursor: str) -> Listing:
        reader = self._desk.reader
        page = reader.find(asked.query, limit=ROWS, cursor=cursor)
        shown = [rows.row(one) for one in page.found]
        drawn, is_uncounted = None, False
        try:
            drawn = histograms.draw(reader, asked, path=rows.BASE, now=self._desk.clock())
        except (QueryRefused, QueryTooExpensive):
            # The list is worth showing even where there is too much to count.
            is_uncounted = True
        now = standing(self._desk.proofs, reader.extent())
        return Listing(page, shown, drawn, is_uncounted=is_uncounted, standing=now)

    def _party(self, kind: str, name: str, asked: Asked) -> tuple[Party, Listing] | None:
        party = self._desk.reader.party(kind, name)
        return None if party is None else (party, self._listing(asked, ""))

    async def _event(self, request: Request) -> EventView:
        event_id = request.path_params["event_id"]
        if len(event_id) > _LONGEST_NAME:
            raise QueryRefused(f"the id is longer than {_LONGEST_NAME} characters")
        found = await self._desk.show(
            request,
            _typed("record", event_id),
            lambda: view(self._desk, event_id),
            size=_one_or_none,
        )
        return _there(found, "No record has this id.")


def _look(what: str, asked: Asked) -> Look:
    pairs = [(name, value) for name, value in asked.pairs if name not in _NAMES]
    typed = tuple(value for name, value in pairs if name in _TYPED)
    bare = address(what, [pair for pair in pairs if pair[0] not in _TYPED])
    return Look(address(what, pairs), asked.query.names, bare, typed)


def _typed(what: str, text: str) -> Look:
    return Look(f"{what} {text}", bare=what, values=(text,))


def _one_or_none(found: object) -> int:
    return 0 if found is None else 1


def _beginnings(lineage: Lineage) -> Sequence[Branch]:
    """Where the token was issued, or else, where it is somebody else's, presented."""
    return lineage.uses if lineage.root is None else [lineage.root]


def _there(found: _Found | None, sentence: str) -> _Found:
    if found is None:
        raise NotFound(sentence)
    return found


def _exports(asked: Asked) -> list[tuple[str, str]]:
    path = f"{rows.BASE}/export"
    return [(name.upper(), asked.address(path, format=name)) for name in FORMATS]


def _of_party(kind: str, name: str) -> Asked:
    # A name counts as it stands, also with blanks around it.
    filter_name = _FILTERS_BY_KIND[kind]
    values: dict[str, Any] = {LISTS[filter_name]: (name,)}
    return Asked(((filter_name, name),), Query(**values))


def _cursor(request: Request) -> str:
    cursor = request.query_params.get("cursor", "")
    if cursor and not CURSOR.fullmatch(cursor):
        raise QueryRefused("cursor: it is none")
    return cursor


def _only(request: Request, name: str, longest: int) -> str:
    """The one parameter of an address; raises ``QueryRefused`` for others, and for none."""
    given = request.query_params.multi_items()
    if [one for one, _ in given] != [name]:
        raise QueryRefused(f"the address must have {name!r} once and nothing else")
    value = given[0][1]
    if not value or len(value) > longest:
        raise QueryRefused(f"{name}: it is empty or longer than {longest}")
    return value


def _taker(request: Request) -> str:
    """Who takes something away, as its manifest names them."""
    auditor = getattr(request.state, "auditor", "")
    return f"{auditor or 'somebody'}, on the auditor's pages"
