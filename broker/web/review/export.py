"""Records to take away, as a file that is made while it is read."""

import errno
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from typing import Final

from broker.audit.query import Found, Query
from broker.audit.telling.formats import Format
from broker.web.review.desk import Desk

MOST_EXPORTED: Final = 100_000
"""No file has more records; ``broker audit export`` has no such limit."""

_AT_ONCE: Final = 500
_YEAR: Final = timedelta(days=365)


class Exporting:
    """A file under way: what was asked for, in which form."""

    def __init__(self, desk: Desk, query: Query, form: Format) -> None:
        self._reader = desk.reader
        self._query = query
        self._form = form
        self._pieces = self._made()
        self.count = 0
        """How many records are in what was made until now."""
        self.expected = 0
        """How many there will be in all, as the index counts them."""

    def first_piece(self) -> bytes:
        """The first piece; afterwards ``expected`` is known."""
        piece = self.next_piece()
        self.expected = self.count
        if self.count >= _AT_ONCE - 1:
            buckets = self._reader.buckets(self._query, width=_YEAR)
            counted = sum(one.permitted + one.denied + one.informed for one in buckets)
            self.expected = min(MOST_EXPORTED, max(self.count, counted))
        return piece

    def next_piece(self) -> bytes:
        """
        The next piece of the file, which is empty after the last.

        An error in the middle has to go on to the server, which breaks the answer off: a file that is not
        whole must not look so.
        """
        return b"".join(islice(self._pieces, _AT_ONCE))

    def _made(self) -> Iterator[bytes]:
        if self._form.head:
            yield self._form.head
        for found in self._records():
            yield self._form.row(found.record, found.line)

    def _records(self) -> Iterator[Found]:
        cursor = ""
        while self.count < MOST_EXPORTED:
            limit = min(_AT_ONCE, MOST_EXPORTED - self.count)
            page = self._reader.find(self._query, limit=limit, cursor=cursor)
            if page.changed:
                raise OSError(errno.EBADMSG, page.changed[0])
            for found in page.found:
                self.count += 1
                yield found
            cursor = page.next_cursor
            if not cursor:
                return
