"""Waiting for records: what came since it was asked last, each once."""

from collections.abc import Sequence

from broker.audit.query import MOST_ROWS, AuditReader, Found, Query, onward


class Tail:
    """
    The records that meet a query and come after a moment, in the order in which they came.

    Begins at what is newest now, or at ``cursor``. For one thread.
    """

    def __init__(self, reader: AuditReader, query: Query, *, cursor: str = "") -> None:
        self.cursor = cursor or reader.latest()
        self._reader = reader
        self._query = query

    def more(self, *, limit: int = 100) -> Sequence[Found]:
        """What has come, the oldest first, at most ``limit``; nothing when that is all."""
        # Asked for first, so that what comes in between is looked at again and not passed over.
        latest = self._reader.latest()
        found = self._reader.newer(self._query, than=self.cursor, limit=min(limit, MOST_ROWS))
        self.cursor = found[-1].cursor if found else onward(self.cursor, latest)
        return found
