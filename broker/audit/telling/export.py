"""Records handed over as a file, in constant memory, with a manifest that says what is in it."""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from broker.audit.chain import MAX_LINE_BYTES, line_hash
from broker.audit.notes import LARGEST_NOTE, NoteKey, NoteRefused
from broker.audit.query import MOST_ROWS, AuditReader, Found, Query
from broker.audit.segments import regular, sync_directory
from broker.audit.telling.formats import FORMATS, Format
from broker.audit.telling.manifest import Manifest, ManifestRefused, Mark, opened

MANIFEST: Final = ".manifest"
"""What the name of a manifest has more than that of its file."""

_BLOCK: Final = 1024 * 1024


class ExportRefused(Exception):
    """An export cannot be written, or is not what its manifest says; the sentence tells which."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: how many records, those at both ends, and the size and the hash of it all."""

    count: int
    first: Mark | None
    last: Mark | None
    size: int
    sha256: str


class Tally:
    """Counts what is given, for a manifest, while it is given: ``count`` records, ``size`` bytes."""

    def __init__(self) -> None:
        self.size = 0
        self.count = 0
        self._digest = hashlib.sha256()
        self._first: Mark | None = None
        self._last: Mark | None = None

    def add(self, data: bytes, found: Found | None = None) -> bytes:
        """The same data, counted; with the record that it is, unless it is the head of a format."""
        self._digest.update(data)
        self.size += len(data)
        if found is not None:
            self.count += 1
            self._last = Mark(found.record.writer, found.record.seq, line_hash(found.line))
            self._first = self._first or self._last
        return data

    @property
    def exported(self) -> Exported:
        """What was given until now."""
        digest = self._digest.hexdigest()
        return Exported(self.count, self._first, self._last, self.size, digest)


def stream(
    reader: AuditReader, query: Query, chosen: Format, tally: Tally | None = None
) -> Iterator[bytes]:
    """
    All records that meet the query in a format, the newest first, a page of them at a time.

    What comes to the record after the first page is not among them. Raises as ``AuditReader`` does.
    """
    tally = tally or Tally()
    if chosen.head:
        yield tally.add(chosen.head)
    for page in _pages(reader, query):
        for found in page:
            yield tally.add(chosen.row(found.record, found.line), found)


def _pages(reader: AuditReader, query: Query) -> Iterator[Sequence[Found]]:
    page = reader.find(query, limit=MOST_ROWS)
    yield page.found
    while page.next_cursor:
        page = reader.find(query, limit=MOST_ROWS, cursor=page.next_cursor)
        yield page.found


def write_export(
    reader: AuditReader,
    query: Query,
    chosen: Format,
    *,
    to: Path,
    manifest: Callable[[Exported], str],
) -> Exported:
    """
    Write the records to a file that is not there yet, and beside it what ``manifest`` says of it.

    Both are for their owner alone. The manifest comes last, so that no file has one that is not whole.
    Raises ``ExportRefused`` where there is such a file already or it cannot be written, and as
    ``AuditReader`` does.
    """
    beside = to.with_name(to.name + MANIFEST)
    for place in (to, beside):
        if place.exists() or place.is_symlink():
            raise ExportRefused(f"{place} is there already")
    tally = Tally()
    with _new_file(to) as file:
        for data in stream(reader, query, chosen, tally):
            file.write(data)
    try:
        with _new_file(beside) as file:
            file.write(manifest(tally.exported).encode())
    except BaseException:
        # A file without a manifest would look like an export that somebody took it away from.
        to.unlink(missing_ok=True)
        raise
    return tally.exported


class _new_file:  # noqa: N801 - it is used as a function would be
    """A file that appears under its name when it is whole and on disk, and never in place of another."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")

    def __enter__(self) -> Self:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._telling():
            self._file = os.fdopen(os.open(self._draft, flags, 0o600), "wb", buffering=_BLOCK)
        return self

    def write(self, data: bytes) -> None:
        with self._telling():
            self._file.write(data)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._telling(), self._file:
                if kind is None:
                    self._file.flush()
                    os.fsync(self._file.fileno())
            if kind is None:
                self._keep()
        finally:
            with suppress(OSError):
                self._draft.unlink()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """What cannot be written is told by its name, and not taken for what cannot be read."""
        try:
            yield
        except OSError as error:
            raise ExportRefused(f"{self._path} cannot be written: {error.strerror}") from None

    def _keep(self) -> None:
        try:
            # A link, unlike a rename, never replaces what somebody else has put there.
            os.link(self._draft, self._path)
        except FileExistsError:
            raise ExportRefused(f"{self._path} is there already") from None
        with self._telling():
            sync_directory(self._path.parent)


def check_export(manifest: Path, keys: Sequence[NoteKey]) -> Manifest:
    """
    What an export is, once its manifest is signed by one of the keys and the file beside it is that one.

    Raises ``ExportRefused`` and ``OSError``.
    """
    with open(manifest, "rb", opener=regular) as file:
        note = file.read(LARGEST_NOTE + 1)
    try:
        told = opened(note.decode(), keys)
    except (NoteRefused, ManifestRefused, UnicodeDecodeError) as error:
        raise ExportRefused(f"{manifest.name}: {error}") from None
    chosen = FORMATS.get(told.format)
    if chosen is None:
        raise ExportRefused(f"{manifest.name}: no format is named {told.format}")
    _check_file(manifest.with_name(told.file), told, chosen)
    return told


def _check_file(path: Path, told: Manifest, chosen: Format) -> None:
    digest, size, lines = hashlib.sha256(), 0, 0
    with open(path, "rb", opener=regular) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
            lines += block.count(b"\n")
    records = lines - chosen.head.count(b"\n")
    if size != told.size:
        raise ExportRefused(f"{path.name} has {size} bytes, and its manifest says {told.size}")
    if digest.hexdigest() != told.sha256:
        raise ExportRefused(f"{path.name} is not as it was written: its SHA-256 is another")
    if records != told.count:
        raise ExportRefused(
            f"{path.name} has {records} records, and its manifest says {told.count}"
        )
    if chosen.name == "ndjson" and told.first is not None:
        _check_first(path, told.first)


def _check_first(path: Path, first: Mark) -> None:
    with open(path, "rb", opener=regular) as file:
        line = file.readline(MAX_LINE_BYTES)
    if line_hash(line.removesuffix(b"\n")) != first.hash:
        raise ExportRefused(
            f"{path.name}: its first line is not the record that its manifest names"
        )
