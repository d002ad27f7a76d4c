"""A Valkey that forgets, comes back older or is another: nothing works twice, and nothing revives."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from broker.errors import Reason, TemporarilyUnavailable
from broker.model import OneTimeId, Party, PartyKind, Pedigree, Withdrawal
from broker.state.entries import everything_key, revoked_key, spent_key
from broker.state.valkey import ValkeyState
from broker.state.valkey_keeper import StoreTerms
from broker.state.valkey_scripts import SETTLING
from tests.e2e.patience import until
from tests.fault_proxy import FaultProxy, fault_proxy
from tests.valkey import CAPACITY, LEEWAY, ValkeyServer, open_state, running, servers_at

NOW = 1_800_000_000
ALICE = Party(PartyKind.SUBJECT, "alice")
SPENT = 200
SECONDS = int(LEEWAY.total_seconds())


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> int:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A server for one test, which keeps nothing on disk unless told to."""
    with running(tmp_path / "own-valkey") as server:
        yield server


@pytest.fixture
def other(tmp_path: Path) -> Iterator[ValkeyServer]:
    """Another one."""
    with running(tmp_path / "other-valkey") as server:
        yield server


@pytest.fixture
def proxy(server: ValkeyServer) -> Iterator[FaultProxy]:
    """Where the brokers believe the server to be."""
    with fault_proxy(server.port) as proxy:
        yield proxy


Open = Callable[[], ValkeyState]


@pytest.fixture
def opened(proxy: FaultProxy, clock: Clock) -> Iterator[Open]:
    """Opens the store as each process of each broker does."""
    states: list[ValkeyState] = []

    def open_one() -> ValkeyState:
        terms = StoreTerms("epochs", capacity=CAPACITY)
        states.append(open_state(servers_at(proxy.port), now=clock, terms=terms))
        return states[-1]

    yield open_one
    for state in states:
        state.close()


@pytest.fixture
def state(opened: Open, clock: Clock) -> ValkeyState:
    """A store that has been in use for a while, in which some ids are spent and some tokens withdrawn."""
    state = opened()
    clock.at += 60
    state.check()
    for one in spent(clock):
        assert state.spend((one,)) is None
    state.revoke("revoked", clock.at + 300)
    state.withdraw(Withdrawal(ALICE, 0, clock.at, clock.at + 86_400))
    state.check()
    return state


def spent(clock: Clock) -> Sequence[OneTimeId]:
    return [one_time_id(clock, f"spent-{number}") for number in range(SPENT)]


def one_time_id(clock: Clock, jti: str) -> OneTimeId:
    """Of a token that is being issued."""
    return OneTimeId("id_jag", "https://idp.test", jti, clock.at + 330, clock.at - SECONDS)


def look_after(*states: ValkeyState) -> None:
    """Every process looks after the store again and again, whatever it finds."""
    for state in states:
        with suppress(TemporarilyUnavailable):
            state.check()


def is_there(*states: ValkeyState) -> bool:
    """Whether the store has been found again, be it only to refuse."""
    for state in states:
        try:
            state.check()
        except TemporarilyUnavailable as refused:
            if "anew" not in refused.detail:
                return False
    return True


def settle(clock: Clock, *states: ValkeyState) -> None:
    """Let the time pass in which processes give back what they know."""
    until(lambda: is_there(*states), seconds=30, what="the store was found again")
    clock.at += SETTLING
    look_after(*states)


def is_refused(state: ValkeyState, one: OneTimeId) -> bool:
    try:
        return state.spend((one,)) == one
    except TemporarilyUnavailable:
        return True


def accepted_again(state: ValkeyState, ids: Sequence[OneTimeId]) -> list[OneTimeId]:
    return [one for one in ids if not is_refused(state, one)]


def reason(state: ValkeyState, jti: str | None, *parties: Party, issued_at: int) -> Reason | None:
    return state.reason_against(Pedigree(jti, issued_at, frozenset(parties)))


def assert_nothing_came_back(state: ValkeyState, clock: Clock, ids: Sequence[OneTimeId]) -> None:
    """Neither at once nor later, and whoever has something new is served."""
    issued_at = clock.at
    assert accepted_again(state, ids) == []
    settle(clock, state)
    assert accepted_again(state, ids) == []
    clock.at += SECONDS
    state.check()
    assert accepted_again(state, ids) == []
    assert state.spend((one_time_id(clock, "new"),)) is None
    assert reason(state, "revoked", issued_at=issued_at - 60) is Reason.REVOKED
    assert reason(state, None, ALICE, issued_at=issued_at - 60) is Reason.REVOKED
    assert reason(state, "new", issued_at=clock.at + 1) is None


