"""One SQLite connection shared by the threads of one process, and what its failures mean."""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from broker.errors import TemporarilyUnavailable
from broker.state.database import Database

Unavailable = Callable[[str], TemporarilyUnavailable]
"""Makes the answer to whoever needs the store while it fails; the text is for the audit record."""

_ASK_AGAIN: Final = 0.0003


class Connection:
    """One connection for all threads of the process that first uses it, one thread at a time."""

    def __init__(self, database: Database, *, is_writer: bool = False) -> None:
        self._database = database
        self._is_writer = is_writer
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._process: int | None = None
        self._is_closed = False

    @contextmanager
    def use(self, unavailable: Unavailable) -> Iterator[sqlite3.Connection]:
        """Have the connection alone. What SQLite raises becomes ``TemporarilyUnavailable``."""
        if not self._lock.acquire(timeout=self._database.busy_timeout):
            raise unavailable("state: busy")
        try:
            yield self._ready(unavailable)
        except BaseException as error:
            self._roll_back(error)
            if isinstance(error, sqlite3.Error):
                raise unavailable(f"state: {_name(error)}") from error
            raise
        finally:
            self._lock.release()

    @contextmanager
    def transaction(self, unavailable: Unavailable) -> Iterator[sqlite3.Connection]:
        """One transaction, alone from its first statement; on disk when the block is left."""
        with self.use(unavailable) as connection:
            self._begin(connection)
            yield connection
            connection.execute("COMMIT")

    def check_process(self, unavailable: Unavailable) -> None:
        """Refuse in a process that inherited this connection in use."""
        if self._process not in {None, os.getpid()}:
            raise unavailable("state: in use by the process that this one was forked from")

    def close(self) -> None:
        """Refuse from now on."""
        with self._lock:
            self._is_closed = True
            self._drop()

    def _ready(self, unavailable: Unavailable) -> sqlite3.Connection:
        if self._is_closed:
            raise unavailable("state: closed")
        self.check_process(unavailable)
        self._database.check_place()
        if self._connection is None:
            self._process = os.getpid()
            self._connection = self._database.connect()
            if self._is_writer:
                self._connection.execute("PRAGMA busy_timeout = 0")
        return self._connection

    def _begin(self, connection: sqlite3.Connection) -> None:
        """
        Take the write lock.

        SQLite's own way of waiting sleeps for longer and longer, so that a busy process starves its
        neighbours; asking often and evenly gives each its turn.
        """
        deadline = time.monotonic() + self._database.busy_timeout
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_ASK_AGAIN)
            else:
                return

    def _roll_back(self, error: BaseException) -> None:
        """Leave no transaction open; after a failure of the file itself, open it anew next time."""
        if self._connection is None or self._process != os.getpid():
            return
        is_broken = isinstance(error, sqlite3.Error) and not _is_busy(error)
        try:
            self._connection.rollback()
        except sqlite3.Error:
            is_broken = True
        if is_broken:
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None and self._process == os.getpid():
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _name(error: sqlite3.Error) -> str:
    return str(getattr(error, "sqlite_errorname", error))
