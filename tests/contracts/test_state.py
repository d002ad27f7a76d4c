"""What every store of spent ids and withdrawn tokens must do."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.errors import Reason, TemporarilyUnavailable
from broker.model import OneTimeId, Party, PartyKind, Pedigree, Withdrawal
from broker.state.memory import MemoryState
from broker.state.sqlite import SqliteState
from broker.state.valkey import ValkeyState
from tests.valkey import ValkeyServer, settled_state

NOW = 1_800_000_000
LIFE = 330

State = MemoryState | SqliteState | ValkeyState
MakeState = Callable[[], State]


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
def make_state(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[MakeState]:
    """Make empty stores, each with room for a few hundred entries."""
    made: list[State] = []

    def make() -> State:
        state: State
        if request.param == "memory":
            state = MemoryState(now=clock, capacity=600)
        elif request.param == "valkey":
            server: ValkeyServer = request.getfixturevalue("valkey_server")
            state = settled_state(server, clock)
        else:
            path = tmp_path / f"state-{len(made)}.db"
            state = SqliteState(path, now=clock, max_bytes=25 * 4096)
        made.append(state)
        return state

    yield make
    for state in made:
        state.close()


@pytest.fixture
def state(make_state: MakeState) -> State:
    return make_state()


def one_time_id(
    jti: str = "jti-1",
    *,
    kind: str = "client_assertion",
    issuer: str = "agent-x",
    until: int = NOW + LIFE,
    since: int = NOW - 3600,
) -> OneTimeId:
    return OneTimeId(kind, issuer, jti, until, since)


def spend_at_once(state: State, one_time_ids: Sequence[OneTimeId]) -> list[OneTimeId | None]:
    """Spend each id from a thread of its own, all at the same moment."""
    start = threading.Barrier(len(one_time_ids))
    answers: list[OneTimeId | None] = []

    def spend(one: OneTimeId) -> None:
        start.wait()
        answers.append(state.spend((one,)))

    threads = [threading.Thread(target=spend, args=(one,)) for one in one_time_ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def pedigree(
    jti: str | None = "jti-1",
    *parties: Party,
    issued_at: int = NOW,
    ancestors: tuple[str, ...] = (),
) -> Pedigree:
    return Pedigree(jti, issued_at, frozenset(parties), ancestors)


def is_revoked(state: State, jti: str) -> bool:
    return state.reason_against(pedigree(jti)) is Reason.REVOKED


def withdrawal(
    party: Party, *, since: int = 0, until: int = NOW + 30, kept_until: int = NOW + 86_460
) -> Withdrawal:
    return Withdrawal(party, since, until, kept_until)


def is_refused(state: State, one: OneTimeId) -> bool:
    """Whether the store knows the id as spent, or refuses because it cannot know."""
    try:
        return state.spend((one,)) == one
    except TemporarilyUnavailable:
        return True


@pytest.mark.requirement("RPL-01")
def test_an_id_is_spent_once_and_then_named(state: State) -> None:
    one = one_time_id()

    assert state.spend((one,)) is None
    assert state.spend((one,)) == one
    assert state.spend((one,)) == one


@pytest.mark.requirement("RPL-02")
def test_of_64_callers_at_once_one_is_told_yes(state: State) -> None:
    one = one_time_id()

    answers = spend_at_once(state, [one] * 64)

    assert sorted(answers, key=lambda answer: answer is not None) == [None, *[one] * 63]


def test_whether_an_id_is_spent_is_told_without_spending_it(state: State) -> None:
    one, other = one_time_id(), one_time_id("jti-2")

    assert not state.is_spent(one)
    assert state.spend((one,)) is None

    assert state.is_spent(one)
    assert not state.is_spent(other)
    assert not state.is_spent(one_time_id(kind="id_jag"))
    assert state.spent_count() == 1


def test_a_spent_id_is_told_as_spent_in_its_last_second_and_after(
    state: State, clock: Clock
) -> None:
    one = one_time_id(until=NOW + 10)
    state.spend((one,))
    clock.at = NOW + 10
    assert state.is_spent(one)

    clock.at = NOW + 11
    assert state.is_spent(one)


def test_whether_an_id_is_spent_is_not_guessed(state: State, clock: Clock) -> None:
    """Not when the clock has gone back behind what was forgotten, nor when the store is closed."""
    forgotten = one_time_id(until=NOW + 10)
    state.spend((forgotten,))
    clock.at = NOW + 100
    state.spend((one_time_id("later", until=NOW + 500),))
    clock.at = NOW

    with pytest.raises(TemporarilyUnavailable) as refused:
        state.is_spent(forgotten)
    assert refused.value.reason is Reason.REPLAY_STORE_UNAVAILABLE

    state.close()
    with pytest.raises(TemporarilyUnavailable):
        state.is_spent(one_time_id("another"))


def test_callers_with_different_ids_do_not_hinder_each_other(state: State) -> None:
    answers = spend_at_once(state, [one_time_id(f"jti-{number}") for number in range(32)])

    assert answers == [None] * 32
    assert state.spent_count() == 32


def test_several_ids_are_spent_together(state: State) -> None:
    first, second = one_time_id("jti-1"), one_time_id("jti-2", kind="id_jag")

    assert state.spend((first, second)) is None
    assert state.spend((first,)) == first
    assert state.spend((second,)) == second


def test_when_one_of_several_was_spent_before_none_is_spent(state: State) -> None:
    first, spent, last = one_time_id("jti-1"), one_time_id("jti-2"), one_time_id("jti-3")
    state.spend((spent,))

    assert state.spend((first, spent, last)) == spent
    assert state.spend((first, last)) is None


def test_an_id_given_twice_in_one_call_counts_as_spent_before(state: State) -> None:
    one, other = one_time_id("jti-1"), one_time_id("jti-2")

    assert state.spend((other, one, one)) == one
    assert state.spend((other, one)) is None


def test_no_ids_are_spent_without_trouble(state: State) -> None:
    assert state.spend(()) is None
    assert state.spent_count() == 0


@pytest.mark.requirement("RPL-11")
@pytest.mark.parametrize(
    "other",
    [
        one_time_id("b", kind="id_jag", issuer="a"),
        one_time_id("b", kind="dpop", issuer="a"),
        one_time_id("b", issuer="c"),
        one_time_id("", issuer="ab"),
        one_time_id("ab", issuer=""),
        one_time_id("b", kind="client_assertiona", issuer=""),
        one_time_id("b", kind="client_assertion\x00", issuer="a"),
        one_time_id("B", issuer="a"),
    ],
)
def test_ids_that_differ_in_any_part_never_meet(state: State, other: OneTimeId) -> None:
    one = one_time_id("b", issuer="a")

    assert state.spend((one,)) is None
    assert state.spend((other,)) is None
    assert state.spend((one,)) == one
    assert state.spend((other,)) == other


@pytest.mark.requirement("RPL-11")
def test_a_revocation_neither_spends_nor_frees_an_id(state: State) -> None:
    spent, unspent = one_time_id("spent"), one_time_id("unspent")
    state.spend((spent,))

    for jti in ("spent", "unspent"):
        state.revoke(jti, NOW + LIFE)

    assert state.spend((spent,)) == spent
    assert state.spend((unspent,)) is None


@pytest.mark.requirement("RPL-11")
@pytest.mark.parametrize("kind", ["revoked", "spent", ""])
def test_a_spent_id_revokes_nothing(state: State, kind: str) -> None:
    state.spend((one_time_id("jti-1", kind=kind, issuer=""),))

    assert not is_revoked(state, "jti-1")


@pytest.mark.parametrize("jti", ["", "\ud800", "\x00", "a" * 100_000, "'; DROP TABLE spent; --"])
def test_an_id_may_be_any_text(state: State, jti: str) -> None:
    assert state.spend((one_time_id(jti),)) is None
    assert state.spend((one_time_id(jti),)) == one_time_id(jti)
    assert not is_revoked(state, jti)


@pytest.mark.requirement("RPL-01")
def test_an_id_is_remembered_through_its_last_second(state: State, clock: Clock) -> None:
    one = one_time_id(until=NOW + LIFE)
    state.spend((one,))

    clock.at = NOW + LIFE

    assert state.spend((one,)) == one


@pytest.mark.requirement("RPL-01")
def test_an_id_that_expires_on_its_way_to_the_store_is_spent_once(
    state: State, clock: Clock
) -> None:
    """Verified in its last second and spent in the next, it is still one token."""
    clock.at = NOW + LIFE + 1

    assert state.spend((one_time_id(until=NOW + LIFE),)) is None
    assert is_refused(state, one_time_id(until=NOW + LIFE))


def test_an_id_whose_time_has_passed_may_be_taken_over(state: State, clock: Clock) -> None:
    state.spend((one_time_id(until=NOW + LIFE),))

    clock.at = NOW + LIFE + 1
    later = one_time_id(until=NOW + 2 * LIFE)

    assert state.spend((later,)) is None
    assert state.spend((later,)) == later


@pytest.mark.requirement("R-22")
def test_a_clock_that_goes_back_finds_spent_ids_spent(state: State, clock: Clock) -> None:
    one = one_time_id()
    state.spend((one,))

    clock.at = NOW - 600

    assert state.spend((one,)) == one


@pytest.mark.requirement("R-22")
def test_a_clock_that_leapt_ahead_and_back_revives_nothing(state: State, clock: Clock) -> None:
    one = one_time_id()
    state.spend((one,))
    clock.at = NOW + 3600
    state.spend((one_time_id("other", until=NOW + 3600 + LIFE),))
    assert state.spent_count() == 1, "what had expired by that clock is forgotten"

    clock.at = NOW

    with pytest.raises(TemporarilyUnavailable) as caught:
        state.spend((one,))
    assert caught.value.reason is Reason.REPLAY_STORE_UNAVAILABLE


@pytest.mark.requirement("R-22")
def test_after_a_leap_of_the_clock_new_ids_are_accepted_again(state: State, clock: Clock) -> None:
    state.spend((one_time_id(until=NOW + LIFE),))
    clock.at = NOW + 3600
    state.spend((one_time_id("other", until=NOW + 3600 + LIFE),))

    clock.at = NOW + 1

    assert state.spend((one_time_id("new", until=NOW + 1 + LIFE),)) is None


@pytest.mark.requirement("R-22")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("clock"), st.integers(-900, 900)),
            st.tuples(st.integers(0, 3), st.integers(-30, LIFE)),
        ),
        max_size=40,
    )
)
def test_no_token_is_accepted_twice_whatever_the_clock_does(
    make_state: MakeState, clock: Clock, steps: list[tuple[int | str, int]]
) -> None:
    """A token is an id with its last second, which is chosen around the clock's present."""
    state, clock.at = make_state(), NOW
    accepted: set[OneTimeId] = set()
    for what, amount in steps:
        if what == "clock":
            clock.at += amount
            continue
        one = one_time_id(f"jti-{what}", until=clock.at + amount)
        if not is_refused(state, one):
            assert one not in accepted
            accepted.add(one)