@pytest.mark.requirement("R-12", "R-11")
@pytest.mark.parametrize("how", ["FLUSHALL", "FLUSHDB"])
def test_a_flush_lets_nothing_work_twice(
    server: ValkeyServer, state: ValkeyState, clock: Clock, how: str
) -> None:
    ids = spent(clock)
    server.ask(how)

    assert_nothing_came_back(state, clock, ids)


@pytest.mark.requirement("R-12")
@pytest.mark.parametrize("name", ["facts", "spent", "revoked", "numbers", "ends"])
def test_one_key_removed_lets_nothing_work_twice(
    server: ValkeyServer, state: ValkeyState, clock: Clock, name: str
) -> None:
    ids = spent(clock)
    server.ask("DEL", f"{{epochs}}:{name}")

    assert_nothing_came_back(state, clock, ids)
    told = [one.key for one in state.revocations_after(0, most=99)]
    assert revoked_key("revoked") in told, "whoever makes a copy now misses nothing"
    assert server.ask("ZCARD", "{epochs}:ends") == 1 + len(told), "and all of it is let go one day"


@pytest.mark.requirement("R-11")
def test_a_restart_without_anything_on_disk_lets_nothing_work_twice(
    server: ValkeyServer, state: ValkeyState, clock: Clock
) -> None:
    ids = spent(clock)
    server.restart()

    assert_nothing_came_back(state, clock, ids)


