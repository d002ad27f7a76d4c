"""What one process knows of all that is withdrawn, and how it tells that nobody withdrew more since."""

import os
import sqlite3
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MOST_COPIED: Final = 20_000
"""Of more than this no copy is kept; then the file is asked about every token."""

_TRY_AGAIN_SECONDS: Final = 60
_NOTHING_KNOWN: Final = -1

_LAST: Final = "SELECT last, until FROM withdrawals, forgotten WHERE name = 'revoked'"
_AFTER: Final = """
    SELECT key, issued_since, issued_until, until FROM revoked
        WHERE number > ? ORDER BY number LIMIT ?
"""


class Mark:
    """
    A file whose length is the number of the last withdrawal, or of one that may not have come about.

    Whoever withdraws sets it inside of the transaction, so that it is never behind what others can read: a
    copy with all withdrawals up to that number lacks none. There is nothing in it, and it takes no room.
    """

    def __init__(self, database: Path) -> None:
        # However the file is named, as a link or not, it has one mark.
        self._path = f"{os.path.realpath(database)}-mark"

    def read(self) -> int | None:
        """The number; ``None`` where there is no mark, and nobody knows whether a copy lacks something."""
        try:
            return os.stat(self._path).st_size  # noqa: PTH116 - a Path takes several times as long.
        except OSError:
            return None

    def put(self, number: int) -> None:
        """Set the number, while no other process can write; raises as SQLite does when that fails."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self._path, flags, 0o600)
            try:
                os.ftruncate(descriptor, number)
            finally:
                os.close(descriptor)
        except OSError as error:
            sentence = f"the mark of withdrawals cannot be set: {error.strerror}"
            raise sqlite3.OperationalError(sentence) from error


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """
    All that is withdrawn as of the withdrawal ``number``, by key: issued from one second through another.

    Where there is no copy the number is -1, which no mark has. Nothing is missing that could be accepted
    after ``forgotten``, in unix seconds.
    """

    number: int
    forgotten: int
    held: dict[bytes, tuple[int, int, int]]

    def found(
        self, keys: AbstractSet[bytes], *, issued_at: int, kept_from: int
    ) -> AbstractSet[bytes]:
        """Those keys under which something is withdrawn that was issued then and has to be known."""
        return {
            key
            for key in keys
            if (times := self.held.get(key)) is not None
            and times[0] <= issued_at <= times[1]
            and times[2] >= kept_from
        }


class WithdrawnCopy:
    """
    Keeps the copy of one process, of ``most`` keys; with more it keeps none, and tries again later.

    ``renew`` is called by one thread at a time, and ``latest`` may be read by any meanwhile: what is in its
    dictionary only becomes more.
    """

    def __init__(self, *, most: int = MOST_COPIED) -> None:
        self.latest = Withdrawn(_NOTHING_KNOWN, 0, {})
        self._most = most
        self._try_at = 0

    def renew(self, connection: sqlite3.Connection, *, now: int) -> Withdrawn | None:
        """Take in what was withdrawn since; ``None`` where that is too much to be copied."""
        if now < self._try_at:
            return None
        known = self.latest
        # In one transaction, or the number could be of a later moment than the keys.
        connection.execute("BEGIN")
        ((number, forgotten),) = connection.execute(_LAST).fetchall()
        # A file that went back has numbers again that something else had before.
        since = known.number if number >= known.number else _NOTHING_KNOWN
        found = connection.execute(_AFTER, (since, self._most + 1)).fetchall()
        connection.execute("COMMIT")
        if len(found) + len(known.held) > self._most:
            # Of what is held much may have been forgotten in the file meanwhile.
            self.latest = Withdrawn(_NOTHING_KNOWN, 0, {})
            self._try_at = now + (_TRY_AGAIN_SECONDS if known.number == _NOTHING_KNOWN else 0)
            return None
        known.held.update({key: (first, last, until) for key, first, last, until in found})
        self.latest = Withdrawn(number, forgotten, known.held)
        return self.latest