def test_a_revoked_token_is_revoked_and_others_are_not(state: State) -> None:
    state.revoke("jti-1", NOW + 300)

    assert is_revoked(state, "jti-1")
    assert not is_revoked(state, "jti-2")


@pytest.mark.parametrize("again", [NOW + 10, NOW + 9000])
def test_a_token_revoked_again_is_revoked_for_the_longer_time(
    state: State, clock: Clock, again: int
) -> None:
    state.revoke("jti-1", NOW + 300)
    state.revoke("jti-1", again)

    clock.at = max(NOW + 300, again)
    state.revoke("other", clock.at + 300)

    assert is_revoked(state, "jti-1")


@pytest.mark.requirement("R-22")
def test_a_revocation_outlives_its_token_against_a_small_step_back(
    state: State, clock: Clock
) -> None:
    state.revoke("jti-1", NOW + 300)
    clock.at = NOW + 3000
    state.revoke("other", NOW + 3300)

    clock.at = NOW

    assert is_revoked(state, "jti-1")


@pytest.mark.requirement("R-22")
def test_a_clock_behind_forgotten_revocations_makes_the_list_refuse(
    state: State, clock: Clock
) -> None:
    state.revoke("jti-1", NOW + 300)
    clock.at = NOW + 86_400
    state.revoke("other", clock.at + 300)

    clock.at = NOW + 300

    for jti in ("jti-1", "other", "never"):
        with pytest.raises(TemporarilyUnavailable) as caught:
            is_revoked(state, jti)
        assert caught.value.reason is Reason.REVOCATION_UNAVAILABLE

    clock.at = NOW + 301
    assert not is_revoked(state, "never")


