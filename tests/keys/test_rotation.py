"""Rotation and revocation while replicas sign and verifiers keep the key set for its full max-age."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import TemporarilyUnavailable
from broker.interfaces import KeyStore, Now
from broker.keys.book import KeyBook
from broker.keys.dev import DevKeySmith, DevKeyStore
from broker.keys.ephemeral import EphemeralKeys
from broker.keys.followed import FollowedKeys
from broker.keys.record_file import FileRecord
from broker.keys.rotator import Rotator
from broker.keys.vault_ephemeral import VaultEphemeralKeyStore
from broker.keys.vault_transit import VaultTransitKeyStore
from tests.harness import Clock
from tests.keys.rotations import SCHEDULE, OwnClock, World
from tests.openbao import Transit, vault_record

ROTATIONS = int(os.environ.get("BROKER_ROTATIONS", "24"))
"""``make chaos`` has many more."""

LIFETIME = timedelta(minutes=15)
# The clocks of any two of these differ by as much as the schedule allows for.
REPLICA_CLOCKS = (-15, 0, 15)
ROTATOR_CLOCK = -15


@dataclass
class Site:
    """Replicas of one broker, and what rotates their keys."""

    world: World
    rotator: Rotator
    partition: Callable[[KeyStore], None]

    def active(self) -> str:
        """The id of the key that signs now."""
        entry = self.rotator.editor("ES256").active(self.rotator.look())
        assert entry is not None
        return entry.kid


@contextmanager
def dev_site(folder: Path) -> Iterator[Site]:
    clock = Clock(int(time.time()))
    stores = [
        DevKeyStore(folder, schedule=SCHEDULE, now=OwnClock(clock, ahead))
        for ahead in REPLICA_CLOCKS
    ]
    rotator = Rotator(
        FileRecord(folder),
        DevKeySmith(folder),
        algorithms=("ES256",),
        schedule=SCHEDULE,
        now=OwnClock(clock, ROTATOR_CLOCK),
    )
    yield Site(World(clock, stores, look=lambda _: None), rotator, lambda _: None)
    for store in stores:
        store.close()


class ScriptedKeys(FollowedKeys):
    """Keys that are looked at when the test says so, and not when the store would."""

    is_cut_off = False

    def refresh(self) -> None:
        """What the store's own thread does."""

    def look(self, *, is_missed: bool) -> None:
        """Look now, unless that fails."""
        if not is_missed and not self.is_cut_off:
            super().refresh()
        self.choose()


@contextmanager
def transit_site(transit: Transit) -> Iterator[Site]:
    clock = Clock(int(time.time()) + 20)
    followed: dict[int, ScriptedKeys] = {}

    def open_store(now: Now) -> KeyStore:
        session = transit.session()
        book = KeyBook(SCHEDULE, now=now, records=vault_record(session))
        keys = ScriptedKeys(session, book, keys=transit.keys, mount="transit")
        store = VaultTransitKeyStore(keys)
        followed[id(store)] = keys
        keys.look(is_missed=False)
        return store

    def look(store: KeyStore) -> None:
        # One look in four comes to nothing.
        followed[id(store)].look(is_missed=world.chance.random() < 0.25)

    def cut_off(store: KeyStore) -> None:
        followed[id(store)].is_cut_off = True

    stores = [open_store(OwnClock(clock, ahead)) for ahead in REPLICA_CLOCKS]
    world = World(clock, stores, look, stride=120)
    rotator = transit.rotator(now=OwnClock(clock, ROTATOR_CLOCK), schedule=SCHEDULE)
    yield Site(world, rotator, cut_off)
    for store in world.replicas:
        store.close()


@contextmanager
def memory_site(transit: Transit) -> Iterator[Site]:
    """Replicas with keys of their own, which are renewed and withdrawn as time passes."""
    clock = Clock(int(time.time()) + 20)
    followed: dict[int, tuple[ScriptedKeys, EphemeralKeys]] = {}

    def open_store(now: Now) -> KeyStore:
        session = transit.session()
        book = KeyBook(SCHEDULE, now=now, records=vault_record(session))
        keys = ScriptedKeys(session, book, keys=transit.keys, mount="transit")
        own = transit.ephemeral(keys, lifetime=LIFETIME)
        store = VaultEphemeralKeyStore(own, VaultTransitKeyStore(keys), poll=3600)
        followed[id(store)] = keys, own
        keys.look(is_missed=False)
        return store

    def look(store: KeyStore) -> None:
        keys, own = followed[id(store)]
        is_missed = world.chance.random() < 0.25
        keys.look(is_missed=is_missed)
        if not is_missed:
            own.look()

    def restart(store: KeyStore) -> None:
        """End a replica in order, and start another in its place."""
        store.close()
        place = list(world.replicas).index(store)
        stores[place] = open_store(OwnClock(clock, REPLICA_CLOCKS[place]))

    stores = [open_store(OwnClock(clock, ahead)) for ahead in REPLICA_CLOCKS]
    world = World(clock, stores, look, stride=120)
    rotator = transit.rotator(now=OwnClock(clock, ROTATOR_CLOCK), schedule=SCHEDULE)
    yield Site(world, rotator, restart)
    for store in world.replicas:
        store.close()


