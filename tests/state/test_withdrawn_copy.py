"""What is withdrawn is answered from a copy, which is never behind the file."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.errors import Reason, TemporarilyUnavailable
from broker.model import Party, PartyKind, Pedigree, Withdrawal
from broker.state.sqlite import SqliteState

NOW = 1_800_000_000
ALICE = Party(PartyKind.SUBJECT, "alice")

Open = Callable[[], SqliteState]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def open_state(path: Path) -> Iterator[Open]:
    """Open the store as another process would, with a copy of its own for three keys at most."""
    opened: list[SqliteState] = []

    def state() -> SqliteState:
        opened.append(SqliteState(path, now=lambda: NOW, most_copied=3))
        return opened[-1]

    yield state
    for one in opened:
        one.close()


def mark_of(path: Path) -> Path:
    return path.with_name(path.name + "-mark")


def reason(state: SqliteState, jti: str, *, issued_at: int = NOW) -> Reason | None:
    return state.reason_against(Pedigree(jti, issued_at, frozenset({ALICE})))


def revoke(state: SqliteState, *jtis: str) -> None:
    for jti in jtis:
        state.revoke(jti, NOW + 300)


def test_the_length_of_the_mark_is_the_number_of_the_last_withdrawal(
    open_state: Open, path: Path
) -> None:
    state = open_state()
    before = mark_of(path).stat().st_size
    revoke(state, "a", "b")

    assert mark_of(path).stat().st_size == before + 2
    assert mark_of(path).stat().st_mode & 0o077 == 0


@pytest.mark.requirement("RPL-07")
def test_each_withdrawal_is_in_every_copy_at_once(open_state: Open) -> None:
    here, there = open_state(), open_state()
    assert reason(there, "a") is None
    for jti in ("a", "b"):
        revoke(here, jti)
        assert reason(there, jti) is Reason.REVOKED
        assert reason(there, "other") is None


@pytest.mark.requirement("RPL-07")
def test_a_withdrawal_that_becomes_wider_becomes_so_in_every_copy(open_state: Open) -> None:
    here, there = open_state(), open_state()
    here.withdraw(Withdrawal(ALICE, 0, NOW - 10, NOW + 86_400))
    assert reason(there, "a", issued_at=NOW - 10) is Reason.REVOKED
    assert reason(there, "a", issued_at=NOW) is None

    here.withdraw(Withdrawal(ALICE, 0, NOW, NOW + 86_400))

    assert reason(there, "a", issued_at=NOW) is Reason.REVOKED
    assert reason(there, "a", issued_at=NOW + 1) is None


@pytest.mark.requirement("RPL-07")
def test_more_than_is_copied_is_looked_up_in_the_file(open_state: Open) -> None:
    here, there = open_state(), open_state()
    assert reason(there, "a") is None
    for jti in "abcdef":
        revoke(here, jti)
        assert reason(there, jti) is Reason.REVOKED
    assert [jti for jti in "abcdef" if reason(there, jti) is not Reason.REVOKED] == []
    assert reason(there, "g") is None


@pytest.mark.requirement("RPL-07")
def test_a_mark_that_is_ahead_makes_everybody_look_into_the_file(
    open_state: Open, path: Path
) -> None:
    """As it is while a withdrawal comes about, and after one that did not."""
    here, there = open_state(), open_state()
    revoke(here, "a")
    assert reason(there, "b") is None
    with mark_of(path).open("r+b") as mark:
        mark.truncate(mark_of(path).stat().st_size + 1)

    assert reason(there, "a") is Reason.REVOKED
    assert reason(there, "b") is None
    revoke(here, "b")
    assert reason(there, "b") is Reason.REVOKED


@pytest.mark.requirement("RPL-07")
def test_without_the_mark_nothing_is_missed(open_state: Open, path: Path) -> None:
    here, there = open_state(), open_state()
    assert reason(there, "a") is None
    mark_of(path).unlink()
    revoke(here, "a")
    assert reason(there, "a") is Reason.REVOKED
    mark_of(path).unlink()

    assert reason(there, "a") is Reason.REVOKED
    assert reason(there, "b") is None


def test_a_start_puts_a_mark_right_that_a_loss_of_power_left_behind(
    open_state: Open, path: Path
) -> None:
    revoke(open_state(), "a", "b")
    right = mark_of(path).stat().st_size
    mark_of(path).write_bytes(b"")

    state = open_state()

    assert mark_of(path).stat().st_size == right
    assert reason(state, "b") is Reason.REVOKED


@pytest.mark.requirement("R-15")
def test_nothing_is_withdrawn_while_others_could_not_be_told(open_state: Open, path: Path) -> None:
    here, there = open_state(), open_state()
    mark_of(path).unlink()
    mark_of(path).symlink_to(path.with_name("elsewhere"))

    with pytest.raises(TemporarilyUnavailable) as refused:
        revoke(here, "a")

    assert refused.value.reason is Reason.REVOCATION_UNAVAILABLE
    assert not path.with_name("elsewhere").exists()
    assert reason(here, "a") is None
    mark_of(path).unlink()
    revoke(here, "a")
    assert reason(there, "a") is Reason.REVOKED


def test_a_broker_of_the_version_before_withdraws_nothing_that_copies_would_miss(
    open_state: Open, path: Path
) -> None:
    open_state()
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as old,
        pytest.raises(sqlite3.OperationalError, match="no such table: numbering"),
    ):
        old.execute("UPDATE numbering SET last = last + 1")


def test_a_file_has_one_mark_whatever_it_is_called(
    open_state: Open, path: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    state = open_state()
    assert reason(state, "a") is None
    (elsewhere / "link.db").symlink_to(path)
    other = SqliteState(elsewhere / "link.db", now=lambda: NOW)

    revoke(other, "a")

    assert reason(state, "a") is Reason.REVOKED
    revoke(state, "b")
    assert reason(other, "b") is Reason.REVOKED
    other.close()


@pytest.mark.requirement("R-16")
def test_what_is_withdrawn_in_a_file_that_went_back_is_seen(open_state: Open, path: Path) -> None:
    state = open_state()
    with closing(sqlite3.connect(path)) as file, closing(sqlite3.connect(":memory:")) as backup:
        file.backup(backup)
        revoke(state, "a", "b")
        assert reason(state, "b") is Reason.REVOKED
        backup.backup(file)

    revoke(open_state(), "c")

    assert reason(state, "c") is Reason.REVOKED