ALICE = Party(PartyKind.SUBJECT, "alice")


def test_a_token_whose_ancestor_was_revoked_is_told_apart_from_a_revoked_one(state: State) -> None:
    state.revoke("first", NOW + 300)

    child = pedigree("child", ancestors=("first",))
    grandchild = pedigree("grandchild", ancestors=("first", "child"))
    assert state.reason_against(child) is Reason.ANCESTOR_REVOKED
    assert state.reason_against(grandchild) is Reason.ANCESTOR_REVOKED
    assert state.reason_against(pedigree("cousin", ancestors=("other",))) is None

    state.revoke("grandchild", NOW + 300)
    assert state.reason_against(grandchild) is Reason.REVOKED


def test_any_of_sixty_four_ancestors_ends_a_token(state: State) -> None:
    ancestors = tuple(f"jti-{number}" for number in range(64))
    assert state.reason_against(pedigree("last", ALICE, ancestors=ancestors)) is None

    state.revoke("jti-0", NOW + 300)

    late = pedigree("last", ALICE, ancestors=ancestors)
    assert state.reason_against(late) is Reason.ANCESTOR_REVOKED
    assert state.reason_against(pedigree("last", ALICE, ancestors=ancestors[1:])) is None


@pytest.mark.parametrize("kind", list(PartyKind))
def test_what_was_issued_for_a_party_in_the_time_withdrawn_does_not_count(
    state: State, kind: PartyKind
) -> None:
    party = Party(kind, "alice")
    state.withdraw(withdrawal(party, since=NOW - 600, until=NOW + 30))

    def reason(issued_at: int) -> Reason | None:
        return state.reason_against(pedigree("any", party, issued_at=issued_at))

    assert [reason(NOW - 600), reason(NOW), reason(NOW + 30)] == [Reason.REVOKED] * 3
    assert [reason(NOW - 601), reason(NOW + 31)] == [None, None]


