"""A SQLite store that cannot answer says so, soon, and never makes up an empty memory."""

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.errors import Reason, TemporarilyUnavailable
from broker.model import OneTimeId, Party, PartyKind, Pedigree, Withdrawal
from broker.state import database
from broker.state.database import StateRefused
from broker.state.entries import LAST_SECOND, replay_store_unavailable, revoked_key, spent_key
from broker.state.sqlite import SqliteState
from tests.audit.disks import fill, remount, small_disk

NOW = 1_800_000_000
# The busy timeout, the time that others are waited for, and time for a busy machine to notice. Whoever did
# not say how long to wait would wait for five seconds each time.
PATIENCE = 4.5
TOKEN = Pedigree("jti", NOW, frozenset())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def state(path: Path) -> Iterator[SqliteState]:
    state = open_state(path)
    yield state
    state.close()


def open_state(path: Path) -> SqliteState:
    return SqliteState(path, now=lambda: NOW)


def one_time_id(number: int = 0) -> OneTimeId:
    return OneTimeId("client_assertion", "agent-x", f"jti-{number}", NOW + 330)


def assert_refuses(state: SqliteState) -> None:
    """Nothing is spent, nothing hangs, and the detail for the audit record is there."""
    calls: tuple[Callable[[], object], ...] = (
        lambda: state.spend((one_time_id(99),)),
        state.check,
    )
    for call in calls:
        started = time.monotonic()
        with pytest.raises(TemporarilyUnavailable) as caught:
            call()
        assert caught.value.reason is Reason.REPLAY_STORE_UNAVAILABLE
        assert caught.value.detail.startswith("state: ")
        assert time.monotonic() - started < PATIENCE


@pytest.mark.requirement("RPL-03")
@pytest.mark.requirement("R-14")
def test_a_locked_store_refuses_soon_and_serves_when_unlocked(
    state: SqliteState, path: Path
) -> None:
    state.spend((one_time_id(1),))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert_refuses(state)
        with pytest.raises(TemporarilyUnavailable) as caught:
            state.revoke("jti", NOW + 300)
        assert caught.value.reason is Reason.REVOCATION_UNAVAILABLE
        assert state.reason_against(TOKEN) is None, "reading goes on"

    assert state.spend((one_time_id(1),)) == one_time_id(1)
    assert state.spend((one_time_id(99),)) is None
    state.check()


@pytest.mark.requirement("RPL-03")
def test_who_finds_the_connection_taken_is_refused_soon(state: SqliteState) -> None:
    with state._writer.use(replay_store_unavailable):
        assert_refuses(state)

    assert state.spend((one_time_id(99),)) is None


@pytest.mark.requirement("RPL-03")
def test_who_waits_too_long_for_another_is_refused(state: SqliteState) -> None:
    state._spending._has_leader = True

    with pytest.raises(TemporarilyUnavailable) as caught:
        state.spend((one_time_id(99),))

    assert caught.value.detail == "state: busy"


@pytest.mark.requirement("RPL-03")
@pytest.mark.requirement("R-14")
def test_a_full_disk_refuses_and_serves_again_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kibibytes=512) as disk:
        state = open_state(disk / "state.db")
        state.spend((one_time_id(1),))
        filler = fill(disk)
        spent, refused = spend_many(state)
        assert refused > 0, "the disk never was full"

        filler.unlink()

        for one in (one_time_id(1), *spent):
            assert state.spend((one,)) == one
        assert state.spend((one_time_id(99),)) is None
        state.check()
        state.close()


def spend_many(state: SqliteState) -> tuple[list[OneTimeId], int]:
    """What was spent, and how often the store refused: a page set free may take a few between."""
    spent, refused = [], 0
    for number in range(100, 1_100):
        try:
            state.spend((one_time_id(number),))
        except TemporarilyUnavailable:
            refused += 1
        else:
            spent.append(one_time_id(number))
    return spent, refused


@pytest.mark.requirement("RPL-03")
@pytest.mark.requirement("R-14")
def test_a_disk_gone_read_only_refuses_and_serves_again_when_writable(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kibibytes=1024) as disk:
        state = open_state(disk / "state.db")
        state.spend((one_time_id(1),))
        state.close()
        remount(disk, "ro")
        with pytest.raises(StateRefused):
            open_state(disk / "state.db")
        remount(disk, "rw")

        state = open_state(disk / "state.db")
        assert state.spend((one_time_id(1),)) == one_time_id(1)
        state.close()


