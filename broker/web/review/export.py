"""Records to take away: an archive with a file of them and its signed manifest, made while it is read."""

import errno
import io
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import IO, Final

from broker.audit.query import Found, Query
from broker.audit.record import rfc3339
from broker.audit.telling.export import MANIFEST, Tally
from broker.audit.telling.formats import Format
from broker.audit.telling.handover import Terms
from broker.audit.telling.manifest import Manifest, query_text
from broker.web.review.desk import Desk

MOST_EXPORTED: Final = 100_000
"""No file has more records; ``broker audit export`` has no such limit."""

MOST_BYTES: Final = 1024**3
"""No file goes on after so many bytes."""

LONGEST: Final = 600.0
"""No file goes on after so many seconds."""

LAG: Final = 2.0
"""How long is waited for the index to know what was sealed, in seconds; it looks every second."""

_AT_ONCE: Final = 100
_SOON: Final = 0.1
_YEAR: Final = timedelta(days=365)
_OLDER: Final = "older records"
"""Under this name a manifest tells that they are left out; no writer and no file is called so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """
    Where a file ends although there are older records: so many of them, bytes and seconds.

    ``lag`` is for how many seconds it waits for the index to know what was sealed.
    """

    records: int = MOST_EXPORTED
    size: int = MOST_BYTES
    seconds: float = LONGEST
    lag: float = LAG


class Exporting:
    """
    An archive under way: what was asked for, in which form, and by whom.

    It holds the file ``NAME.SUFFIX``, the manifest of exactly its bytes beside it, and nothing else. Each
    piece is made in a thread, and each but the last reads; whoever streams them asks for the first, for the
    next ones until ``is_read``, and then for the last unless ``is_whole``. An error has to go on to the
    server, which breaks the answer off: the directory of an archive stands at its end, so no part of one
    looks whole.
    """

    def __init__(
        self,
        desk: Desk,
        query: Query,
        form: Format,
        *,
        by: str,
        bounds: Bounds | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader = desk.reader
        self._handover = desk.handover
        self._query = query
        self._form = form
        self._by = by
        self._bounds = bounds or Bounds()
        self._monotonic = monotonic
        self._until = monotonic() + self._bounds.seconds
        now = desk.clock()
        self._time = rfc3339(now)
        self._archive = _Archive(now)
        self.name = f"audit-{self._time[:19].replace(':', '')}Z"
        """What the archive and the file in it are called, without what tells their kinds."""
        self._tally = Tally()
        self._cut = ""
        self._terms: Terms | None = None
        self._unknown: Mapping[str, str] = {}
        self._made = self._rows()
        self.is_read = False
        """Whether every record is in what was made until now."""
        self.is_whole = False
        """Whether that is all."""
        self.expected = 0
        """How many records there will be in all, as the index counts them."""

    def first_piece(self) -> bytes:
        """
        The first piece, which is the whole of a small archive; afterwards ``expected`` is known.

        Raises ``NotSigned`` before anything was read when nobody could sign in the end.
        """
        self._terms = self._handover.signing_terms()
        self._unknown = self._unknown_before(self._terms)
        self._archive.open(self._file_name)
        piece = self.next_piece()
        self.expected = self._tally.count
        if self.is_read:
            return piece + self.last_piece()
        buckets = self._reader.buckets(self._query, width=_YEAR)
        counted = sum(one.permitted + one.denied + one.informed for one in buckets)
        self.expected = min(self._bounds.records, max(self._tally.count, counted))
        return piece

    def next_piece(self) -> bytes:
        """The next piece of the file; it may be empty though there are more."""
        made = 0
        for row in islice(self._made, _AT_ONCE):
            self._archive.write(row)
            made += 1
        self.is_read = made < _AT_ONCE
        return self._archive.taken()

    def last_piece(self) -> bytes:
        """The signed manifest and the end of the archive. Raises ``NotSigned``."""
        if self._terms is None:
            raise ValueError("nothing was begun")
        note = self._handover.signed_manifest(self._manifest(self._terms), self._terms)
        self._archive.open(self._file_name + MANIFEST)
        self._archive.write(note.encode())
        self._archive.close()
        self.is_whole = True
        return self._archive.taken()

    @property
    def _file_name(self) -> str:
        return f"{self.name}.{self._form.suffix}"

    def _manifest(self, terms: Terms) -> Manifest:
        given = self._tally.exported
        # What was not known when the newest records were read is not in the file, though it may be known now.
        unread = {**self._unknown, **self._reader.extent().faults}
        if self._cut:
            unread[_OLDER] = self._cut
        return Manifest(
            origin=terms.key.name,
            format=self._form.name,
            query=query_text(self._query),
            count=given.count,
            first=given.first,
            last=given.last,
            file=self._file_name,
            size=given.size,
            sha256=given.sha256,
            checkpoint=terms.checkpoint,
            unread=unread,
            time=self._time,
            by=self._by,
        )

    def _unknown_before(self, terms: Terms) -> Mapping[str, str]:
        """What keeps the index from knowing all that was sealed before the first record is read."""
        sealed = 0 if terms.checkpoint is None else terms.checkpoint.size
        until = self._monotonic() + self._bounds.lag
        extent = self._reader.extent()
        while extent.records < sealed and not extent.faults and self._monotonic() < until:
            time.sleep(_SOON)
            extent = self._reader.extent()
        if extent.records >= sealed or extent.faults:
            return dict(extent.faults)
        return {"index": f"it knows {extent.records:,} records, and {sealed:,} were sealed"}

    def _rows(self) -> Iterator[bytes]:
        if self._form.head:
            yield self._tally.add(self._form.head)
        for found in self._records():
            yield self._tally.add(self._form.row(found.record, found.line), found)

    def _records(self) -> Iterator[Found]:
        cursor = ""
        while not self._cut:
            page = self._reader.find(self._query, limit=_AT_ONCE, cursor=cursor)
            if page.changed:
                raise OSError(errno.EBADMSG, page.changed[0])
            for found in page.found:
                self._cut = self._reached()
                if self._cut:
                    return
                yield found
            cursor = page.next_cursor
            if not cursor:
                return

    def _reached(self) -> str:
        """Which bound keeps one more record from being in the file, as a sentence for the manifest."""
        bounds, given, told = self._bounds, self._tally, ""
        if given.count >= bounds.records:
            told = f"{bounds.records:,} records"
        elif given.size >= bounds.size:
            told = f"{bounds.size:,} bytes"
        elif self._monotonic() >= self._until:
            told = f"{bounds.seconds:.0f} seconds"
        return told and f"a download from the pages ends after {told}, and there are older records"


class _Archive:
    """A ZIP archive that is taken away while it grows, so that little of it is ever in memory."""

    def __init__(self, moment: float) -> None:
        self._sink = _Sink()
        self._archive = _ZipFile(self._sink, "w", zipfile.ZIP_DEFLATED)
        self._time = datetime.fromtimestamp(moment, UTC)
        self._member: IO[bytes] | None = None

    def open(self, name: str) -> None:
        """Go on with a member of this name."""
        self._end_member()
        told = zipfile.ZipInfo(name, self._time.timetuple()[:6])
        told.compress_type = zipfile.ZIP_DEFLATED
        # Whoever unpacks it is the one person who may read it.
        told.external_attr = 0o600 << 16
        self._member = self._archive.open(told, "w")

    def write(self, data: bytes) -> None:
        """More of the member."""
        if self._member is not None:
            self._member.write(data)

    def close(self) -> None:
        """End it; only now can it be opened."""
        self._end_member()
        self._archive.close()

    def taken(self) -> bytes:
        """What came since this was asked for last."""
        return self._sink.taken()

    def _end_member(self) -> None:
        if self._member is not None:
            self._member.close()
            self._member = None


class _ZipFile(zipfile.ZipFile):
    """An archive that gets no end unless it is closed: one that was given up is not to look whole."""

    def __del__(self) -> None:
        """Nothing; closing it here would also fail for a member that is still open."""


class _Sink(io.RawIOBase):
    """Where bytes wait that nobody has taken yet. It cannot seek, so an archive is written straight on."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview", /) -> int:  # type: ignore[override] # What an archive writes.
        self._waiting += data
        return len(data)

    def taken(self) -> bytes:
        """All of them, once."""
        waiting = bytes(self._waiting)
        self._waiting.clear()
        return waiting
