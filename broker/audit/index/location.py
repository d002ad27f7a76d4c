"""Where the index of an audit directory lies, and who may write it."""

import errno
import fcntl
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from broker.audit.segments import regular

INDEX: Final = "index.sqlite"
"""The name of the file."""

_LOG_ID: Final = re.compile(r"[0-9a-f]{16}", re.ASCII)
_AGAIN: Final = 0.02


class Busy(OSError):
    """Another process fills the index."""


def log_name(directory: Path) -> str:
    """The id of the log in a directory; nothing where it has none yet."""
    try:
        with open(directory / "log.id", "rb", opener=regular) as file:
            told = file.read(64).decode("ascii", "replace").strip()
    except OSError:
        return ""
    return told if _LOG_ID.fullmatch(told) else ""


def index_path(directory: Path, *, cache: Path | None = None) -> Path:
    """
    Where the index of a directory is or will be: in it, or in the cache of whoever may not write there.

    An index that somebody else has made is not believed either: it might leave something out.
    Raises ``OSError`` when there is no place for it.
    """
    there = directory / INDEX
    directory.stat()
    if os.access(directory, os.W_OK | os.X_OK) and _is_ours(there):
        return there
    private = cache if cache is not None else _cache()
    absolute = str(directory.resolve()).encode("utf-8", "surrogateescape")
    name = hashlib.sha256(absolute + b"\0" + log_name(directory).encode()).hexdigest()[:32]
    private.mkdir(mode=0o700, parents=True, exist_ok=True)
    return private / f"{name}.sqlite"


def _is_ours(path: Path) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return True
    # The superuser follows no link that somebody else has laid.
    return stat.S_ISREG(status.st_mode) and os.geteuid() in (status.st_uid, 0)


def _cache() -> Path:
    told = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(told) if told and Path(told).is_absolute() else Path.home() / ".cache"
    return base / "broker" / "audit-index"


@contextmanager
def sole_writer(path: Path, *, patience: float) -> Iterator[None]:
    """
    The right to fill the index, or to throw it away; of one thread of one process at a time.

    Waits for at most ``patience`` seconds, then raises ``Busy``. Ends with its process, however that ends.
    """
    # The name ends in nothing by which the audit directory knows a writer of records.
    descriptor = made_private(path.with_name(f"{path.name}-guard"))
    try:
        _hold(descriptor, until=time.monotonic() + patience)
        yield
    finally:
        os.close(descriptor)


def made_private(path: Path, *, is_new: bool = False) -> int:
    """
    A file that its owner alone can read and write, open; the descriptor is the caller's to close.

    What the superuser makes in the directory of somebody else is of that one, who has to use it later.
    ``is_new`` refuses one that is there. Raises ``OSError``.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_EXCL if is_new else 0)
    descriptor = os.open(path, flags, 0o600)
    place = path.parent.stat()
    if os.geteuid() == 0 and os.fstat(descriptor).st_uid != place.st_uid:
        os.fchown(descriptor, place.st_uid, place.st_gid)
    return descriptor


def _hold(descriptor: int, *, until: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise Busy(errno.EBUSY, "another process fills the index") from None
            time.sleep(_AGAIN)
        else:
            return
