"""Lines that are added to a file and are on disk when that returns."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from broker.audit.segments import sync_directory

_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK: Final = 256 * 1024
_log = structlog.get_logger("broker.audit")


def append_line(path: Path, line: bytes) -> int:
    """
    Add a line, with its end, after the last whole one; returns the size of the file then.

    What a crash has left of a line is cut off before, with a word in the log. Raises ``OSError`` when the
    line could not be kept: then it is not there, or what is left of it has no end, as far as the disk lets
    that be told.
    """
    descriptor = os.open(path, _FLAGS, 0o600)
    try:
        size = _cut_off_torn(descriptor, path)
        _write(descriptor, line, size)
    finally:
        os.close(descriptor)
    if size == 0:
        sync_directory(path.parent)
    return size + len(line)


def _write(descriptor: int, line: bytes, size: int) -> None:
    try:
        written = os.write(descriptor, line)
        while written < len(line):
            written += os.write(descriptor, line[written:])
        os.fdatasync(descriptor)
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, size)
            os.fdatasync(descriptor)
        raise


def _cut_off_torn(descriptor: int, path: Path) -> int:
    """Cut off a last line that has no end; returns the size that is left."""
    size = os.fstat(descriptor).st_size
    start = max(size - _BLOCK, 0)
    data = os.pread(descriptor, size - start, start)
    whole = start + data.rfind(b"\n") + 1
    if whole == size or (start and b"\n" not in data):
        return size
    os.ftruncate(descriptor, whole)
    os.fdatasync(descriptor)
    _log.warning("audit_line_cut_off", file=path.name, byte=whole, length=size - whole)
    return whole