@pytest.mark.openbao
@pytest.mark.requirement("SGN-02", "ITR-06")
def test_keys_in_memory_come_and_go_with_their_replicas_and_no_token_is_unverifiable(
    own_transit: Transit,
) -> None:
    with memory_site(own_transit) as site:
        world = site.world
        for number in range(30):
            world.pass_time(world.chance.choice((100, 400, 900)))
            if number % 3 == 0:
                site.partition(world.chance.choice(world.replicas))
            if number % 5 == 0:
                site.rotator.tend()
                site.rotator.rotate(["ES256"])

        assert world.unverifiable == []
        assert world.signed > 300
        assert len({token.kid for token in world.tokens}) > 2
        assert len(world.kids) > 20


@pytest.fixture(params=["dev", pytest.param("vault-transit", marks=pytest.mark.openbao)])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A site of each kind."""
    if request.param == "dev":
        with dev_site(tmp_path / "keys") as site:
            yield site
    else:
        with transit_site(request.getfixturevalue("own_transit")) as site:
            yield site


@pytest.mark.requirement("SGN-02", "ITR-06", "R-08")
def test_rotations_on_end_leave_no_token_that_a_verifier_cannot_verify(site: Site) -> None:
    world, signing = site.world, [site.active()]

    for _ in range(ROTATIONS):
        site.rotator.rotate(["ES256"])
        world.pass_time(world.chance.choice((60, 200, 500)))
        while site.rotator.editor("ES256").scheduled(site.rotator.look()):
            world.pass_time(60)
        site.rotator.tend()
        signing.append(site.active())

    assert world.unverifiable == []
    assert len(set(signing)) == ROTATIONS + 1
    assert world.signed > 5 * ROTATIONS
    assert world.verified > world.signed
    # What is not needed any more is gone: a spare, what signs, and what it took over from.
    assert len(world.replicas[0].public_keys()) <= 5


@pytest.mark.requirement("SGN-02", "R-08")
def test_an_emergency_leaves_no_token_of_another_key_that_cannot_be_verified(site: Site) -> None:
    """The spare has been published all along, so verifiers know it when it signs at once."""
    world = site.world
    site.rotator.tend()
    world.pass_time(600)

    for _ in range(10):
        revoked = site.rotator.revoke(site.active())
        world.revoked.add(revoked.kid)
        world.pass_time(60)
        assert revoked.signing is not None
        assert {token.kid for token in world.tokens} <= {revoked.signing.kid, *world.known()}
        world.pass_time(600)

    assert world.unverifiable == []
    assert world.signed > 100


@pytest.mark.requirement("SGN-02")
def test_a_revoked_key_neither_signs_nor_is_published_once_replicas_have_looked(site: Site) -> None:
    world = site.world
    site.rotator.tend()
    world.pass_time(100)

    for _ in range(3):
        kid = site.rotator.revoke(site.active()).kid
        world.clock.at += 1
        for replica in world.replicas:
            world.look_well(replica)
            assert replica.signing_key("ES256").kid != kid
            assert kid not in [key["kid"] for key in replica.public_keys()]
        world.pass_time(100)


@pytest.mark.openbao
@pytest.mark.requirement("SGN-02")
def test_a_replica_that_is_cut_off_signs_nothing_soon_and_its_key_set_is_kept_for_less(
    own_transit: Transit,
) -> None:
    with transit_site(own_transit) as site:
        world = site.world
        world.pass_time(30)
        site.partition(world.replicas[0])
        site.rotator.rotate(["ES256"])
        ages = []
        for _ in range(10):
            world.pass_time(60)
            ages.append(world.replicas[0].fresh_for())

        with pytest.raises(TemporarilyUnavailable) as refused:
            world.replicas[0].signing_key("ES256")
        assert refused.value.detail == "vault: the keys have not been read for too long"
        assert ages == sorted(ages, reverse=True)
        assert ages[-1] == 0
        assert world.unverifiable == []
        assert len(world.replicas[0].public_keys()) < len(world.replicas[1].public_keys())
