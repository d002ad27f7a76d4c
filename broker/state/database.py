"""The SQLite file behind the state: made once, checked at every start, opened without surprises."""

import fcntl
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from broker.state.entries import LAST_SECOND
from broker.state.withdrawn import Mark

DEFAULT_MAX_BYTES: Final = 1024**3

# "dbrk", so that the file of another program is never taken for ours.
_APPLICATION_ID: Final = 0x6462726B
_FIRST_SCHEMA: Final = """
    CREATE TABLE spent (key BLOB PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE INDEX spent_until ON spent (until);
    CREATE TABLE revoked (key BLOB PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE INDEX revoked_until ON revoked (until);
    CREATE TABLE forgotten (name TEXT PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO forgotten VALUES ('spent', -1), ('revoked', -1);
"""
# What was withdrawn before this, was withdrawn whenever it was issued.
_ISSUED_FROM_TO: Final = f"""
    ALTER TABLE revoked ADD COLUMN issued_since INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE revoked ADD COLUMN issued_until INTEGER NOT NULL DEFAULT {LAST_SECOND};
"""
# A broker of the version before knows no numbers. What it withdrew would be missing from every copy, so it
# is told that it cannot.
_NUMBERED: Final = """
    ALTER TABLE revoked ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
    UPDATE revoked SET number = 1;
    CREATE INDEX revoked_number ON revoked (number);
    CREATE TABLE numbering (last INTEGER NOT NULL) STRICT;
    INSERT INTO numbering VALUES (1);
    CREATE TRIGGER revoked_without_number BEFORE INSERT ON revoked WHEN new.number = 0
        BEGIN SELECT RAISE(ABORT, 'a revocation without a number'); END;
"""
# A broker of the version before does not set the mark by which others learn of a withdrawal, so it is told
# that it cannot withdraw: it knows the table by another name.
_MARKED: Final = "ALTER TABLE numbering RENAME TO withdrawals;"
_VERSIONS: Final = (_FIRST_SCHEMA, _ISSUED_FROM_TO, _NUMBERED, _MARKED)
"""What each version adds to the one before it; a new file goes through them all."""

_PAGE_BYTES: Final = 4096
_SIDE_FILES: Final = ("-journal", "-wal", "-shm")
# How long a start waits for another process that is starting, in seconds.
_START_TIMEOUT: Final = 5.0


class StateRefused(Exception):
    """The state file cannot be used as it is; the sentence tells the operator why."""


class FileReplaced(sqlite3.OperationalError):
    """The file was removed or replaced after it was opened: what it remembered is not there."""


