"""What whoever keeps a copy of all that is withdrawn can rely on, in every store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.errors import Reason, TemporarilyUnavailable
from broker.model import OneTimeId, Party, PartyKind, Revocation, Withdrawal
from broker.state.entries import LAST_SECOND, REVOCATION_GRACE, revoked_key, withdrawn_key
from broker.state.memory import MemoryState
from broker.state.sqlite import SqliteState
from broker.state.valkey import ValkeyState
from tests.valkey import ValkeyServer, settled_state

NOW = 1_800_000_000
END = NOW + 300
ALICE = Party(PartyKind.SUBJECT, "alice")

State = MemoryState | SqliteState | ValkeyState


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> int:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite", "valkey"])
def state(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[State]:
    state: State
    if request.param == "memory":
        state = MemoryState(now=clock)
    elif request.param == "valkey":
        server: ValkeyServer = request.getfixturevalue("valkey_server")
        state = settled_state(server, clock)
    else:
        state = SqliteState(tmp_path / "state.db", now=clock)
    yield state
    state.close()


def all_of(state: State) -> list[Revocation]:
    return list(state.revocations_after(0, most=1000))


def refusal(state: State, *, most: int = 1000) -> TemporarilyUnavailable:
    with pytest.raises(TemporarilyUnavailable) as caught:
        state.revocations_after(0, most=most)
    assert caught.value.reason is Reason.REVOCATION_UNAVAILABLE
    return caught.value


def test_nothing_is_withdrawn_to_begin_with(state: State) -> None:
    assert all_of(state) == []


def test_all_that_was_withdrawn_is_told_in_its_order(state: State) -> None:
    state.revoke("one", END)
    state.withdraw(Withdrawal(ALICE, NOW - 60, NOW + 30, NOW + 9000))

    token, party = all_of(state)

    assert token.number < party.number
    assert token.key == revoked_key("one")
    assert (token.issued_since, token.issued_until) == (0, LAST_SECOND)
    assert token.kept_until == END + REVOCATION_GRACE
    assert party.key == withdrawn_key(ALICE)
    assert (party.issued_since, party.issued_until) == (NOW - 60, NOW + 30)
    assert party.kept_until == NOW + 9000 + REVOCATION_GRACE


@pytest.mark.requirement("RPL-07")
def test_whoever_has_the_first_is_told_the_rest_and_then_nothing(state: State) -> None:
    for jti in ("one", "two", "three"):
        state.revoke(jti, END)
    first, *rest = all_of(state)

    assert state.revocations_after(first.number, most=1000) == rest
    assert list(state.revocations_after(rest[-1].number, most=1000)) == []


@pytest.mark.requirement("RPL-07")
def test_what_is_withdrawn_for_more_is_told_again(state: State) -> None:
    state.withdraw(Withdrawal(ALICE, NOW, NOW, END))
    state.revoke("one", END)
    told = all_of(state)[-1].number

    state.withdraw(Withdrawal(ALICE, NOW - 9, NOW + 9, END + 9))

    (again,) = state.revocations_after(told, most=1000)
    assert again.key == withdrawn_key(ALICE)
    assert (again.issued_since, again.issued_until) == (NOW - 9, NOW + 9)
    assert again.kept_until == END + 9 + REVOCATION_GRACE
    assert [one.key for one in all_of(state)] == [revoked_key("one"), again.key]


@pytest.mark.requirement("RPL-11")
def test_spent_ids_are_not_told(state: State) -> None:
    state.spend((OneTimeId("client_assertion", "agent-x", "one", END, NOW),))

    assert all_of(state) == []


@pytest.mark.requirement("RPL-07")
def test_a_number_is_never_given_twice_whatever_is_forgotten(state: State, clock: Clock) -> None:
    """Whoever stopped at a number that is forgotten by now misses nothing that came after it."""
    state.revoke("short", NOW + 1)
    told = all_of(state)[-1].number
    clock.at = NOW + 2 + REVOCATION_GRACE

    state.revoke("long", clock.at + 300)

    assert [one.key for one in all_of(state)] == [revoked_key("long")]
    assert [one.key for one in state.revocations_after(told, most=9)] == [revoked_key("long")]


def test_it_refuses_rather_than_leave_something_out(state: State) -> None:
    for number in range(4):
        state.revoke(f"token-{number}", END)

    assert len(list(state.revocations_after(0, most=4))) == 4
    assert "more is withdrawn" in refusal(state, most=3).detail


@pytest.mark.requirement("R-22")
def test_it_refuses_while_the_clock_is_behind_what_was_forgotten(
    state: State, clock: Clock
) -> None:
    state.revoke("short", NOW + 1)
    clock.at = NOW + 2 + REVOCATION_GRACE
    state.revoke("long", clock.at + 300)

    clock.at = NOW

    assert "clock" in refusal(state).detail


def test_a_closed_store_tells_nothing(state: State) -> None:
    state.close()

    refusal(state)
