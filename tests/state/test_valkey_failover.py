"""Valkey with sentinels and as a cluster: the broker finds the primary again, and nothing works twice."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from broker.errors import TemporarilyUnavailable
from broker.fetch.resolver import TimedResolver, resolve_by_system
from broker.model import OneTimeId, Pedigree
from broker.state.valkey import ValkeyState
from broker.state.valkey_keeper import StoreTerms
from broker.state.valkey_link import Access, Endpoint, Link, ValkeyFault
from broker.state.valkey_opening import Servers
from broker.state.valkey_places import Sentinels
from tests.e2e.patience import until
from tests.valkey import ValkeyServer, open_state, servers_at

NOW = 1_800_000_000
SERVICE = "broker-state"
DEADLINE = 2.0
PATIENCE = 20.0
SOON, LATE = 1000, 60_000
"""Milliseconds of silence after which a primary is gone: one that is, and one on a busy machine."""


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> int:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@dataclass
class Watched:
    """A primary, its replicas, and the sentinels that watch them."""

    primary: ValkeyServer
    replicas: list[ValkeyServer]
    sentinels: list[ValkeyServer]

    def miss_the_silent_after(self, milliseconds: int) -> None:
        """Have a primary that has said nothing for so long be replaced."""
        for sentinel in self.sentinels:
            setting = ("down-after-milliseconds", milliseconds)
            sentinel.ask("SENTINEL", "SET", SERVICE, *setting)

    @property
    def servers(self) -> Servers:
        ports = [one.port for one in self.sentinels]
        return servers_at(*ports, service=SERVICE)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with ExitStack() as closing:

        def server(name: str, *options: str) -> ValkeyServer:
            made = ValkeyServer(tmp_path / name, *options)
            closing.callback(made.close)
            made.start()
            return made

        primary = server("first")
        replicas = [server("second"), server("third")]
        for replica in replicas:
            replica.follow(primary)
        sentinels = []
        for number in range(3):
            sentinel = ValkeyServer(tmp_path / f"sentinel-{number}")
            closing.callback(sentinel.close)
            sentinel.start_as_sentinel(SERVICE, primary)
            sentinels.append(sentinel)
        until(lambda: all(map(_knows_all, sentinels)), seconds=60, what="they know each other")
        yield Watched(primary, replicas, sentinels)


def _knows_all(sentinel: ValkeyServer) -> bool:
    told = sentinel.ask("SENTINEL", "MASTER", SERVICE)
    facts = dict(zip(told[::2], told[1::2], strict=True))
    return bool(facts[b"num-slaves"] == b"2" and facts[b"num-other-sentinels"] == b"2")


def one_time_id(clock: Clock, jti: str) -> OneTimeId:
    return OneTimeId("id_jag", "https://idp.test", jti, clock.at + 330, clock.at - 30)


def open_old(servers: Servers, clock: Clock, *, replicas: int) -> ValkeyState:
    """A store that has been in use since a minute before ``NOW``."""
    terms = StoreTerms("failover", replicas)
    clock.at = NOW - 60
    state = open_state(servers, now=clock, terms=terms, deadline=DEADLINE)
    clock.at = NOW
    state.check()
    return state


def look_after(state: ValkeyState) -> bool:
    """Whether the store has been found, be it only to refuse."""
    try:
        state.check()
    except TemporarilyUnavailable as refused:
        return "anew" in refused.detail
    return True


def accepted_again(state: ValkeyState, ids: list[OneTimeId]) -> list[OneTimeId]:
    found = []
    for one in ids:
        try:
            if state.spend((one,)) is None:
                found.append(one)
        except TemporarilyUnavailable:
            pass
    return found


def assert_serves_again(state: ValkeyState, clock: Clock, ids: list[OneTimeId]) -> None:
    """What was spent stays spent, what was withdrawn stays withdrawn, and there is room for the new."""
    until(lambda: look_after(state), seconds=60, what="the primary was found")
    assert accepted_again(state, ids) == []
    for step in (10, 31):
        clock.at += step
        until(lambda: look_after(state), seconds=60, what="it is well")
    state.check()
    assert accepted_again(state, ids) == []
    revoked = Pedigree("revoked", NOW, frozenset())
    assert state.reason_against(revoked) is not None
    assert state.reason_against(Pedigree("never", NOW, frozenset())) is None
    assert state.spend((one_time_id(clock, "new"),)) is None


@pytest.mark.requirement("R-11")
@pytest.mark.parametrize("end", ["kill", "freeze"])
def test_after_a_failover_by_sentinels_nothing_works_twice(
    watched: Watched, clock: Clock, end: str
) -> None:
    state = open_old(watched.servers, clock, replicas=1)
    ids = [one_time_id(clock, f"id-{number}") for number in range(100)]
    for one in ids:
        assert state.spend((one,)) is None
    state.revoke("revoked", NOW + 900)

    watched.miss_the_silent_after(SOON)
    getattr(watched.primary, end)()

    started = time.monotonic()
    with pytest.raises(TemporarilyUnavailable):
        state.spend((one_time_id(clock, "meanwhile"),))
    assert time.monotonic() - started < PATIENCE
    until(lambda: look_after(state), seconds=60, what="the primary was found")
    watched.miss_the_silent_after(LATE)
    assert_serves_again(state, clock, ids)
    if end == "freeze":
        watched.primary.thaw()
        assert accepted_again(state, ids) == []
    state.close()


@pytest.mark.requirement("R-10", "R-11")
def test_a_broker_that_only_a_minority_of_sentinels_answers_serves_nobody(
    watched: Watched, clock: Clock
) -> None:
    """The others may have made another server the primary."""
    state = open_old(watched.servers, clock, replicas=1)
    assert state.spend((one_time_id(clock, "before"),)) is None
    for sentinel in watched.sentinels[:2]:
        sentinel.kill()

    until(lambda: _is_in_doubt(state), seconds=60, what="it is noticed")

    assert accepted_again(state, [one_time_id(clock, "after")]) == []
    state.close()


def _is_in_doubt(state: ValkeyState) -> bool:
    try:
        state.check()
    except TemporarilyUnavailable as refused:
        return "too few sentinels" in refused.detail
    return False


def test_two_of_three_sentinels_are_enough(watched: Watched, clock: Clock) -> None:
    watched.sentinels[0].kill()

    state = open_old(watched.servers, clock, replicas=1)

    assert state.spend((one_time_id(clock, "jti"),)) is None
    state.close()


def test_of_sentinels_that_disagree_the_one_with_the_later_failover_is_believed(
    tmp_path: Path,
) -> None:
    """One that was cut off names the primary of before."""
    with ExitStack() as closing:
        servers = [ValkeyServer(tmp_path / f"server-{number}") for number in range(2)]
        sentinels = [ValkeyServer(tmp_path / f"sentinel-{number}") for number in range(3)]
        for one in (*servers, *sentinels):
            closing.callback(one.close)
        for one in servers:
            one.start()
        for sentinel, server, epoch in zip(
            sentinels, (*servers, servers[0]), (1, 2, 1), strict=True
        ):
            sentinel.start_as_sentinel(SERVICE, server, epoch=epoch)
        places = Sentinels(
            SERVICE,
            [Endpoint("127.0.0.1", sentinel.port) for sentinel in sentinels],
            Access(),
            open_link,
        )

        found = {places.primary(moment=time.monotonic() + PATIENCE) for _ in range(5)}

        assert found == {Endpoint("127.0.0.1", servers[1].port)}
        unknown = Sentinels("another", places.endpoints, Access(), open_link)
        with pytest.raises(ValkeyFault, match="too few sentinels"):
            unknown.primary(moment=time.monotonic() + PATIENCE)


def open_link(endpoint: Endpoint, access: Access) -> Link:
    return Link(endpoint, access, resolver=TimedResolver(resolve_by_system))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[ValkeyServer]]:
    """Three primaries with a third of the slots each, and a replica of each."""
    with ExitStack() as closing:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
        nodes = [ValkeyServer(tmp_path / f"node-{number}", *options) for number in range(6)]
        for number, node in enumerate(nodes):
            closing.callback(node.close)
            node.start()
            if number < 3:
                first, last = number * 5462, min(16_383, number * 5462 + 5461)
                node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
        for node in nodes[1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, nodes[0].bus_port)
        for number in range(3):
            name = nodes[number].ask("CLUSTER", "MYID")
            replicate = partial(_replicate, nodes[number + 3], name)
            until(replicate, seconds=60, what="they have met")
        until(lambda: all(map(_is_whole, nodes)), seconds=60, what="the cluster is whole")
        _miss_the_silent_after(LATE, nodes)
        yield nodes


def _miss_the_silent_after(milliseconds: int, nodes: list[ValkeyServer]) -> None:
    """Have a primary that has said nothing for so long be replaced."""
    for node in nodes:
        node.ask("CONFIG", "SET", "cluster-node-timeout", milliseconds)


def _replicate(node: ValkeyServer, primary: bytes) -> bool:
    try:
        node.ask("CLUSTER", "REPLICATE", primary)
    except Exception:  # noqa: BLE001 - it has not met that one yet.
        return False
    return True


def _is_whole(node: ValkeyServer) -> bool:
    facts = bytes(node.ask("CLUSTER", "INFO"))
    return b"cluster_state:ok" in facts and b"cluster_known_nodes:6" in facts


def _holder(nodes: list[ValkeyServer]) -> ValkeyServer:
    return next(node for node in nodes if node.is_primary and node.ask("DBSIZE") > 0)


@pytest.mark.requirement("RPL-01")
def test_a_cluster_keeps_all_of_it_in_one_place(cluster: list[ValkeyServer], clock: Clock) -> None:
    state = open_old(servers_at(*(n.port for n in cluster[:2]), is_cluster=True), clock, replicas=1)

    together = [one_time_id(clock, f"id-{number}") for number in range(20)]
    assert state.spend(together) is None
    assert state.spend(together[::-1]) == together[-1]
    state.check()
    assert sorted(node.ask("DBSIZE") for node in cluster if node.is_primary) == [0, 0, 5]
    state.close()


@pytest.mark.requirement("R-11", "R-12")
def test_after_a_failover_in_a_cluster_nothing_works_twice(
    cluster: list[ValkeyServer], clock: Clock
) -> None:
    every = servers_at(*(node.port for node in cluster), is_cluster=True)
    state = open_old(every, clock, replicas=1)
    ids = [one_time_id(clock, f"id-{number}") for number in range(100)]
    for one in ids:
        assert state.spend((one,)) is None
    state.revoke("revoked", NOW + 900)
    state.check()

    _miss_the_silent_after(SOON, cluster)
    holder = _holder(cluster)
    holder.kill()

    # A new primary without a replica cannot confirm what a replica has to have.
    alone = open_state(every, now=clock, terms=StoreTerms("failover"), deadline=DEADLINE)
    until(lambda: look_after(state), seconds=60, what="the new primary was found")
    _miss_the_silent_after(LATE, [node for node in cluster if node is not holder])
    assert accepted_again(state, ids) == []
    assert accepted_again(alone, ids) == []
    for step in (10, 31):
        clock.at += step
        until(lambda: look_after(state), seconds=60, what="it is well")
    until(lambda: look_after(alone), seconds=60, what="the new primary was found")
    assert accepted_again(alone, ids) == []
    assert alone.reason_against(Pedigree("revoked", NOW, frozenset())) is not None
    assert alone.spend((one_time_id(clock, "new"),)) is None
    with pytest.raises(TemporarilyUnavailable) as caught:
        state.spend((one_time_id(clock, "newer"),))
    assert "too few replicas" in caught.value.detail
    state.close()
    alone.close()


@pytest.mark.requirement("R-12")
def test_slots_that_move_to_another_node_are_followed_there(
    cluster: list[ValkeyServer], clock: Clock
) -> None:
    every = servers_at(*(node.port for node in cluster), is_cluster=True)
    state = open_old(every, clock, replicas=0)
    ids = [one_time_id(clock, f"id-{number}") for number in range(50)]
    for one in ids:
        assert state.spend((one,)) is None
    state.revoke("revoked", NOW + 900)
    state.check()
    former = _holder(cluster)
    heir = next(node for node in cluster[:3] if node is not former)
    slot = former.ask("CLUSTER", "KEYSLOT", "{failover}")
    name = heir.ask("CLUSTER", "MYID")
    former.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", name)
    until(lambda: heir.ask("DBSIZE") == 5, seconds=60, what="the slot has moved")

    assert_serves_again(state, clock, ids)
    state.close()