@dataclass(frozen=True, slots=True)
class Database:
    """
    A state file that has been found sound.

    ``device`` and ``inode`` identify it, so that it is noticed when another file takes its place.
    ``busy_timeout`` is in seconds.
    """

    path: Path
    device: int
    inode: int
    busy_timeout: float
    max_bytes: int
    _place: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_place", str(self.path))

    def connect(self) -> sqlite3.Connection:
        """
        A connection for one process; its user sees to it that one thread at a time uses it.

        A commit is on disk when it returns: in WAL mode that takes ``synchronous=FULL``, since
        with ``NORMAL`` the last commits are lost with the power.
        """
        self.check_place()
        connection = _connect(self.path, timeout=self.busy_timeout)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA max_page_count = {self.max_bytes // _PAGE_BYTES}")
        return connection

    def check_place(self) -> None:
        """Raise ``FileReplaced`` when the path no longer names the file that was checked."""
        try:
            found = os.stat(self._place)  # noqa: PTH116 - a Path takes several times as long.
        except OSError:
            raise FileReplaced("the state file is gone") from None
        if found.st_ino != self.inode or found.st_dev != self.device:
            raise FileReplaced("the state file was replaced")


def open_database(path: Path, *, busy_timeout: float, max_bytes: int) -> Database:
    """
    Make the state file where there is none, and check the one that is there.

    Several processes may do so at once. No connection stays open, so that the process may still
    fork. Raises ``StateRefused`` when the file or its directory is not this user's alone to write, or
    the file is not sound: a damaged file is never replaced, since an empty one would accept
    again whatever the old one had seen.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner_and_mode(path.parent.stat(), path.parent)
        with _alone(path.with_name(path.name + ".lock")):
            if not path.exists():
                _create(path)
            found = path.stat()
            _check_owner_and_mode(found, path)
            _identify(path)
            _set_mark(path)
        _check(path)
    except (OSError, sqlite3.Error) as error:
        raise StateRefused(f"{path} cannot be used: {error}") from error
    return Database(path, found.st_dev, found.st_ino, busy_timeout, max_bytes)


def _check_owner_and_mode(status: os.stat_result, path: Path) -> None:
    if status.st_uid != os.geteuid():
        raise StateRefused(f"{path} belongs to another user")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StateRefused(f"{path} can be written by others; it must be its owner's alone")


def _connect(path: Path, *, timeout: float) -> sqlite3.Connection:
    """Open a file that exists; SQLite would make an empty one of a missing one."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
    )


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold a lock among starting processes: SQLite's own are not enough to change its mode."""
    deadline = time.monotonic() + _START_TIMEOUT
    # A link in its place would lock, or make, a file of somebody else's choice.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(lock, flags, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StateRefused(f"another process holds {lock}") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _create(path: Path) -> None:
    """Make the file elsewhere and move it into place, so that it is never there half made."""
    for left in _SIDE_FILES:
        if path.with_name(path.name + left).exists():
            raise StateRefused(f"{path} is missing, but its {left} file is there: restore both")
    draft = path.with_name(path.name + ".new")
    for name in ("", *_SIDE_FILES):
        with suppress(FileNotFoundError):
            draft.with_name(draft.name + name).unlink()
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with closing(_connect(draft, timeout=_START_TIMEOUT)) as connection:
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        _bring_up_to_date(connection, 0)
        _enter_wal_mode(connection, path)
    draft.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _identify(path: Path) -> None:
    """Make sure that the file is ours before anything in it is touched."""
    with closing(_connect(path, timeout=_START_TIMEOUT)) as connection:
        if _pragma(connection, "application_id") != _APPLICATION_ID:
            raise StateRefused(f"{path} is not a state file of the broker")
        version = _pragma(connection, "user_version")
        if not isinstance(version, int) or not 0 < version <= len(_VERSIONS):
            raise StateRefused(f"{path} has version {version}; this broker knows {len(_VERSIONS)}")
        _enter_wal_mode(connection, path)
        _bring_up_to_date(connection, version)


def _bring_up_to_date(connection: sqlite3.Connection, version: int) -> None:
    """
    Add what the file's version lacks, all of it or nothing.

    A broker of the version before that still has the file open goes on reading it, and refuses to
    withdraw anything.
    """
    if version == len(_VERSIONS):
        return
    added = "".join(_VERSIONS[version:])
    connection.executescript(
        f"BEGIN IMMEDIATE; {added} PRAGMA user_version = {len(_VERSIONS)}; COMMIT;"
    )


def _set_mark(path: Path) -> None:
    """The mark is not kept through a loss of power, so every start puts it right."""
    with closing(_connect(path, timeout=_START_TIMEOUT)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        ((last,),) = connection.execute("SELECT last FROM withdrawals").fetchall()
        Mark(path).put(last)
        connection.execute("COMMIT")


def _check(path: Path) -> None:
    """Read all of the file; that takes a while for a large one, so nobody is kept waiting for it."""
    with closing(_connect(path, timeout=_START_TIMEOUT)) as connection:
        fault = _pragma(connection, "integrity_check(1)")
        if fault != "ok":
            raise StateRefused(f"{path} is damaged: {fault}")


def _enter_wal_mode(connection: sqlite3.Connection, path: Path) -> None:
    if _pragma(connection, "journal_mode = WAL") != "wal":
        raise StateRefused(f"{path} cannot be shared: SQLite has no WAL mode on its file system")


def _pragma(connection: sqlite3.Connection, text: str) -> object:
    row = connection.execute(f"PRAGMA {text}").fetchone()
    return row[0]
