"""New records as they come, by Server-Sent Events (WHATWG HTML 9.2)."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from starlette.requests import Request

from broker.audit.query import (
    Found,
    PeopleAway,
    Query,
    QueryRefused,
    QueryTooExpensive,
    RecordChanged,
    onward,
)
from broker.web.review import rows
from broker.web.review.desk import Desk, TooBusy
from broker.web.review.rendering import Rendering

STREAMS: Final = 8
"""No more streams are open at once."""

LONGEST: Final = 600.0
"""After so many seconds a stream ends; a browser goes on by itself where it ended."""

INTERVAL: Final = 1.0
"""How long nothing is asked after nothing was new, in seconds."""

_AT_ONCE: Final = 50
_PROBLEMS: Final = (
    QueryRefused,
    QueryTooExpensive,
    RecordChanged,
    PeopleAway,
    OSError,
    TooBusy,
)
_RETRY: Final = 3_000


class Streams:
    """The streams that are open."""

    def __init__(self, *, most: int = STREAMS, longest: float = LONGEST) -> None:
        self._most = most
        self._longest = longest
        self._open = 0

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another."""
        return self._open >= self._most

    async def follow(
        self, request: Request, desk: Desk, rendering: Rendering, query: Query, *, after: str
    ) -> AsyncIterator[str]:
        """
        The records that meet the query and come after a cursor, each as an event that has it as its id.

        It ends after its time, when whoever asked is not logged in any more, or with an event ``problem``
        when the record cannot be read.
        """
        if self.is_full:
            raise TooBusy("Too many streams are open.")
        self._open += 1
        try:
            async for event in self._events(desk, rendering, query, after=after):
                if not desk.may_still_look(request):
                    return
                yield event
        finally:
            self._open -= 1

    async def _events(
        self, desk: Desk, rendering: Rendering, query: Query, *, after: str
    ) -> AsyncIterator[str]:
        clock = asyncio.get_running_loop().time
        end, cursor = clock() + self._longest, after
        yield f"retry: {_RETRY}\n\n"
        while clock() < end:
            try:
                found, latest = await desk.ask(_newer(desk, query, cursor))
            except _PROBLEMS:
                yield "event: problem\ndata: \n\n"
                return
            for one in found:
                cursor = one.cursor
                yield _event(rendering, one)
            if len(found) < _AT_ONCE:
                # A comment shows whether somebody still listens.
                if not found:
                    # What was looked at is not looked at again, by this stream or the next.
                    cursor = onward(cursor, latest)
                yield f": \nid: {cursor}\n\n"
                await asyncio.sleep(INTERVAL)


def _newer(desk: Desk, query: Query, cursor: str) -> Callable[[], tuple[Sequence[Found], str]]:
    def look() -> tuple[Sequence[Found], str]:
        # Asked for first, so that what comes in between is looked at again and not passed over.
        latest = desk.reader.latest()
        return desk.reader.newer(query, than=cursor, limit=_AT_ONCE), latest

    return look


def _event(rendering: Rendering, found: Found) -> str:
    markup = rendering.text("row.html", {"row": rows.row(found)})
    # JSON has no line breaks of its own, so the event is one line whatever the record holds.
    return f"id: {found.cursor}\ndata: {json.dumps(markup)}\n\n"
