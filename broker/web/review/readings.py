"""What auditors look at is itself on record: who asked what, and how much they were shown."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from starlette.requests import Request

from broker.endpoints.allowances import LocalAllowances
from broker.endpoints.limits import source_of
from broker.endpoints.purses import Purses
from broker.errors import RateLimited, Reason
from broker.interfaces import AuditEntry, AuditLog
from broker.model import Quota, RequestContext, new_request_id
from broker.web.review.guard import session_of

_READINGS: Final = Quota(rate=10.0, burst=60)


class Readings:
    """
    Records what auditors read on the pages, and keeps each to ten questions a second.

    A live view counts once, when it is opened.
    """

    def __init__(self, audit: AuditLog, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._audit = audit
        self._purses = Purses(LocalAllowances(now=monotonic), monotonic=monotonic)

    @contextmanager
    def reading(
        self, request: Request, asked: str, *, people: Sequence[str] = ()
    ) -> Iterator[AuditEntry]:
        """
        The record of a question, open while it is answered; note in it how much was ``found``.

        ``asked`` says what is asked for, without the ``people`` asked about, who have a member of their own.
        The answer may leave only once the block has been left, which waits for the disk: use it in a thread.
        Raises ``RateLimited`` (``client_limit``), without a record, for more than an auditor may ask, and
        ``TemporarilyUnavailable`` (``audit_unavailable``) when it cannot be recorded.
        """
        session = session_of(request)
        wait = self._purses.take(f"auditor {session.key}", _READINGS)
        if wait > 0:
            raise RateLimited(Reason.CLIENT_LIMIT, retry_after=max(1, round(wait)))
        peer = request.client.host if request.client is not None else ""
        context = RequestContext("admin", new_request_id(), peer, source=source_of(peer))
        with self._audit.entry("audit.read", context) as entry:
            entry.note(
                auditor=session.auditor.name,
                auth_method=session.auditor.how,
                asked=asked,
                people_asked=tuple(people) or None,
            )
            yield entry

    def close(self) -> None:
        """Give back what limits hold."""
        self._purses.close()
