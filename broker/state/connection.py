"""One SQLite connection shared by the threads of one process, and what its failures mean."""

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Final

from broker.errors import TemporarilyUnavailable
from broker.state.database import Database

Unavailable = Callable[[str], TemporarilyUnavailable]
"""Makes the answer to whoever needs the store while it fails; the text is for the audit record."""

_ASK_AGAIN: Final = 0.0003


class _Use:
    """
    Has a connection alone, from its beginning to its end; with ``is_transaction`` for one transaction.

    Every request opens one or two, so it is no generator.
    """

    __slots__ = ("_connection", "_is_transaction", "_unavailable")

    def __init__(
        self, connection: "Connection", unavailable: Unavailable, *, is_transaction: bool
    ) -> None:
        self._connection = connection
        self._unavailable = unavailable
        self._is_transaction = is_transaction

    def __enter__(self) -> sqlite3.Connection:
        return self._connection.take(self._unavailable, is_transaction=self._is_transaction)

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        raised: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._connection.give_back(raised, self._unavailable, is_transaction=self._is_transaction)


class Connection:
    """One connection for all threads of the process that first uses it, one thread at a time."""

    def __init__(self, database: Database, *, is_writer: bool = False) -> None:
        self._database = database
        self._is_writer = is_writer
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._process: int | None = None
        self._is_closed = False

    def use(self, unavailable: Unavailable) -> AbstractContextManager[sqlite3.Connection]:
        """Have the connection alone. What SQLite raises becomes ``TemporarilyUnavailable``."""
        return _Use(self, unavailable, is_transaction=False)

    def transaction(self, unavailable: Unavailable) -> AbstractContextManager[sqlite3.Connection]:
        """One transaction, alone from its first statement; on disk when the block is left."""
        return _Use(self, unavailable, is_transaction=True)

    def take(self, unavailable: Unavailable, *, is_transaction: bool) -> sqlite3.Connection:
        """Have the connection alone until ``give_back``; what begins ``use`` and ``transaction``."""
        if not self._lock.acquire(timeout=self._database.busy_timeout):
            raise unavailable("state: busy")
        try:
            connection = self._ready(unavailable)
            if is_transaction:
                self._begin(connection)
        except BaseException as error:
            self._fail(error, unavailable)
            raise
        return connection

    def give_back(
        self, raised: BaseException | None, unavailable: Unavailable, *, is_transaction: bool
    ) -> None:
        """Commit, or roll back what has ``raised``, and let others have the connection."""
        if raised is not None:
            self._fail(raised, unavailable)
            return
        try:
            if is_transaction and self._connection is not None:
                self._connection.execute("COMMIT")
        except BaseException as error:
            self._fail(error, unavailable)
            raise
        self._lock.release()

    def check(self, unavailable: Unavailable) -> None:
        """Refuse whatever ``use`` would refuse before it asks SQLite."""
        try:
            self._check(unavailable)
        except sqlite3.Error as error:
            raise unavailable(f"state: {_name(error)}") from error

    def _fail(self, error: BaseException, unavailable: Unavailable) -> None:
        """Undo what was begun and let others have the connection; raises what SQLite's error means."""
        try:
            self._roll_back(error)
        finally:
            self._lock.release()
        if isinstance(error, sqlite3.Error):
            raise unavailable(f"state: {_name(error)}") from error

    def check_process(self, unavailable: Unavailable) -> None:
        """Refuse in a process that inherited this connection in use."""
        if self._process is not None and self._process != os.getpid():
            raise unavailable("state: in use by the process that this one was forked from")

    def close(self) -> None:
        """Refuse from now on."""
        with self._lock:
            self._is_closed = True
            self._drop()

    def _check(self, unavailable: Unavailable) -> None:
        if self._is_closed:
            raise unavailable("state: closed")
        self.check_process(unavailable)
        self._database.check_place()

    def _ready(self, unavailable: Unavailable) -> sqlite3.Connection:
        self._check(unavailable)
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