@pytest.mark.requirement("R-14")
@pytest.mark.parametrize("damage", ["removed", "replaced", "moved"])
def test_a_file_that_is_not_the_one_opened_any_more_is_not_believed(
    state: SqliteState, path: Path, damage: str
) -> None:
    state.spend((one_time_id(1),))
    path.rename(path.with_suffix(".old"))
    if damage == "replaced":
        path.write_bytes(path.with_suffix(".old").read_bytes())
    elif damage == "removed":
        path.with_suffix(".old").unlink()

    assert_refuses(state)
    with pytest.raises(TemporarilyUnavailable) as caught:
        state.reason_against(TOKEN)
    assert caught.value.reason is Reason.REVOCATION_UNAVAILABLE

    if damage == "moved":
        path.with_suffix(".old").rename(path)
        assert state.spend((one_time_id(1),)) == one_time_id(1)


@pytest.mark.requirement("R-14")
@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 4096, b"not a database at all" * 500, b"SQLite format 3\x00"]
)
def test_a_file_that_is_no_state_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    with pytest.raises(StateRefused, match=r"state\.db"):
        open_state(path)

    assert path.read_bytes() == content


@pytest.mark.requirement("R-14")
def test_a_damaged_page_is_found_at_the_start(path: Path) -> None:
    state = open_state(path)
    for number in range(300):
        state.spend((one_time_id(number),))
    state.close()
    content = bytearray(path.read_bytes())
    content[3 * 4096 : 4 * 4096] = os.urandom(4096)
    path.write_bytes(content)

    with pytest.raises(StateRefused):
        open_state(path)

    assert path.read_bytes() == content


@pytest.mark.requirement("R-14")
def test_damage_while_running_refuses(state: SqliteState, path: Path) -> None:
    for number in range(300):
        state.spend((one_time_id(number),))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA writable_schema = ON")
        other.execute("UPDATE sqlite_schema SET rootpage = 9999 WHERE name = 'spent'")
        other.execute("PRAGMA schema_version = 99")

    assert_refuses(state)


def test_the_file_of_another_program_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE spent (key BLOB PRIMARY KEY, until INTEGER)")
        other.commit()

    with pytest.raises(StateRefused, match="not a state file"):
        open_state(path)


@pytest.mark.requirement("R-26")
def test_the_file_of_a_later_version_is_refused(path: Path) -> None:
    open_state(path).close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 5")

    with pytest.raises(StateRefused, match="has version 5; this broker knows 4"):
        open_state(path)


FIRST_VERSION = """
    PRAGMA journal_mode = WAL;
    CREATE TABLE spent (key BLOB PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE INDEX spent_until ON spent (until);
    CREATE TABLE revoked (key BLOB PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE INDEX revoked_until ON revoked (until);
    CREATE TABLE forgotten (name TEXT PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO forgotten VALUES ('spent', -1), ('revoked', -1);
    PRAGMA application_id = 0x6462726B;
    PRAGMA user_version = 1;
"""


def make_first_version(path: Path) -> None:
    """A file of the first version, in which one id is spent and one token revoked."""
    path.touch(mode=0o600)
    with closing(sqlite3.connect(path, isolation_level=None)) as first:
        first.executescript(FIRST_VERSION)
        first.execute("INSERT INTO spent VALUES (?, ?)", (spent_key(one_time_id()), NOW + 330))
        first.execute("INSERT INTO revoked VALUES (?, ?)", (revoked_key("old"), NOW + 300))


@pytest.mark.requirement("RPL-06")
@pytest.mark.requirement("R-26")
def test_a_file_of_the_first_version_is_taken_over_with_all_that_it_knows(path: Path) -> None:
    make_first_version(path)
    alice = Party(PartyKind.SUBJECT, "alice")

    for state in (open_state(path), open_state(path)):
        assert state.spend((one_time_id(),)) == one_time_id()
        for issued_at in (0, NOW, LAST_SECOND):
            token = Pedigree("old", issued_at, frozenset())
            assert state.reason_against(token) is Reason.REVOKED
        state.withdraw(Withdrawal(alice, 0, NOW, NOW + 86_400))
        assert state.reason_against(Pedigree("new", NOW, frozenset({alice}))) is Reason.REVOKED
        state.close()


