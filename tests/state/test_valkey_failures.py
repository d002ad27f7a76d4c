"""A Valkey that cannot answer as it must: the store says so, soon, and never makes up an answer."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.errors import Reason, TemporarilyUnavailable
from broker.model import OneTimeId, Pedigree
from broker.state.database import StateRefused
from broker.state.valkey import ValkeyState
from broker.state.valkey_keeper import StoreTerms
from broker.state.valkey_opening import Servers
from tests.e2e.patience import until
from tests.valkey import ValkeyServer, new_prefix, open_state, running, servers_at, settled_state

NOW = 1_800_000_000
SHORT = 0.5
# Far less than anybody waits who waits for the server, and time for a busy machine to notice.
PATIENCE = 20.0
TOKEN = Pedigree("jti", NOW, frozenset())


class Clock:
    """A clock that stands."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> int:
        return self.at


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A server for one test, to do with as it likes."""
    options = ("--enable-protected-configs", "yes", "--save", "3600", "1")
    with running(tmp_path / "own-valkey", *options) as server:
        yield server


@pytest.fixture
def state(server: ValkeyServer) -> Iterator[ValkeyState]:
    state = settled_state(server, Clock())
    yield state
    state.close()


def one_time_id(number: int = 0) -> OneTimeId:
    return OneTimeId("client_assertion", "agent-x", f"jti-{number}", NOW + 330, NOW - 30)


def assert_unavailable(call: Callable[[], object], reason: Reason, *, detail: str = "") -> None:
    """It is refused, soon, and for the audit record there is something to say."""
    started = time.monotonic()
    with pytest.raises(TemporarilyUnavailable) as caught:
        call()
    assert time.monotonic() - started < PATIENCE
    assert caught.value.reason is reason
    assert caught.value.detail.startswith("state: ")
    assert detail in caught.value.detail


def assert_writes_refused(state: ValkeyState, *, detail: str) -> None:
    spend = Reason.REPLAY_STORE_UNAVAILABLE
    assert_unavailable(lambda: state.spend((one_time_id(99),)), spend, detail=detail)
    revoked = Reason.REVOCATION_UNAVAILABLE
    assert_unavailable(lambda: state.revoke("jti-99", NOW + 300), revoked, detail=detail)
    assert_unavailable(state.check, spend, detail=detail)


def assert_recovers(state: ValkeyState) -> None:
    """By itself, and nothing that was refused has been done."""

    def is_well() -> bool:
        try:
            state.check()
        except TemporarilyUnavailable:
            return False
        return True

    until(is_well, seconds=30, what="the store is well again")
    assert state.spend((one_time_id(1),)) == one_time_id(1), "what was spent before stays spent"
    assert state.spend((one_time_id(99),)) is None
    assert state.reason_against(TOKEN) is None


@pytest.mark.requirement("RPL-04")
@pytest.mark.parametrize(
    "policy", ["allkeys-lru", "volatile-ttl", "allkeys-random", "volatile-lfu"]
)
def test_a_server_that_forgets_on_purpose_refuses_the_start(
    server: ValkeyServer, policy: str
) -> None:
    server.ask("CONFIG", "SET", "maxmemory-policy", policy)
    state = open_state(servers_at(server.port))

    with pytest.raises(StateRefused, match=f"maxmemory-policy is {policy}; it must be noeviction"):
        state.check_policy()
    assert_unavailable(
        lambda: state.spend((one_time_id(),)), Reason.REPLAY_STORE_UNAVAILABLE, detail=policy
    )
    state.close()


def test_a_server_that_does_not_forget_refuses_nothing(state: ValkeyState) -> None:
    state.check_policy()


@pytest.mark.requirement("RPL-03")
@pytest.mark.parametrize("value", ["", "soon", "1 2 3", "1 2 3 4 5"])
def test_what_somebody_else_has_written_there_is_not_believed(
    server: ValkeyServer, state: ValkeyState, value: str
) -> None:
    state.revoke("jti", NOW + 300)
    (key,) = [name for name in server.ask("HKEYS", _revoked(server)) if name != b"epoch"]
    server.ask("HSET", _revoked(server), key, value)

    for call in (lambda: state.revocations_after(0, most=9), lambda: state.reason_against(TOKEN)):
        assert_unavailable(call, Reason.REVOCATION_UNAVAILABLE)


def test_what_somebody_else_has_removed_there_is_missed(
    server: ValkeyServer, state: ValkeyState
) -> None:
    state.revoke("jti", NOW + 300)
    (key,) = [name for name in server.ask("HKEYS", _revoked(server)) if name != b"epoch"]
    server.ask("HDEL", _revoked(server), key)

    assert_unavailable(lambda: state.revocations_after(0, most=9), Reason.REVOCATION_UNAVAILABLE)


def _revoked(server: ValkeyServer) -> str:
    (name,) = server.ask("KEYS", "*:revoked")
    return str(name.decode())


@pytest.mark.requirement("RPL-04")
def test_a_server_told_to_forget_later_is_not_believed_until_told_otherwise(
    server: ValkeyServer, state: ValkeyState
) -> None:
    state.spend((one_time_id(1),))
    server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")

    assert_unavailable(state.check, Reason.REPLAY_STORE_UNAVAILABLE, detail="allkeys-lru")
    assert_writes_refused(state, detail="maxmemory-policy")
    assert_unavailable(lambda: state.reason_against(TOKEN), Reason.REVOCATION_UNAVAILABLE)

    server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert_recovers(state)


@pytest.mark.requirement("RPL-03", "R-12")
def test_a_server_without_room_refuses_and_serves_again_when_there_is_some(
    server: ValkeyServer, state: ValkeyState
) -> None:
    state.spend((one_time_id(1),))
    server.ask("CONFIG", "SET", "maxmemory", "1mb")

    assert_writes_refused(state, detail="OOM")
    assert state.reason_against(TOKEN) is None, "reading goes on"

    server.ask("CONFIG", "SET", "maxmemory", "0")
    assert_recovers(state)


@pytest.mark.requirement("RPL-05", "R-12")
def test_what_has_expired_is_let_go_where_there_is_no_room(server: ValkeyServer) -> None:
    clock = Clock()
    state = settled_state(server, clock)
    for number in range(250):
        state.spend((one_time_id(number),))
    server.ask("CONFIG", "SET", "maxmemory", "1mb")
    clock.at = NOW + 331

    for _ in range(2):
        assert_unavailable(state.check, Reason.REPLAY_STORE_UNAVAILABLE, detail="OOM")

    assert state.spent_count() == 0
    state.close()


@pytest.mark.requirement("RPL-03", "R-12")
def test_a_server_that_cannot_save_refuses(server: ValkeyServer, state: ValkeyState) -> None:
    state.spend((one_time_id(1),))
    shutil.rmtree(server.folder)
    server.ask("BGSAVE")
    until(
        lambda: server.ask("INFO", "persistence")["rdb_last_bgsave_status"] == "err",
        seconds=30,
        what="the server failed to save",
    )

    assert_writes_refused(state, detail="MISCONF")
    assert state.reason_against(TOKEN) is None, "reading goes on"

    server.ask("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
    assert_recovers(state)


@pytest.mark.requirement("RPL-03", "R-12")
def test_a_server_that_became_a_replica_is_not_believed(
    server: ValkeyServer, state: ValkeyState, valkey_server: ValkeyServer
) -> None:
    """Nor is it when it has become one of somebody who has nothing."""
    state.spend((one_time_id(1),))
    server.follow(valkey_server)

    assert_unavailable(
        lambda: state.spend((one_time_id(1),)), Reason.REPLAY_STORE_UNAVAILABLE, detail="READONLY"
    )
    assert_unavailable(lambda: state.reason_against(TOKEN), Reason.REVOCATION_UNAVAILABLE)
    assert_unavailable(state.check, Reason.REPLAY_STORE_UNAVAILABLE)


@pytest.mark.requirement("RPL-03", "R-12")
def test_a_server_that_demands_replicas_and_has_none_refuses(
    server: ValkeyServer, state: ValkeyState
) -> None:
    state.spend((one_time_id(1),))
    server.ask("CONFIG", "SET", "min-replicas-to-write", "1")

    assert_writes_refused(state, detail="NOREPLICAS")

    server.ask("CONFIG", "SET", "min-replicas-to-write", "0")
    assert_recovers(state)


@pytest.mark.requirement("RPL-03", "R-12")
def test_a_server_that_is_still_loading_is_waited_for(
    server: ValkeyServer, state: ValkeyState
) -> None:
    for number in range(1000):
        server.ask("SET", f"other-{number}", "x" * 100)
    server.ask("SAVE")
    server.kill()
    server.set_options(
        "--key-load-delay", "50000", "--loading-process-events-interval-bytes", "1024"
    )

    server.start(is_awaited=False)
    until(lambda: _is_loading(state), seconds=30, what="the server is loading")

    assert_unavailable(lambda: state.reason_against(TOKEN), Reason.REVOCATION_UNAVAILABLE)


def _is_loading(state: ValkeyState) -> bool:
    with pytest.raises(TemporarilyUnavailable) as caught:
        state.spend((one_time_id(99),))
    return "LOADING" in caught.value.detail


@pytest.mark.requirement("RPL-03", "R-09")
def test_a_server_that_is_gone_is_missed_at_once_and_waited_for(
    server: ValkeyServer, state: ValkeyState
) -> None:
    server.kill()

    assert_writes_refused(state, detail="unreachable")
    assert_unavailable(lambda: state.reason_against(TOKEN), Reason.REVOCATION_UNAVAILABLE)
    assert_unavailable(lambda: state.revocations_after(0, most=9), Reason.REVOCATION_UNAVAILABLE)


@pytest.mark.requirement("R-09")
def test_a_broker_starts_while_its_store_is_away_and_serves_when_it_comes(tmp_path: Path) -> None:
    server = ValkeyServer(tmp_path / "late")
    state = open_state(servers_at(server.port), now=Clock())
    assert_writes_refused(state, detail="")

    with running(server.folder, port=server.port):
        until(lambda: _is_known_to_be_new(state), seconds=30, what="the store was found")

        assert_unavailable(
            lambda: state.spend((one_time_id(),)), Reason.REPLAY_STORE_UNAVAILABLE, detail="anew"
        )
        state.close()


def _is_known_to_be_new(state: ValkeyState) -> bool:
    with pytest.raises(TemporarilyUnavailable) as caught:
        state.check()
    return "anew" in caught.value.detail


@contextmanager
def secured(tmp_path: Path, *acl: str) -> Iterator[tuple[ValkeyServer, Path]]:
    """A server with a user named ``broker``, and the file of the password."""
    password_file = tmp_path / "password"
    password_file.write_text("a-very-long-secret\n")
    options = ("--requirepass", "another-secret")
    with running(tmp_path / "secured", *options) as server:
        server.ask("ACL", "SETUSER", "broker", "on", ">a-very-long-secret", *acl)
        yield server, password_file


RIGHTS = """
    ~{broker}:* -@all +eval +evalsha +info +wait +time +hset +hsetnx +hget +hmget +hdel +hexists +hlen
    +zadd +zrem +zcard +zscore +zrange
