"""Allowances in a SQLite file, shared by the processes of one machine."""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from broker.endpoints.allowances import draw_from
from broker.errors import Reason, TemporarilyUnavailable
from broker.model import Portion, Quota

FILE: Final = "limits.sqlite"
"""Its name in the directory of the state; what is in it is worth nothing after a restart."""

_SIDE_FILES: Final = ("-journal", "-wal", "-shm")
_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS allowances (party TEXT PRIMARY KEY, full_at REAL NOT NULL)
        STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS allowances_full_at ON allowances (full_at);
"""
_FIND: Final = "SELECT full_at FROM allowances WHERE party = ?"
_KEEP: Final = """
    INSERT INTO allowances VALUES (?, ?) ON CONFLICT DO UPDATE SET full_at = excluded.full_at
"""
_PURGE: Final = "DELETE FROM allowances WHERE full_at < ?"
_PURGE_EVERY: Final = 1.0
_ASK_AGAIN: Final = 0.0003
_MAX_PAGES: Final = 16_384
"""64 MiB, for half a million parties that are not full."""


def begin_allowances(directory: Path) -> None:
    """
    Replace the file of an earlier run by an empty one; called before any process uses it.

    Processes that made it together would turn each other away: whoever switches on the write-ahead log has
    to be alone, and SQLite does not wait for that. Where it cannot be made, whoever draws is refused.
    """
    for suffix in ("", *_SIDE_FILES):
        with suppress(FileNotFoundError):
            (directory / (FILE + suffix)).unlink()
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(directory / FILE, isolation_level=None)) as connection,
    ):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_SCHEMA)


class SqliteAllowances:
    """
    Allowances that the processes of one machine share, for as long as the broker runs.

    Nothing waits for the disk: what is lost with the power is full again by the time of the next start.
    Each process opens the file, which ``begin_allowances`` made, for itself when it first draws. ``now``
    is a clock that all processes have; whoever does not get the file within ``busy_timeout`` seconds is
    refused.
    """

    def __init__(
        self, directory: Path, *, now: Callable[[], float] = time.time, busy_timeout: float = 0.1
    ) -> None:
        self._path = directory / FILE
        self._now = now
        self._busy_timeout = busy_timeout
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._purge_at = 0.0
        self._is_closed = False

    def draw(self, party: str, quota: Quota, wanted: int, *, least: int = 1) -> Portion:
        with self._transaction() as connection:
            # Only whoever has the file alone may say what time it is, or time would run both ways.
            now = self._now()
            row = connection.execute(_FIND, (party,)).fetchone()
            found = now if row is None else row[0]
            full_at, portion = draw_from(found, quota, wanted, now=now, least=least)
            connection.execute(_KEEP, (party, full_at))
            self._purge(connection, now)
        return portion

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            self._drop()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if not self._lock.acquire(timeout=self._busy_timeout):
            raise _unavailable("busy")
        try:
            connection = self._ready()
            self._begin(connection)
            yield connection
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._drop()
            raise _unavailable(getattr(error, "sqlite_errorname", type(error).__name__)) from error
        finally:
            self._lock.release()

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Take the write lock, asking often and evenly: SQLite's own way of waiting starves neighbours."""
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_ASK_AGAIN)
            else:
                return

    def _ready(self) -> sqlite3.Connection:
        if self._is_closed:
            raise _unavailable("closed")
        if self._process != os.getpid():
            # SQLite does not survive a fork; what was inherited is left as it is.
            self._connection = None
        if self._connection is None:
            self._connection = self._open()
            self._process = os.getpid()
        return self._connection

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=self._busy_timeout, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"PRAGMA max_page_count = {_MAX_PAGES}")
        # Nothing is written where the tables are there.
        connection.executescript(_SCHEMA)
        connection.execute("PRAGMA busy_timeout = 0")
        return connection

    def _purge(self, connection: sqlite3.Connection, now: float) -> None:
        """Let go of those that are full again, once a second."""
        if now >= self._purge_at:
            connection.execute(_PURGE, (now,))
            self._purge_at = now + _PURGE_EVERY

    def _drop(self) -> None:
        """Close the connection, and with it a transaction that was begun; the next draw opens another."""
        if self._connection is not None and self._process == os.getpid():
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def _unavailable(detail: str) -> TemporarilyUnavailable:
    return TemporarilyUnavailable(Reason.OVERLOADED, detail=f"limits: {detail}")
