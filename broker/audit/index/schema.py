"""The tables of the index, and whether a file holds them."""

import sqlite3
from typing import Final

VERSION: Final = 3
"""Of the tables; a file with another one is thrown away and made anew."""
APPLICATION: Final = 0x6272_6169
"""Marks the file as ours, in the place that SQLite keeps for that."""

TIES: Final = 1_024
"""So many records of one microsecond have numbers of their own before those of the next are taken."""
LAST_EVENT: Final = 2**63 - 1
"""No event has a higher number."""

ISSUED: Final = 1
"""The record is that of the issue of the token."""
PRESENTED: Final = 2
"""The token was presented, and what the record issued is derived from it."""
CONCERNED: Final = 4
"""The record is about the token in another way: it was asked about, or withdrawn."""

FACETS: Final = (
    "event",
    "decision",
    "reason",
    "grant_type",
    "client",
    "mcp_client",
    "mcp_server",
    "resource",
)
"""The texts that are kept once for all records that have them in common."""

TICKS: Final = TIES * 1_000_000
"""So many numbers has a second."""

ALL: Final = 0
"""In ``tally``: all records. The other numbers stand for what they have in common by one filter."""
TALLIED: Final = {
    "event": 1,
    "reason": 2,
    "grant_type": 3,
    "client": 4,
    "mcp_server": 5,
    "resource": 6,
    "depth": 7,
    "policy": 8,
}
"""The numbers of the others by what they count."""
ALL_WIDTHS: Final = (900, 3_600, 21_600, 86_400)
"""The widths in seconds by which all records are counted when they come."""
TALLY_WIDTHS: Final = (3_600, 21_600, 86_400)
"""The same for those that have something in common by one filter."""
SHARE_WIDTHS: Final = (21_600, 86_400)
"""The same for those that have everything in common."""

# An event's number begins with its moment, so that every table and index is in the order of time.
# What many records have in common is a row of ``combination``: there are few of these, which tell at once
# that two filters have nothing in common. ``seen`` counts them by subject, ``share`` by time. ``tally``
# counts the records that have one text, whatever others they have.
_TABLES: Final = """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE text (id INTEGER PRIMARY KEY, value TEXT NOT NULL UNIQUE);
    CREATE TABLE chain (
        id INTEGER PRIMARY KEY, writer TEXT NOT NULL UNIQUE, number INTEGER NOT NULL,
        offset INTEGER NOT NULL, seq INTEGER NOT NULL, prev TEXT NOT NULL,
        fault TEXT NOT NULL DEFAULT ''
    );
    CREATE TABLE combination (
        id INTEGER PRIMARY KEY, event INTEGER NOT NULL, decision INTEGER NOT NULL,
        reason INTEGER NOT NULL, grant_type INTEGER NOT NULL, client INTEGER NOT NULL,
        mcp_client INTEGER NOT NULL, mcp_server INTEGER NOT NULL, resource INTEGER NOT NULL,
        depth INTEGER NOT NULL, policies TEXT NOT NULL,
        count INTEGER NOT NULL DEFAULT 0, first INTEGER NOT NULL DEFAULT 0,
        last INTEGER NOT NULL DEFAULT 0
    );
    CREATE UNIQUE INDEX combination_whole ON combination (
        client, resource, reason, mcp_server, mcp_client, event, decision, grant_type, depth,
        policies
    );
    CREATE INDEX combination_mcp_client ON combination (mcp_client);
    CREATE INDEX combination_mcp_server ON combination (mcp_server);
    CREATE INDEX combination_resource ON combination (resource);
    CREATE TABLE combination_policy (
        policy INTEGER NOT NULL, combination INTEGER NOT NULL, PRIMARY KEY (policy, combination)
    ) WITHOUT ROWID;
    CREATE TABLE seen (
        subject INTEGER NOT NULL, combination INTEGER NOT NULL, count INTEGER NOT NULL,
        first INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (subject, combination)
    ) WITHOUT ROWID;
    CREATE TABLE tally (
        width INTEGER NOT NULL, facet INTEGER NOT NULL, value INTEGER NOT NULL,
        start INTEGER NOT NULL, decision INTEGER NOT NULL, count INTEGER NOT NULL,
        PRIMARY KEY (width, facet, value, start, decision)
    ) WITHOUT ROWID;
    CREATE TABLE share (
        width INTEGER NOT NULL, combination INTEGER NOT NULL, start INTEGER NOT NULL,
        count INTEGER NOT NULL, PRIMARY KEY (width, combination, start)
    ) WITHOUT ROWID;
    CREATE TABLE place (
        number INTEGER PRIMARY KEY, event INTEGER NOT NULL, chain INTEGER NOT NULL,
        segment INTEGER NOT NULL, offset INTEGER NOT NULL, hash BLOB NOT NULL
    );
    CREATE TABLE event (
        id INTEGER PRIMARY KEY, combination INTEGER NOT NULL, subject INTEGER NOT NULL,
        place INTEGER NOT NULL
    );
    CREATE INDEX event_in ON event (combination, id);
    CREATE INDEX event_of ON event (subject, combination, id) WHERE subject > 0;
    CREATE TABLE named (
        key INTEGER NOT NULL, event INTEGER NOT NULL, PRIMARY KEY (key, event)
    ) WITHOUT ROWID;
    CREATE TABLE token (
        key INTEGER NOT NULL, event INTEGER NOT NULL, relation INTEGER NOT NULL,
        PRIMARY KEY (key, event)
    ) WITHOUT ROWID;
"""


def create(connection: sqlite3.Connection, *, log: str, generation: str, salt: bytes) -> None:
    """Make the tables of an index that knows nothing yet, all of them or none."""
    meta = {
        "log": log,
        "generation": generation,
        "salt": salt,
        "checked": 0,
        "unreadable": 0,
        "is_whole": 0,
    }
    connection.execute("BEGIN IMMEDIATE")
    for statement in _TABLES.split(";"):
        if statement.strip():
            connection.execute(statement)
    connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def is_current(connection: sqlite3.Connection) -> bool:
    """Whether the file holds an index of this version."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return (application, version) == (APPLICATION, VERSION)


def is_sound(connection: sqlite3.Connection) -> bool:
    """
    Whether SQLite finds nothing wrong, and every chain has as many places as it had records.

    Reads the whole file.
    """
    if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        return False
    places = dict(connection.execute("SELECT chain, count(*) FROM place GROUP BY chain"))
    known = {
        chain: seq for chain, seq in connection.execute("SELECT id, seq FROM chain") if seq > 0
    }
    return places == known
