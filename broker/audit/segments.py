"""The files of a chain: their names, their lock, writing to one and finding where one ends."""

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self

from broker.audit.chain import Head, decode_link, line_hash

WRITER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
"""What a writer may be named."""
_SEGMENT: Final = re.compile(rf"({WRITER.pattern})\.([0-9]{{6}}|[1-9][0-9]{{6,}})\.jsonl", re.ASCII)
# A link in its place would lock, or make, a file of somebody else's choice.
_TO_LOCK: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
# More than the longest batch that a crash can have left half on disk.
_TAIL: Final = 4 * 1024 * 1024
_CHUNK_BYTES: Final = 1024 * 1024


class AuditLogRefused(Exception):
    """The audit log cannot be opened as it is; the sentence tells the operator why."""


class WriterBusy(AuditLogRefused):
    """Another process writes this chain."""


def segment_name(writer: str, number: int) -> str:
    """The file name of a writer's segment; the first has number 1."""
    return f"{writer}.{number:06d}.jsonl"


def writer_of(name: str) -> str:
    """The writer whose segment has this file name, or nothing where it is not the name of one."""
    named = _SEGMENT.fullmatch(name)
    return "" if named is None else named[1]


def find_segments(directory: Path) -> dict[str, dict[int, Path]]:
    """
    All segments in a directory by writer and number, each in order.

    Only regular files count: whoever reads a pipe waits for ever, and a link leads anywhere.
    """
    found: dict[str, dict[int, Path]] = {}
    with os.scandir(directory) as entries:
        for entry in entries:
            named = _SEGMENT.fullmatch(entry.name)
            if named is not None and entry.is_file(follow_symlinks=False):
                found.setdefault(named[1], {})[int(named[2])] = directory / entry.name
    return {writer: dict(sorted(found[writer].items())) for writer in sorted(found)}


