"""Files on their way to an auditor: few at once, each for a limited time, and none that only looks whole."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from broker.web.review.desk import Desk, Look, TooBusy
from broker.web.review.export import LONGEST, Exporting

DOWNLOADS: Final = 8
"""No more files are on their way at once."""

_GRACE: Final = 60.0
"""How long the end of a file may take whose time is over, in seconds."""


_log = structlog.get_logger("broker.web")


class SessionOver(Exception):
    """Whoever asked is not logged in any more."""


def as_file(name: str) -> Mapping[str, str]:
    """The header that has a browser keep an answer as a file of this name."""
    return {"Content-Disposition": f'attachment; filename="{name}"'}


class Downloads:
    """The files that are on their way. ``longest`` is in seconds, and for all of an answer."""

    def __init__(self, *, most: int = DOWNLOADS, longest: float = LONGEST + _GRACE) -> None:
        self._most = most
        self._longest = longest
        self._open = 0
        self._begun = 0

    async def answer(
        self, request: Request, desk: Desk, look: Look, exporting: Exporting
    ) -> Response:
        """
        The archive, which is on record before its first byte leaves.

        An error in the first piece is still told by a page of its own. One that comes later, the end of the
        session and of the time have the server break the answer off.
        """
        if self._open + self._begun >= self._most:
            raise TooBusy("Too many files are on their way.")
        # The first piece may take a while, and whoever waits for one has a place already.
        self._begun += 1
        try:
            first = await desk.show(
                request,
                look,
                exporting.first_piece,
                size=lambda _: exporting.expected,
                is_signed=True,
            )
        finally:
            self._begun -= 1

        async def whole() -> AsyncIterator[bytes]:
            piece = first
            while True:
                if not desk.may_still_look(request):
                    raise SessionOver
                yield piece
                if exporting.is_whole:
                    return
                with _told_if_broken_off(exporting.name):
                    if exporting.is_read:
                        piece = await desk.ask_signer(exporting.last_piece)
                    else:
                        piece = await desk.ask(exporting.next_piece)

        return _Download(whole(), as_file(f"{exporting.name}.zip"), self)

    @asynccontextmanager
    async def under_way(self) -> AsyncIterator[None]:
        """One more is on its way until the end of the block, which comes in time."""
        self._open += 1
        try:
            async with asyncio.timeout(self._longest):
                yield
        finally:
            self._open -= 1


@contextmanager
def _told_if_broken_off(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as problem:
        # Whoever reads the answer sees only that it ended.
        reason = f"{type(problem).__name__}: {problem}"
        _log.error("audit_download_broken_off", download=name, reason=reason)
        raise


class _Download(StreamingResponse):
    """An archive that is counted while it is sent."""

    def __init__(
        self, pieces: AsyncIterator[bytes], headers: Mapping[str, str], downloads: Downloads
    ) -> None:
        super().__init__(pieces, media_type="application/zip", headers=headers)
        self._downloads = downloads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._downloads.under_way():
            await super().__call__(scope, receive, send)