def test_another_issuers_token_has_no_id_here_but_its_parties_count(state: State) -> None:
    state.revoke("jti-1", NOW + 300)
    assert state.reason_against(pedigree(None, ALICE)) is None

    state.withdraw(withdrawal(ALICE))

    assert state.reason_against(pedigree(None, ALICE)) is Reason.REVOKED


@pytest.mark.requirement("RPL-09")
@pytest.mark.parametrize("is_later_first", [True, False])
def test_of_two_cut_offs_for_one_party_both_hold(state: State, *, is_later_first: bool) -> None:
    early = withdrawal(ALICE, since=NOW - 900, until=NOW - 600)
    late = withdrawal(ALICE, since=NOW - 300, until=NOW + 30)
    for one in (late, early) if is_later_first else (early, late):
        state.withdraw(one)

    for issued_at in (NOW - 900, NOW - 600, NOW - 300, NOW + 30):
        assert state.reason_against(pedigree("any", ALICE, issued_at=issued_at)) is Reason.REVOKED
    for issued_at in (NOW - 901, NOW + 31):
        assert state.reason_against(pedigree("any", ALICE, issued_at=issued_at)) is None


@pytest.mark.requirement("RPL-09")
def test_a_wide_cut_off_and_a_narrow_one_hold_at_once(state: State) -> None:
    issuer, client = Party(PartyKind.ISSUER, "https://idp.test"), Party(PartyKind.CLIENT, "agent-x")
    state.withdraw(withdrawal(issuer, until=NOW - 100))
    state.withdraw(withdrawal(client, until=NOW))

    def reason(*parties: Party, issued_at: int) -> Reason | None:
        return state.reason_against(pedigree("any", *parties, issued_at=issued_at))

    assert reason(issuer, client, issued_at=NOW - 50) is Reason.REVOKED
    assert reason(issuer, client, issued_at=NOW - 150) is Reason.REVOKED
    assert reason(issuer, issued_at=NOW - 50) is None
    assert reason(client, issued_at=NOW + 1) is None


@pytest.mark.requirement("RPL-11")
@pytest.mark.parametrize(
    "other",
    [
        Party(PartyKind.CLIENT, "alice"),
        Party(PartyKind.ISSUER, "alice"),
        Party(PartyKind.MCP_SERVER, "alice"),
        Party(PartyKind.SUBJECT, "Alice"),
        Party(PartyKind.SUBJECT, "alice "),
        Party(PartyKind.SUBJECT, ""),
    ],
)
def test_a_withdrawal_is_for_one_party_of_one_kind(state: State, other: Party) -> None:
    state.withdraw(withdrawal(ALICE))

    assert state.reason_against(pedigree("any", other)) is None
    assert state.reason_against(pedigree("any", other, ALICE)) is Reason.REVOKED