def regular(path: str, flags: int) -> int:
    """
    An opener for ``open`` that waits for nobody, and gives regular files alone.

    Raises ``OSError``.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is no regular file", path)


def newlines(file: BinaryIO, start: int, end: int) -> int:
    """How many lines end between two bytes of a file, which may be large."""
    file.seek(start)
    found = 0
    while start < end and (chunk := file.read(min(_CHUNK_BYTES, end - start))):
        found += chunk.count(b"\n")
        start += len(chunk)
    return found


def find_locks(directory: Path) -> Iterator[tuple[str, Path]]:
    """The writers that ever held a lock in a directory, and the lock files."""
    for path in directory.glob("*.lock"):
        if WRITER.fullmatch(path.stem) is not None:
            yield path.stem, path


def prepare_directory(directory: Path) -> None:
    """
    Make the directory, for its owner alone, where it is missing.

    Raises ``AuditLogRefused`` when it belongs to another user or others may write to it.
    """
    if not directory.is_dir():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_directory(directory.parent)
    status = directory.stat()
    if status.st_uid != os.geteuid():
        raise AuditLogRefused(f"{directory} belongs to another user")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise AuditLogRefused(f"{directory} can be written by others; it must be its owner's alone")


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class WriterLock:
    """
    The right to write one chain: a lock on a file, held by one open description in one process.

    It goes when the process goes, however that happens.
    """

    def __init__(self, directory: Path, *, writer: str) -> None:
        if WRITER.fullmatch(writer) is None:
            raise AuditLogRefused(
                f"{writer!r} cannot name an audit writer: use letters, digits, - and _"
            )
        self._path = directory / f"{writer}.lock"
        self._descriptor = -1

    def hold(self) -> None:
        """
        Take the lock, or make sure that it is still held on the file that others would try.

        Raises ``AuditLogRefused`` when another process has it, ``OSError`` when it cannot be tried.
        """
        if self._descriptor >= 0 and is_same_file(self._descriptor, self._path):
            return
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise WriterBusy(
                f"another process holds {self._path}: every process needs a writer id of its own"
            ) from None
        self.release()
        self._descriptor = descriptor

    def _open(self) -> int:
        try:
            return os.open(self._path, _TO_LOCK, 0o600)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise AuditLogRefused(f"{self._path} is a symbolic link") from None
            raise

    def release(self) -> None:
        """Let go of the lock, where it is held."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class SegmentFile:
    """
    A segment being written.

    ``size`` counts the bytes that are on disk and belong to the chain, ``loose_bytes`` those after
    them that a failed write has left and the disk would not let go.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.size = 0
        self.loose_bytes = 0
        self._path = path
        self._descriptor = descriptor
        self._status = os.fstat(descriptor)

    @classmethod
    def create(cls, path: Path) -> Self:
        """A new file that only its owner can read."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        return cls(path, os.open(path, flags, 0o600))

    def append(self, data: bytes) -> None:
        """
        Write and sync; on return the data is on disk, at the end of the file of this name.

        On ``OSError`` what was written is cut off again, as far as the disk allows. Nothing may be
        added to the file any more: after a failed sync nobody knows what it holds.
        """
        written = 0
        try:
            written = os.write(self._descriptor, data)
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
            os.fdatasync(self._descriptor)
            self._check_place(self.size + len(data))
        except OSError:
            self._cut_off(written)
            raise
        self.size += written

    def discard(self) -> None:
        """Close a file of which nothing is kept, and remove it."""
        self.close()
        with suppress(OSError):
            self._path.unlink()

    def close(self) -> None:
        """Close the file; what belongs to the chain is already on disk."""
        os.close(self._descriptor)

    def _cut_off(self, written: int) -> None:
        length = os.fstat(self._descriptor).st_size
        with suppress(OSError):
            os.ftruncate(self._descriptor, min(self.size, length - written))
            os.fdatasync(self._descriptor)
        self.loose_bytes = max(os.fstat(self._descriptor).st_size - self.size, 0)

    def _check_place(self, size: int) -> None:
        """A file that was removed, renamed, replaced or cut underneath is no witness."""
        there = self._path.stat()
        if there.st_ino != self._status.st_ino or there.st_dev != self._status.st_dev:
            raise FileNotFoundError(errno.ENOENT, "moved away by somebody else", str(self._path))
        if there.st_size != size:
            raise OSError(errno.ESTALE, "changed by somebody else", str(self._path))


@dataclass(frozen=True, slots=True)
class Tail:
    """Where a chain on disk ends, and how many bytes after that are an unfinished line."""

    head: Head
    torn_bytes: int = 0


def read_tail(segments: dict[int, Path]) -> Tail:
    """
    Where the chain in these segments goes on; what it is read from is made durable first.

    Raises ``AuditLogRefused`` when the last line is no record.
    """
    for path in reversed(segments.values()):
        with open(path, "rb", opener=regular) as file:
            os.fsync(file.fileno())
            size = os.fstat(file.fileno()).st_size
            start = max(size - _TAIL, 0)
            end, line = _last_line(os.pread(file.fileno(), size - start, start))
        if line or start:
            return Tail(_head_after(line, path), size - start - end)
    return Tail(Head())


def is_same_file(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that the path names."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def _last_line(data: bytes) -> tuple[int, bytes]:
    """
    Where the last whole line ends, and the line; zero and nothing where there is none.

    Space that was allotted but not written before a power cut reads as zero bytes, which no line
    contains: what follows them is not whole either.
    """
    hole = data.find(0)
    end = data.rfind(b"\n", 0, len(data) if hole < 0 else hole) + 1
    return (end, data[data.rfind(b"\n", 0, end - 1) + 1 : end - 1]) if end else (0, b"")


def _head_after(line: bytes, path: Path) -> Head:
    link = decode_link(line)
    if link is None:
        raise AuditLogRefused(
            f"the last line of {path} is no audit record; verify the log, then move it away"
        )
    return Head(link.seq + 1, line_hash(line))
