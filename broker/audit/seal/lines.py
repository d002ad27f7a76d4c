"""Lines that are added to a file and are on disk when that returns."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import structlog

from broker.audit.segments import sync_directory

_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK: Final = 256 * 1024
_NEAR: Final = 64 * 1024
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


def first_line(file: BinaryIO, end: int, is_there: Callable[[bytes], bool]) -> tuple[int, bytes]:
    """
    The first line of a file for which something is so that is so for all lines after it as well.

    Where it begins, and the line with its end; the end of the file and nothing where there is none. Reads
    few lines, however many there are. ``end`` is that of the last line.
    """
    low, high = 0, end
    while high - low > _NEAR:
        middle = (low + high) // 2
        file.seek(middle)
        start = middle + len(file.readline())
        line = file.readline() if start < high else b""
        if not line or is_there(line):
            high = min(middle, start)
        else:
            low = start + len(line)
    file.seek(low)
    while low < end and (line := file.readline()):
        if is_there(line):
            return low, line
        low += len(line)
    return end, b""


def end_of_whole(data: bytes) -> int:
    """
    Where the last whole line ends.

    Space that was allotted but not written before a power cut reads as zero bytes, which no line has.
    """
    end = data.rfind(b"\n") + 1
    start = data.rfind(b"\n", 0, max(end - 1, 0)) + 1
    return start if b"\0" in data[start:end] else end


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
    whole = start + end_of_whole(data)
    if whole == size or (start and b"\n" not in data):
        return size
    os.ftruncate(descriptor, whole)
    os.fdatasync(descriptor)
    _log.warning("audit_line_cut_off", file=path.name, byte=whole, length=size - whole)
    return whole