@pytest.mark.requirement("R-26")
def test_a_file_that_cannot_be_brought_up_to_date_now_stays_as_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_first_version(path)
    monkeypatch.setattr(database, "_START_TIMEOUT", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")

        with pytest.raises(StateRefused, match="locked"):
            open_state(path)

    with closing(sqlite3.connect(path)) as look:
        assert look.execute("PRAGMA user_version").fetchone() == (1,)
        assert len(look.execute("PRAGMA table_info(revoked)").fetchall()) == 2


@pytest.mark.requirement("RPL-03")
@pytest.mark.requirement("R-26")
def test_a_broker_of_the_first_version_can_write_no_revocation_that_lacks_something(
    path: Path,
) -> None:
    """It is told so, and nothing is lost in silence, while both versions have the file open."""
    make_first_version(path)
    with closing(sqlite3.connect(path)) as old:
        open_state(path).close()

        with pytest.raises(sqlite3.OperationalError, match="5 columns but 2 values"):
            old.execute("INSERT INTO revoked VALUES (?, ?)", (revoked_key("new"), NOW + 300))


SECOND_VERSION = f"""
    ALTER TABLE revoked ADD COLUMN issued_since INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE revoked ADD COLUMN issued_until INTEGER NOT NULL DEFAULT {LAST_SECOND};
    PRAGMA user_version = 2;
"""
SECOND_VERSION_REVOKES = """
    INSERT INTO revoked (key, until, issued_since, issued_until) VALUES (?, ?, 0, ?)
    ON CONFLICT DO UPDATE SET until = max(until, excluded.until)
"""


@pytest.mark.requirement("RPL-06")
@pytest.mark.requirement("R-26")
def test_what_a_broker_of_the_second_version_has_withdrawn_is_in_every_copy(path: Path) -> None:
    make_first_version(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as second:
        second.executescript(SECOND_VERSION)
        facts = (revoked_key("second"), NOW + 300, LAST_SECOND)
        second.execute(SECOND_VERSION_REVOKES, facts)

    state = open_state(path)
    state.revoke("third", NOW + 300)

    found = [one.key for one in state.revocations_after(0, most=9)]
    assert {*found[:2]} == {revoked_key("old"), revoked_key("second")}
    assert found[2:] == [revoked_key("third")]
    state.close()


@pytest.mark.requirement("RPL-07")
@pytest.mark.parametrize("jti", ["old", "new"])
@pytest.mark.requirement("R-26")
def test_a_broker_of_the_second_version_withdraws_nothing_that_copies_would_miss(
    path: Path, jti: str
) -> None:
    """Nor does it count as withdrawn again when it was before."""
    make_first_version(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as second:
        second.executescript(SECOND_VERSION)
        open_state(path).close()

        with pytest.raises(sqlite3.IntegrityError, match="without a number"):
            second.execute(SECOND_VERSION_REVOKES, (revoked_key(jti), NOW + 600, LAST_SECOND))


@pytest.mark.requirement("R-14")
def test_a_file_missing_beside_its_log_is_not_begun_anew(path: Path) -> None:
    path.with_name("state.db-wal").write_bytes(b"what was spent")

    with pytest.raises(StateRefused, match="missing, but its -wal file is there"):
        open_state(path)

    assert not path.exists()


def test_a_beginning_cut_short_is_begun_again(path: Path) -> None:
    for leaving in ("state.db.new", "state.db.new-wal", "state.db.new-journal"):
        path.with_name(leaving).write_bytes(b"half a file")

    state = open_state(path)

    assert state.spend((one_time_id(),)) is None
    state.close()
    assert not path.with_name("state.db.new").exists()


def test_the_files_are_their_owners_alone(state: SqliteState, path: Path) -> None:
    state.spend((one_time_id(),))

    files = list(path.parent.iterdir())
    assert {file.name for file in files} >= {"state.db", "state.db-wal", "state.db-shm"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_file_that_others_can_write_is_refused(path: Path) -> None:
    open_state(path).close()
    path.chmod(0o660)

    with pytest.raises(StateRefused, match="can be written by others"):
        open_state(path)


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_a_directory_that_others_can_write_is_refused(path: Path, mode: int) -> None:
    path.parent.chmod(mode)

    with pytest.raises(StateRefused, match="can be written by others"):
        open_state(path)

    assert list(path.parent.iterdir()) == []


def test_a_directory_of_another_user_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    somebody_else = path.parent.stat().st_uid + 1
    monkeypatch.setattr(os, "geteuid", lambda: somebody_else)

    with pytest.raises(StateRefused, match="belongs to another user"):
        open_state(path)

    assert list(path.parent.iterdir()) == []


def test_a_lock_that_is_a_symbolic_link_is_not_followed(path: Path) -> None:
    victim = path.with_name("victim")
    path.with_name("state.db.lock").symlink_to(victim)

    with pytest.raises(StateRefused, match="cannot be used"):
        open_state(path)

    assert not victim.exists()
    assert not path.exists()


def test_a_start_waits_for_another_only_so_long(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_START_TIMEOUT", 0.05)

    with (
        database._alone(path.with_name("state.db.lock")),
        pytest.raises(StateRefused, match="another process holds"),
    ):
        open_state(path)


def test_a_place_that_cannot_be_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StateRefused, match="cannot be used"):
        open_state(tmp_path / "file" / "state.db")


def test_every_commit_waits_for_the_disk(state: SqliteState) -> None:
    """Row R-15 asks for what was acknowledged to survive a loss of power."""
    for shared in (state._writer, state._reader):
        with shared.use(replay_store_unavailable) as connection:
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
