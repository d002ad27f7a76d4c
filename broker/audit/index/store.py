"""The file of the index: connections to it, what their failures mean, and throwing it away."""

import errno
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from broker.audit.diagnosis import Fault
from broker.audit.index.location import log_name, made_private, sole_writer
from broker.audit.index.schema import create, is_current, is_sound
from broker.audit.query import QueryTooExpensive

CHECK_EVERY: Final = 24 * 3600.0
"""In seconds: so old may the last reading of the whole file be when the index is opened."""

_log = structlog.get_logger("broker.audit.index")

_BUSY_SECONDS: Final = 10.0
_FAULTS_KEPT: Final = 60.0
_STEPS: Final = 2_000
_MOST_IDLE: Final = 4
# What says nothing about the content: there is no space, no right, no disk, or somebody else is writing.
_OUTSIDE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
    }
)


class IndexDamaged(OSError):
    """The index cannot be read; whoever catches up next makes it anew."""


class IndexMissing(OSError):
    """There is no index; whoever catches up next makes one."""


class KnownFaults:
    """
    The faults of chains, for as long as nobody looks for them again.

    To find out what is wrong with a line, all that follows may have to be read.
    """

    def __init__(self) -> None:
        self._faults: dict[str, Fault] = {}
        self._until = 0.0

    def known(self) -> Mapping[str, Fault]:
        """What was found lately."""
        if time.monotonic() >= self._until:
            self._faults = {}
        return self._faults

    def keep(self, faults: Mapping[str, Fault]) -> None:
        """Remember what was found, from the first of it on."""
        if not self._faults:
            self._until = time.monotonic() + _FAULTS_KEPT
        self._faults = dict(faults)


@dataclass(frozen=True, slots=True)
class _Connected:
    connection: sqlite3.Connection
    inode: int


class IndexFile:
    """
    The index of a directory, for all threads of a process.

    ``limit`` is how many seconds a question may take.
    """

    def __init__(self, path: Path, directory: Path, *, limit: float) -> None:
        self.path = path
        self.limit = limit
        self.is_damaged = False
        self.faults = KnownFaults()
        self._directory = directory
        self._lock = threading.Lock()
        self._idle: list[_Connected] = []

    def prepare(self) -> str:
        """
        Make sure that there is an index of this log and version; for who is the sole writer.

        One that is damaged, or of another log or version, is thrown away; then the answer is why.
        """
        if not self.path.exists():
            self._create()
            return ""
        wrong = self._wrong()
        if wrong:
            self.throw_away(wrong)
        return wrong

    def forget(self, why: str, *, patience: float) -> None:
        """Throw away the index, if there is one. Raises ``Busy`` after ``patience`` seconds."""
        with sole_writer(self.path, patience=patience):
            if self.path.exists():
                self.throw_away(why)

    def throw_away(self, why: str) -> None:
        """Begin an index that knows nothing, and log why; for who is the sole writer."""
        _log.warning("audit_index_rebuilt", why=why, path=str(self.path))
        self.close()
        for ending in ("", "-wal", "-shm", "-journal"):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
        self._create()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection to write by; for who is the sole writer."""
        with _failures(self):
            connection = _connect(self.path)
            try:
                connection.execute("PRAGMA cache_size = -65536")
                connection.execute("PRAGMA wal_autocheckpoint = 8192")
                yield connection
            finally:
                connection.close()

    @contextmanager
    def asking(self) -> Iterator[sqlite3.Connection]:
        """
        A connection to ask by, which sees the index as it is at one moment.

        Raises ``QueryTooExpensive`` when that takes longer than ``limit``, and ``OSError``.
        """
        with _failures(self):
            connected = self._take()
            connection = connected.connection
            until = time.monotonic() + self.limit
            connection.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
            try:
                connection.execute("BEGIN")
                yield connection
            except BaseException:
                connection.close()
                raise
            connection.set_progress_handler(None, 0)
            connection.execute("ROLLBACK")
            self._give_back(connected)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for one in idle:
            one.connection.close()

    def _take(self) -> _Connected:
        try:
            inode = self.path.stat().st_ino
        except FileNotFoundError:
            raise IndexMissing(errno.ENOENT, "there is no index yet", str(self.path)) from None
        with self._lock:
            while self._idle:
                one = self._idle.pop()
                if one.inode == inode:
                    return one
                one.connection.close()
        connection = _connect(self.path)
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA cache_size = -32768")
        return _Connected(connection, inode)

    def _give_back(self, connected: _Connected) -> None:
        with self._lock:
            if len(self._idle) < _MOST_IDLE:
                self._idle.append(connected)
                return
        connected.connection.close()

    def _wrong(self) -> str:
        """What is wrong with the file; nothing when it can be used."""
        if self.is_damaged:
            return "it is damaged"
        try:
            with self.writing() as connection:
                return self._misfit(connection)
        except IndexDamaged:
            return "it is damaged"

    def _misfit(self, connection: sqlite3.Connection) -> str:
        if not is_current(connection):
            return "it is of another version"
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        log = log_name(self._directory)
        if log and meta["log"] and log != meta["log"]:
            return "it is of another log"
        if time.time() - meta["checked"] > CHECK_EVERY:
            if not is_sound(connection):
                return "it is damaged"
            _set_meta(connection, "checked", time.time())
        if log and not meta["log"]:
            _set_meta(connection, "log", log)
        return ""

    def _create(self) -> None:
        os.close(made_private(self.path, is_new=True))
        self.is_damaged = False
        self.faults = KnownFaults()
        with self.writing() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            create(
                connection,
                log=log_name(self._directory),
                generation=secrets.token_hex(4),
                salt=secrets.token_bytes(16),
            )
            _set_meta(connection, "checked", time.time())


def _set_meta(connection: sqlite3.Connection, name: str, value: object) -> None:
    connection.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name))


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{_quoted(path)}?mode=rw",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA temp_store = MEMORY")
    except BaseException:
        connection.close()
        raise
    return connection


def _quoted(path: Path) -> str:
    """A path as a part of a URI, in which SQLite gives some characters a meaning."""
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


@contextmanager
def _failures(file: IndexFile) -> Iterator[None]:
    """Tell what SQLite says in words of our own."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_INTERRUPT:
            sentence = f"the answer takes longer than {file.limit:g} seconds"
            raise QueryTooExpensive(sentence) from None
        if code in _OUTSIDE:
            raise OSError(errno.EIO, f"the index cannot be used: {error}", str(file.path)) from None
        file.is_damaged = True
        sentence = f"the index is damaged: {error}"
        raise IndexDamaged(errno.EBADMSG, sentence, str(file.path)) from None