"""
LEAST_RIGHTS = tuple(RIGHTS.split())


def test_the_documented_rights_are_enough(tmp_path: Path) -> None:
    with secured(tmp_path, *LEAST_RIGHTS) as (server, password_file):
        clock = Clock()
        clock.at -= 40 * 86_400
        servers = servers_at(server.port, credential=("broker", password_file))
        state = open_state(servers, now=clock, terms=StoreTerms())
        clock.at += 60
        state.check()
        clock.at = NOW
        state.check()

        assert state.spend((one_time_id(1),)) is None
        state.revoke("jti", NOW + 300)
        assert state.reason_against(TOKEN) is Reason.REVOKED
        assert len(state.revocations_after(0, most=9)) == 1
        state.close()


def test_the_rights_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()

    assert " ".join(LEAST_RIGHTS) in " ".join(text.replace("\\", " ").replace("'", "").split())


@pytest.mark.requirement("R-12")
@pytest.mark.parametrize("right", ["+evalsha +eval", "+info", "+zadd"])
def test_a_user_without_a_right_is_refused(tmp_path: Path, right: str) -> None:
    lacking = [one for one in LEAST_RIGHTS if one not in right.split()]
    with secured(tmp_path, *lacking) as (server, password_file):
        servers = servers_at(server.port, credential=("broker", password_file))
        state = open_state(servers, now=Clock(), terms=StoreTerms())

        assert_unavailable(state.check, Reason.REPLAY_STORE_UNAVAILABLE, detail="NOPERM")
        state.close()


@pytest.mark.requirement("R-12")
@pytest.mark.parametrize("written", ["wrong", "", None, "x" * 5000])
def test_a_wrong_password_or_none_is_refused_and_quoted_nowhere(
    tmp_path: Path, written: str | None
) -> None:
    with secured(tmp_path, *LEAST_RIGHTS) as (server, password_file):
        if written is None:
            password_file.unlink()
        else:
            password_file.write_text(written)
        servers = servers_at(server.port, credential=("broker", password_file))
        state = open_state(servers, now=Clock(), terms=StoreTerms())

        with pytest.raises(TemporarilyUnavailable) as caught:
            state.check()

        assert caught.value.detail in {"state: NOAUTH", "state: unreachable"}
        assert "secret" not in repr(caught.value)
        state.close()


@pytest.mark.requirement("R-12")
def test_a_server_that_wants_a_password_is_refused_without_one(tmp_path: Path) -> None:
    with secured(tmp_path, *LEAST_RIGHTS) as (server, _):
        state = open_state(servers_at(server.port), now=Clock())

        assert_unavailable(state.check, Reason.REPLAY_STORE_UNAVAILABLE, detail="NOAUTH")
        state.close()


def test_a_password_may_be_replaced_while_the_broker_runs(tmp_path: Path) -> None:
    with secured(tmp_path, *LEAST_RIGHTS) as (server, password_file):
        servers = servers_at(server.port, credential=("broker", password_file))
        state = open_state(servers, now=Clock(), terms=StoreTerms())
        password_file.write_text("the next one")
        server.ask("ACL", "SETUSER", "broker", "resetpass", ">the next one")
        server.ask("CLIENT", "KILL", "USER", "broker")

        until(lambda: _is_known_to_be_new(state), seconds=30, what="it logged in again")
        state.close()


def test_another_database_is_another_store(valkey_server: ValkeyServer) -> None:
    terms = StoreTerms(new_prefix())
    first = open_state(_database(valkey_server, 1), now=Clock(), terms=terms)
    first.revoke("jti", NOW + 300)
    second = open_state(_database(valkey_server, 2), now=Clock(), terms=terms)

    assert valkey_server.ask("EXISTS", f"{{{terms.prefix}}}:facts") == 0
    for state in (first, second):
        state.close()


def _database(server: ValkeyServer, number: int) -> Servers:
    return servers_at(server.port, database=number)


@pytest.mark.requirement("RPL-03")
@pytest.mark.parametrize("size", [1, 2])
def test_what_too_few_replicas_have_is_not_acknowledged(
    server: ValkeyServer, tmp_path: Path, size: int
) -> None:
    clock = Clock()
    prefix = new_prefix()
    settled_state(server, clock, prefix=prefix).close()
    with running(tmp_path / "replica") as replica:
        replica.follow(server)
        settled_again(server, clock, prefix)
        terms = StoreTerms(prefix, replicas=size)
        if size == 1:
            patient = open_state(servers_at(server.port), now=clock, terms=terms)
            assert patient.spend((one_time_id(),)) is None
            patient.revoke("jti", NOW + 300)
            patient.close()
            replica.freeze()
        state = open_state(servers_at(server.port), now=clock, terms=terms, deadline=SHORT)
        assert_unavailable(
            lambda: state.spend((one_time_id(1),)),
            Reason.REPLAY_STORE_UNAVAILABLE,
            detail="too few replicas",
        )
        assert_unavailable(
            lambda: state.revoke("other", NOW + 300),
            Reason.REVOCATION_UNAVAILABLE,
            detail="too few replicas",
        )
        state.close()


def settled_again(server: ValkeyServer, clock: Clock, prefix: str) -> None:
    """The first replica changes what the primary calls its replication, so an epoch begins."""
    settled_state(server, clock, prefix=prefix).close()