@pytest.mark.requirement("R-11", "R-15")
def test_a_loss_of_power_lets_nothing_work_twice(
    server: ValkeyServer, state: ValkeyState, clock: Clock
) -> None:
    server.ask("CONFIG", "SET", "appendonly", "yes")
    server.ask("CONFIG", "SET", "appendfsync", "no")
    server.set_options("--appendonly", "yes")
    until(lambda: _is_rewritten(server), seconds=30, what="the file is there")
    late = [one_time_id(clock, f"late-{number}") for number in range(SPENT)]
    for one in late:
        state.spend((one,))

    server.kill()
    (written,) = (server.folder / "appendonlydir").glob("*.incr.aof")
    with written.open("r+b") as file:
        # What the system had not yet brought to the disk.
        file.truncate(written.stat().st_size // 2)
    server.start()

    assert server.ask("ZCARD", "{epochs}:spent") < 2 * SPENT, "the last ones are lost"
    assert_nothing_came_back(state, clock, [*spent(clock), *late])


def _is_rewritten(server: ValkeyServer) -> bool:
    facts = server.ask("INFO", "persistence")
    return not facts["aof_rewrite_in_progress"] and not facts["aof_rewrite_scheduled"]


@pytest.mark.requirement("R-11")
def test_a_failover_that_loses_acknowledged_writes_lets_nothing_work_twice(
    server: ValkeyServer, other: ValkeyServer, proxy: FaultProxy, opened: Open, clock: Clock
) -> None:
    """The replica is promoted after the line to it was cut, so it has the epoch and not the ids."""
    with fault_proxy(server.port) as line:
        other.ask("REPLICAOF", "127.0.0.1", line.port)
        until(lambda: _follows(other), seconds=60, what="the replica follows")
        state = opened()
        clock.at += 60
        state.check()
        state.revoke("revoked", clock.at + 300)
        state.withdraw(Withdrawal(ALICE, 0, clock.at, clock.at + 86_400))
        early = [one_time_id(clock, f"early-{number}") for number in range(SPENT)]
        for one in early:
            assert state.spend((one,)) is None
        until(lambda: _has_all(other, server), seconds=30, what="the replica has it all")
        line.cut()
        lost = [one_time_id(clock, f"lost-{number}") for number in range(SPENT)]
        for one in lost:
            assert state.spend((one,)) is None
        state.revoke("lost", clock.at + 300)

        server.kill()
        other.lead()
        proxy.retarget(other.port)

        assert other.ask("ZCARD", "{epochs}:spent") == SPENT + 1, "the last ones are lost"
        issued_at = clock.at - 1
        assert_nothing_came_back(state, clock, [*early, *lost])
        assert reason(state, "lost", issued_at=issued_at) is Reason.REVOKED
        assert reason(state, "never", issued_at=issued_at) is None, "all was known, so others count"


def _follows(server: ValkeyServer) -> bool:
    return bool(server.ask("INFO", "replication")["master_link_status"] == "up")


def _has_all(replica: ValkeyServer, primary: ValkeyServer) -> bool:
    there = replica.ask("INFO", "replication")["slave_repl_offset"]
    return bool(there >= primary.ask("INFO", "replication")["master_repl_offset"])


@pytest.mark.requirement("R-11")
def test_a_server_that_led_before_and_leads_again_is_not_the_one_it_was(
    server: ValkeyServer, other: ValkeyServer, state: ValkeyState, clock: Clock
) -> None:
    """No broker looked while the other one led, and this one has the name of its process still."""
    other.follow(server)
    look_after(state)
    clock.at += 60
    look_after(state)
    ids = [one_time_id(clock, f"id-{number}") for number in range(20)]
    for one in ids:
        assert state.spend((one,)) is None
    other.lead()
    for one in ids:
        other.ask("ZREM", "{epochs}:spent", spent_key(one))
    server.follow(other)
    server.lead()

    assert accepted_again(state, ids) == []
    assert_nothing_came_back(state, clock, ids)


@pytest.mark.requirement("R-16")
def test_yesterdays_backup_lets_nothing_work_twice(
    server: ValkeyServer, state: ValkeyState, clock: Clock
) -> None:
    ids = spent(clock)
    server.ask("SAVE")
    shutil.copy(server.folder / "dump.rdb", server.folder / "backup")
    late = [one_time_id(clock, f"late-{number}") for number in range(SPENT)]
    for one in late:
        state.spend((one,))
    state.revoke("late", clock.at + 300)
    server.kill()
    shutil.copy(server.folder / "backup", server.folder / "dump.rdb")
    server.start()

    issued_at = clock.at - 1
    assert_nothing_came_back(state, clock, [*ids, *late])
    assert reason(state, "late", issued_at=issued_at) is Reason.REVOKED


@pytest.mark.requirement("R-16")
def test_a_backup_put_into_the_running_server_lets_nothing_work_twice(
    server: ValkeyServer, state: ValkeyState, clock: Clock
) -> None:
    names = [f"{{epochs}}:{name}" for name in ("facts", "spent", "revoked", "numbers", "ends")]
    backup = {name: server.ask("DUMP", name) for name in names}
    clock.at += 1
    state.check()
    late = [one_time_id(clock, f"late-{number}") for number in range(SPENT)]
    for one in late:
        state.spend((one,))

    for name, content in backup.items():
        server.ask("RESTORE", name, 0, content, "REPLACE")

    assert_nothing_came_back(state, clock, late)


@pytest.mark.requirement("R-16", "R-12")
def test_when_nobody_is_left_who_knew_everything_issued_before_is_withdrawn(
    server: ValkeyServer, state: ValkeyState, opened: Open, clock: Clock
) -> None:
    ids, issued_at = spent(clock), clock.at
    state.close()
    server.ask("FLUSHALL")

    later = opened()
    assert accepted_again(later, ids) == []
    for jti in ("revoked", "never"):
        with pytest.raises(TemporarilyUnavailable) as caught:
            reason(later, jti, issued_at=issued_at)
        assert caught.value.reason is Reason.REVOCATION_UNAVAILABLE
    settle(clock, later)

    for one in ("revoked", "never", None):
        assert reason(later, one, issued_at=issued_at) is Reason.REVOKED
        assert reason(later, one, issued_at=issued_at + SECONDS) is Reason.REVOKED
        assert reason(later, one, issued_at=issued_at + SECONDS + 1) is None
    assert accepted_again(later, ids) == []
    (everything,) = later.revocations_after(0, most=9)
    assert everything.key == everything_key(), "whoever keeps a copy is told as well"
    assert (everything.issued_since, everything.issued_until) == (0, issued_at + SECONDS)
    assert everything.kept_until > issued_at + 31 * 86_400


@pytest.mark.requirement("R-16")
def test_who_came_when_it_was_being_settled_vouches_for_nothing(
    server: ValkeyServer, state: ValkeyState, opened: Open, clock: Clock
) -> None:
    issued_at = clock.at
    state.close()
    server.ask("FLUSHALL")
    newcomer = opened()
    look_after(newcomer)

    server.ask("FLUSHALL")
    settle(clock, newcomer)

    assert reason(newcomer, "never", issued_at=issued_at) is Reason.REVOKED


@pytest.mark.requirement("R-12")
def test_what_one_process_alone_knew_is_back_before_anybody_answers(
    server: ValkeyServer, state: ValkeyState, opened: Open, clock: Clock
) -> None:
    """The other one vouched first, since it cannot know what came after its last look."""
    issued_at = clock.at
    here = opened()
    look_after(here)
    state.revoke("last", clock.at + 300)
    server.ask("FLUSHALL")

    until(lambda: is_there(here), seconds=30, what="the store was found again")
    with pytest.raises(TemporarilyUnavailable):
        reason(here, "last", issued_at=issued_at)
    look_after(state)
    settle(clock, here, state)

    for one in (here, state):
        assert reason(one, "last", issued_at=issued_at) is Reason.REVOKED
        assert reason(one, "never", issued_at=issued_at) is None


@pytest.mark.requirement("R-11")
def test_what_this_process_withdrew_and_no_look_has_found_is_withdrawn_again(
    server: ValkeyServer, state: ValkeyState, clock: Clock
) -> None:
    """As when it was told to a primary that had just been replaced, after the epoch was joined."""
    state.revoke("late", clock.at + 300)
    server.ask("HDEL", "{epochs}:revoked", revoked_key("late"))
    for name in ("numbers", "ends"):
        server.ask("ZREM", f"{{epochs}}:{name}", revoked_key("late"))
    assert reason(state, "late", issued_at=clock.at) is None

    state.check()

    assert reason(state, "late", issued_at=clock.at) is Reason.REVOKED


@pytest.mark.requirement("RPL-07")
def test_who_keeps_a_copy_misses_nothing_over_a_flush(
    server: ValkeyServer, state: ValkeyState, clock: Clock
) -> None:
    """Numbers go on where they were, though nothing of them is left."""
    told = state.revocations_after(0, most=99)[-1].number
    clock.at += 1
    server.ask("FLUSHALL")
    with pytest.raises(TemporarilyUnavailable):
        state.revocations_after(told, most=99)
    settle(clock, state)

    state.revoke("new", clock.at + 300)

    news = [one.key for one in state.revocations_after(told, most=99)]
    assert revoked_key("new") in news
    assert revoked_key("revoked") in news, "what was given back is told again"


@pytest.mark.requirement("R-12")
def test_only_what_could_have_been_spent_before_is_refused(
    server: ValkeyServer, state: ValkeyState, clock: Clock
) -> None:
    server.ask("FLUSHALL")
    began = clock.at
    settle(clock, state)
    clock.at += SECONDS

    def token(since: int) -> OneTimeId:
        return OneTimeId("id_jag", "https://idp.test", f"since-{since}", clock.at + 300, since)

    assert is_refused(state, token(0)), "nobody knows when it was issued"
    assert is_refused(state, token(began))
    assert not is_refused(state, token(began + 1))


@pytest.mark.requirement("R-12")
def test_readiness_is_down_until_fresh_tokens_are_taken(
    server: ValkeyServer, state: ValkeyState, clock: Clock
) -> None:
    server.ask("FLUSHALL")
    began = clock.at
    look_after(state)

    for clock.at in (began, began + SETTLING, began + SECONDS):
        with pytest.raises(TemporarilyUnavailable, match="replay_store_unavailable") as told:
            state.check()
        assert told.value.well_in == began + SECONDS + 1 - clock.at
        assert is_refused(state, one_time_id(clock, "fresh"))

    clock.at = began + SECONDS + 1
    state.check()
    assert not is_refused(state, one_time_id(clock, "fresh"))


@pytest.mark.requirement("R-12")
def test_a_store_emptied_while_it_is_joined_is_joined_at_the_next_look(
    server: ValkeyServer, state: ValkeyState, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, join = spent(clock), state._keeper._join

    def join_and_empty() -> None:
        join()
        server.ask("FLUSHALL")

    server.ask("FLUSHALL")
    with monkeypatch.context() as patched:
        patched.setattr(state._keeper, "_join", join_and_empty)
        with pytest.raises(TemporarilyUnavailable) as caught:
            state.check()

    assert "forgotten" in caught.value.detail
    assert_nothing_came_back(state, clock, ids)


def test_two_processes_that_find_it_at_once_begin_one_epoch(
    server: ValkeyServer, state: ValkeyState, opened: Open
) -> None:
    here = opened()
    server.ask("FLUSHALL")
    look_after(state, here)
    epoch = server.ask("HGET", "{epochs}:facts", "epoch")

    look_after(state, here)

    assert server.ask("HGET", "{epochs}:facts", "epoch") == epoch


@pytest.mark.usefixtures("state")
def test_a_store_that_is_well_is_joined_without_more_ado(
    server: ValkeyServer, opened: Open, clock: Clock
) -> None:
    epoch = server.ask("HGET", "{epochs}:facts", "epoch")

    here = opened()
    here.check()

    assert here.spend((one_time_id(clock, "here"),)) is None
    assert server.ask("HGET", "{epochs}:facts", "epoch") == epoch


@pytest.mark.requirement("R-22")
def test_the_servers_own_clock_decides_for_all_brokers(server: ValkeyServer) -> None:
    """One whose clock is far off is not ready, and lets go of nothing that others need."""
    now = int(time.time())
    fast = open_state(servers_at(server.port), now=None, terms=StoreTerms("clocks"))
    fast._now = lambda: now + 3600
    one = OneTimeId("id_jag", "https://idp.test", "jti", now + 330, now + 100)
    assert fast.spend((one,)) is None

    with pytest.raises(TemporarilyUnavailable) as caught:
        fast.check()

    assert "clock differs by 3" in caught.value.detail
    assert fast.spend((one,)) == one
    assert server.ask("ZCARD", "{clocks}:spent") == 2
    fast.close()