@pytest.mark.requirement("RPL-11")
def test_withdrawals_revocations_and_spent_ids_of_one_name_never_meet(state: State) -> None:
    name = "one-name"
    for kind in ("withdrawn", "revoked", "subject"):
        state.spend((one_time_id(name, kind=kind, issuer="subject"),))
    assert state.reason_against(pedigree(name, Party(PartyKind.SUBJECT, name))) is None

    state.revoke(name, NOW + 300)
    assert state.reason_against(pedigree("other", Party(PartyKind.SUBJECT, name))) is None

    state.withdraw(withdrawal(Party(PartyKind.SUBJECT, name)))
    assert state.reason_against(pedigree("other", ancestors=(name,))) is Reason.ANCESTOR_REVOKED
    assert state.spend((one_time_id(name),)) is None


@pytest.mark.parametrize(
    "name", ["", "\ud800", "\x00", "a" * 100_000, "'); DROP TABLE revoked; --"]
)
def test_a_party_may_have_any_name(state: State, name: str) -> None:
    party = Party(PartyKind.CLIENT, name)
    assert state.reason_against(pedigree("any", party)) is None

    state.withdraw(withdrawal(party))

    assert state.reason_against(pedigree("any", party)) is Reason.REVOKED


@pytest.mark.requirement("RPL-05")
def test_withdrawing_for_one_party_again_and_again_takes_no_more_room(state: State) -> None:
    for number in range(2_000):
        state.withdraw(withdrawal(ALICE, until=NOW + number))

    assert state.reason_against(pedigree("any", ALICE, issued_at=NOW + 1_999)) is Reason.REVOKED
    state.revoke("another", NOW + 300)


@pytest.mark.requirement("R-22")
def test_a_withdrawal_is_kept_until_all_that_it_covers_is_dead(state: State, clock: Clock) -> None:
    state.withdraw(withdrawal(ALICE, kept_until=NOW + 86_460))
    clock.at = NOW + 86_460 + 3_600
    state.revoke("other", clock.at + 300)
    assert state.reason_against(pedigree("any", ALICE)) is Reason.REVOKED

    clock.at += 1
    state.revoke("another", clock.at + 300)

    assert state.reason_against(pedigree("any", ALICE)) is None


@pytest.mark.requirement("RPL-05")
def test_a_full_store_refuses_and_serves_again_when_entries_expire(
    state: State, clock: Clock
) -> None:
    def flood() -> None:
        for number in range(5_000):
            state.spend((one_time_id(f"jti-{number}"),))

    with pytest.raises(TemporarilyUnavailable) as caught:
        flood()
    assert caught.value.reason is Reason.REPLAY_STORE_UNAVAILABLE
    kept = state.spent_count()
    assert 200 < kept <= 1_000
    assert state.spend((one_time_id("jti-0"),)) == one_time_id("jti-0"), "nothing is forgotten"

    clock.at = NOW + LIFE + 1

    assert state.spend((one_time_id("new", until=clock.at + LIFE),)) is None


@pytest.mark.requirement("RPL-05")
def test_a_flood_of_revocations_is_refused_when_there_is_no_room(state: State) -> None:
    def flood() -> None:
        for number in range(5_000):
            state.revoke(f"jti-{number}", NOW + LIFE)

    with pytest.raises(TemporarilyUnavailable) as caught:
        flood()

    assert caught.value.reason is Reason.REVOCATION_UNAVAILABLE
    assert is_revoked(state, "jti-0")


def test_one_spend_lets_go_of_at_most_two_hundred_entries(state: State, clock: Clock) -> None:
    for number in range(300):
        state.spend((one_time_id(f"jti-{number}"),))
    clock.at = NOW + LIFE + 1

    counts = []
    for number in range(3):
        state.spend((one_time_id(f"new-{number}", until=clock.at + LIFE),))
        counts.append(state.spent_count())

    assert counts == [101, 2, 3]


@pytest.mark.requirement("RPL-03")
def test_a_closed_store_refuses_everything(state: State) -> None:
    state.close()

    refused: list[tuple[Callable[[], object], Reason]] = [
        (lambda: state.spend((one_time_id(),)), Reason.REPLAY_STORE_UNAVAILABLE),
        (state.check, Reason.REPLAY_STORE_UNAVAILABLE),
        (lambda: is_revoked(state, "jti"), Reason.REVOCATION_UNAVAILABLE),
        (lambda: state.revoke("jti", NOW), Reason.REVOCATION_UNAVAILABLE),
        (lambda: state.withdraw(withdrawal(ALICE)), Reason.REVOCATION_UNAVAILABLE),
    ]
    for call, reason in refused:
        with pytest.raises(TemporarilyUnavailable) as caught:
            call()
        assert caught.value.reason is reason


def test_a_working_store_passes_its_check_and_closes_twice(state: State) -> None:
    state.check()
    state.close()
    state.close()
