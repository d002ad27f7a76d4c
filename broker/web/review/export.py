"""Records to take away, as a file that is made while it is read."""

from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Final

from broker.audit.query import Found, Page, Query
from broker.audit.telling.formats import Format
from broker.web.review.desk import Desk

MOST_EXPORTED: Final = 100_000
"""No file has more records; ``broker audit export`` has no such limit."""

_AT_ONCE: Final = 500


class Exporting:
    """A file under way: what was asked for, in which form."""

    def __init__(self, desk: Desk, query: Query, form: Format) -> None:
        self._desk = desk
        self._query = query
        self._form = form
        self._left = MOST_EXPORTED

    async def pieces(self) -> AsyncIterator[bytes]:
        """
        The file. An error in the middle goes on to the server, which breaks the answer off: a file that
        is not whole must not look so.
        """
        pieces = self._pieces()
        while True:
            together = await self._desk.ask(lambda: b"".join(islice(pieces, _AT_ONCE)))
            if not together:
                return
            yield together

    def _pieces(self) -> Iterator[bytes]:
        yield self._form.head
        for found in self._records():
            yield self._form.row(found.record, found.line)

    def _records(self) -> Iterator[Found]:
        cursor = ""
        while self._left > 0:
            page = self._page(cursor)
            yield from page.found
            self._left -= len(page.found)
            cursor = page.next_cursor
            if not cursor:
                return

    def _page(self, cursor: str) -> Page:
        limit = min(_AT_ONCE, self._left)
        return self._desk.reader.find(self._query, limit=limit, cursor=cursor)
