"""Keys in the memory of replicas: stated, followed, renewed, revoked, and withdrawn at the end."""

import base64
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from broker.errors import TemporarilyUnavailable
from broker.keys.board import MOST_PUT_UP, MOST_STATEMENTS, Listed, StatementBoard
from broker.keys.ephemeral import EphemeralKeys, stated_keys
from broker.keys.life import LONGEST_STATED_LIFE, Schedule
from broker.keys.rotator import Rotator, UnknownKey
from broker.keys.statement import certifiers_of
from broker.keys.transit_key import read_versions
from broker.keys.unavailable import signer_unavailable
from broker.keys.vault_ephemeral import VaultEphemeralKeyStore
from broker.tokens.own_keys import OwnKeys
from tests.harness import Clock
from tests.idp import signer
from tests.openbao import ISSUER, AppRole, Transit, wait_until

pytestmark = pytest.mark.openbao

SCHEDULE = Schedule(
    publish_ahead=timedelta(minutes=6),
    keep_published=timedelta(minutes=30),
    outage=timedelta(minutes=10),
)
LIFETIME = timedelta(hours=1)
INPUT = b"header.payload"
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of P-256: a signature of s has a twin of the order less s."""


@dataclass
class Replica:
    """The keys in memory of one replica, which looks when it is told to."""

    keys: EphemeralKeys

    def kids(self) -> set[str]:
        """What it publishes."""
        return {key.kid for key in self.keys.published()}

    def signing(self) -> str | None:
        """The id of its own key that signs now."""
        key = self.keys.signing("ES256")
        return key.kid if key is not None else None


@dataclass
class Site:
    """Replicas over one OpenBao, under a clock that the test moves."""

    transit: Transit
    clock: Clock
    stack: ExitStack
    board: StatementBoard
    rotator: Rotator
    replicas: list[Replica] = field(default_factory=list)

    def replica(self, **options: Any) -> Replica:
        """A new replica, which has looked once."""
        followed = self.transit.followed(now=self.clock, schedule=SCHEDULE, is_on_record=True)
        self.stack.callback(followed.close)
        name = f"replica-{len(self.replicas)}"
        keys = self.transit.ephemeral(followed, lifetime=LIFETIME, replica=name, **options)
        self.replicas.append(Replica(keys))
        keys.look()
        return self.replicas[-1]

    def pass_time(self, **parts: int) -> None:
        """Let time pass, and have every replica look afterwards."""
        self.clock.at += int(timedelta(**parts).total_seconds())
        for replica in self.replicas:
            replica.keys.look()

    def list(self, *statements: str) -> None:
        """Put something on the board, as whoever may write to it can."""
        self.board.change(lambda listed: [*listed, *map(Listed, statements)])


@pytest.fixture
def rotator_role(own_transit: Transit) -> AppRole:
    return own_transit.bao.rotator_role("rotator", may_rotate=("own-es256", "certifier"))


@pytest.fixture
def site(own_transit: Transit, rotator_role: AppRole) -> Iterator[Site]:
    clock = Clock(int(time.time()) + 60)
    with ExitStack() as stack:
        session = own_transit.session()
        stack.callback(session.close)
        board = StatementBoard(own_transit.document(session, "statements"))

        def stated() -> Any:
            versions = read_versions(session, "transit", key_name="certifier", algorithm="ES256")
            return stated_keys(
                board.read(), certifiers_of(versions), issuer=ISSUER, now=clock.at + 30
            )

        rotator = own_transit.rotator(now=clock, schedule=SCHEDULE, role=rotator_role)
        rotator.stated, rotator.has_keys_in_memory = stated, True
        rotator.tend()
        yield Site(own_transit, clock, stack, board, rotator)


@pytest.mark.requirement("SGN-02")
def test_a_key_in_memory_is_published_by_every_replica_before_it_signs(site: Site) -> None:
    one, other = site.replica(), site.replica()
    site.pass_time(seconds=5)

    assert len(one.kids()) == 2
    assert one.kids() == other.kids()
    assert one.signing() is None

    site.pass_time(minutes=5, seconds=54)
    assert one.signing() is None
    site.pass_time(seconds=1)
    assert {one.signing(), other.signing()} == one.kids()


def test_each_replica_signs_with_a_key_of_its_own(site: Site) -> None:
    one, other = site.replica(), site.replica()
    site.pass_time(minutes=7)

    for replica in (one, other):
        key = replica.keys.signing("ES256")
        assert key is not None
        (published,) = [one for one in other.keys.published() if one.kid == key.kid]
        assert published.verification.verify(INPUT, key.sign(INPUT))
    assert one.signing() != other.signing()


def test_a_key_is_renewed_ahead_and_signs_on_without_a_pause(site: Site) -> None:
    replica = site.replica()
    site.pass_time(minutes=7)
    signed = [replica.signing()]
    for _ in range(60):
        site.pass_time(minutes=5)
        signed.append(replica.signing())
        assert signed[-1] in replica.kids()

    assert None not in signed
    assert 4 <= len(set(signed)) <= 9
    # The key that signs, the next one, and those whose tokens may live.
    assert len(replica.kids()) <= 4


@pytest.mark.requirement("ITR-06")
def test_a_key_that_signs_no_more_stays_published_for_its_tokens_and_no_longer(site: Site) -> None:
    one, other = site.replica(), site.replica()
    site.pass_time(minutes=7)
    kid = one.signing()
    assert kid is not None
    one.keys.withdraw()
    site.replicas.remove(one)
    ended_at = site.clock.at

    site.pass_time(minutes=29, seconds=59)
    assert kid in other.kids()
    site.pass_time(seconds=1)
    assert kid not in other.kids()
    assert site.clock.at == ended_at + 1800


def test_a_replica_that_was_withdrawn_holds_no_key(site: Site) -> None:
    replica = site.replica()
    site.pass_time(minutes=7)

    replica.keys.withdraw()

    assert replica.signing() is None
    assert replica.keys._own == ()
    (listed,) = site.board.read()
    assert listed.ended_at == site.clock.at


@pytest.mark.requirement("SGN-02")
def test_what_no_certifier_signed_is_published_by_nobody(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    replica = site.replica()
    before = replica.kids()
    forged = signer("certifier").sign(
        {
            "iss": ISSUER,
            "sub": "replica-0",
            "iat": site.clock.at,
            "nbf": site.clock.at,
            "exp": site.clock.at + 3600,
            "jwk": signer("forged").jwk,
        },
        typ="broker-key-statement+jwt",
    )
    site.list(forged, "nonsense", '{"keys": []}')

    site.pass_time(seconds=5)
    site.pass_time(seconds=5)

    assert replica.kids() == before
    assert sum("is not believed" in message for message in caplog.messages) == 3


def test_nonsense_on_the_board_is_cleared_away_by_whoever_writes_next(site: Site) -> None:
    site.list("nonsense", "a.b.c", *(f"x{number}" for number in range(MOST_PUT_UP - 2)))

    site.replica()

    assert len(site.board.read()) == 1


@pytest.mark.requirement("SGN-02")
def test_replicas_that_die_without_a_word_do_not_fill_the_key_set(site: Site) -> None:
    """Verifiers refuse a set of more than a hundred keys, and with it the keys of all that live."""
    survivor = site.replica()
    site.pass_time(minutes=7)
    refused = 0
    for _ in range(MOST_PUT_UP + 4):
        try:
            site.replica()
        except TemporarilyUnavailable:
            refused += 1
        # It was killed: it says nothing, and looks no more.
        site.replicas = [survivor]
        site.clock.at += 5
    site.pass_time(minutes=7)

    assert refused == 5
    assert len(survivor.kids()) == MOST_PUT_UP
    assert survivor.signing() in survivor.kids()


@pytest.mark.parametrize(
    "members",
    [
        {"statements": "none"},
        {"statements": [1]},
        {"statements": [{"statement": "x" * 5000}]},
        {"statements": [{"statement": "x", "ended_at": "now"}]},
        {"statements": [{"statement": str(number)} for number in range(MOST_STATEMENTS + 1)]},
    ],
    ids=["no list", "a number", "a huge one", "a moment as text", "too many"],
)
def test_a_board_that_is_none_is_a_fault_and_what_was_known_stays(
    site: Site, members: dict[str, Any]
) -> None:
    replica = site.replica()
    kids = replica.kids()
    site.transit.bao.call("POST", "kv/data/broker/keys/statements", data=members)

    with pytest.raises(TemporarilyUnavailable) as refused:
        replica.keys.look()

    assert refused.value.detail == "vault: the statements of keys are not a list"
    assert replica.kids() == kids


def test_a_board_that_is_wiped_takes_no_published_key_away(site: Site) -> None:
    one, other = site.replica(), site.replica()
    site.pass_time(minutes=7)
    kids = one.kids()
    site.transit.bao.call("DELETE", "kv/metadata/broker/keys/statements")

    site.pass_time(seconds=5)

    assert one.kids() == other.kids() == kids
    # Whoever comes new does not know these keys before they stand there again for their whole time.
    assert one.signing() is None
    site.pass_time(minutes=6)
    assert one.signing() in kids
    assert len(site.board.read()) == 2


def test_a_key_that_somebody_else_declared_ended_is_not_used_again(site: Site) -> None:
    replica = site.replica()
    site.pass_time(minutes=7)
    kid = replica.signing()
    now = site.clock.at
    site.board.change(lambda listed: [replace(one, ended_at=now) for one in listed])

    site.pass_time(seconds=5)
    assert replica.signing() is None
    site.pass_time(minutes=7)
    assert replica.signing() not in {kid, None}


def test_a_certifier_version_that_is_hidden_takes_its_statements_along(site: Site) -> None:
    replica = site.replica()
    site.pass_time(minutes=7)
    kids = replica.kids()
    site.transit.bao.rotate_key("certifier")
    site.transit.bao.hide_versions_below("certifier", version=2)

    site.pass_time(seconds=5)

    assert kids.isdisjoint(replica.kids())
    assert len(replica.kids()) == 1
    site.pass_time(minutes=6)
    assert replica.signing() in replica.kids()


@pytest.mark.requirement("SGN-02")
def test_a_revoked_key_in_memory_neither_signs_nor_is_published(site: Site) -> None:
    one, other = site.replica(), site.replica()
    site.pass_time(minutes=7)
    kid = one.signing()
    assert kid is not None

    revoked = site.rotator.revoke(kid)
    site.pass_time(seconds=5)

    assert (revoked.was_active, revoked.replica, revoked.algorithm) == (True, "replica-0", "ES256")
    assert one.signing() is None
    assert kid not in one.kids() | other.kids()
    assert other.signing() is not None
    site.pass_time(minutes=7)
    assert one.signing() not in {kid, None}


def test_a_revoked_key_stays_revoked_though_its_statement_is_put_up_again(site: Site) -> None:
    replica = site.replica()
    site.pass_time(minutes=7)
    kid = replica.signing()
    assert kid is not None
    (listed,) = site.board.read()
    site.rotator.revoke(kid)
    site.pass_time(hours=1)

    site.list(listed.statement)
    fresh = site.replica()

    assert kid not in fresh.kids()


def test_revocations_of_keys_that_are_long_dead_are_forgotten(site: Site) -> None:
    replica = site.replica()
    kid = replica.keys.published()[0].kid
    site.rotator.revoke(kid)
    assert kid in site.rotator.look().revoked_ids

    site.clock.at += 86_400 * 2
    site.rotator.rotate(["ES256"])

    assert site.rotator.look().revoked_ids == frozenset()


@pytest.mark.parametrize("kid", ["", "k" * 42, "k" * 44, "k" * 42 + "=", "k" * 43 + "\n"])
def test_what_can_be_no_key_is_not_revoked(site: Site, kid: str) -> None:
    with pytest.raises(UnknownKey):
        site.rotator.revoke(kid)


@pytest.mark.requirement("SGN-02")
def test_a_key_that_has_left_the_board_is_revoked_where_it_still_signs(site: Site) -> None:
    one, other = site.replica(), site.replica()
    site.pass_time(minutes=7)
    kid = one.signing()
    assert kid is not None
    site.board.change(lambda listed: listed[1:])

    revoked = site.rotator.revoke(kid)
    again = site.rotator.revoke(kid)
    site.pass_time(seconds=5)

    assert (revoked.is_known, revoked.algorithm, revoked.is_repeated) == (False, "", False)
    assert (again.is_repeated, again.revoked_at) == (True, revoked.revoked_at)
    assert one.signing() is None
    assert kid not in one.kids() | other.kids()
    (remembered,) = site.rotator.look().revoked
    assert remembered.until > site.clock.at + LONGEST_STATED_LIFE.total_seconds()


@pytest.mark.requirement("ITR-06")
def test_a_statement_whose_signature_has_a_twin_publishes_its_key_once(site: Site) -> None:
    replica = site.replica()
    (listed,) = site.board.read()
    signing_input, _, encoded = listed.statement.rpartition(".")
    raw = base64.urlsafe_b64decode(encoded + "==")
    twin = raw[:32] + (ORDER - int.from_bytes(raw[32:])).to_bytes(32)

    site.list(f"{signing_input}.{base64.urlsafe_b64encode(twin).rstrip(b'=').decode()}")
    site.pass_time(seconds=5)

    assert len(replica.keys.published()) == len(replica.kids()) == 1
    assert len(site.rotator.stated()) == 1


def test_replicas_that_start_at_once_all_get_their_statements_up(site: Site) -> None:
    replicas = [site.replica() for _ in range(6)]
    site.pass_time(seconds=5)

    assert all(len(replica.kids()) == 6 for replica in replicas)


# While Vault is away.


def away(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Nothing of Vault reaches the replica."""

    def fail(*_: object) -> None:
        raise signer_unavailable("vault: unreachable")

    session = replica.keys._certifier.session
    monkeypatch.setattr(session, "get", fail)
    monkeypatch.setattr(session, "post", fail)
    return monkeypatch.undo


def test_a_key_in_memory_signs_through_an_outage_and_is_forgotten_after_a_long_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = site.replica()
    site.pass_time(minutes=7)
    kid = replica.signing()
    back = away(replica, monkeypatch)

    for _ in range(10):
        site.clock.at += 60
        with pytest.raises(TemporarilyUnavailable):
            replica.keys.look()
        replica.keys.forget_if_cut_off()
        assert replica.signing() == kid
    site.clock.at += 1
    replica.keys.forget_if_cut_off()
    assert replica.signing() is None
    assert replica.keys._own == ()
    assert kid in replica.kids()

    back()
    site.pass_time(minutes=0)
    site.pass_time(minutes=6)
    assert replica.signing() not in {kid, None}


def test_a_key_set_is_kept_for_less_while_other_replicas_cannot_be_seen(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = site.replica()
    assert replica.keys.fresh_for() == 330
    away(replica, monkeypatch)

    site.clock.at += 200
    assert replica.keys.fresh_for() == 130
    site.clock.at += 200
    assert replica.keys.fresh_for() == 0


# The store as a whole.


def test_a_store_signs_in_vault_until_its_own_key_may(own_transit: Transit) -> None:
    schedule = replace(SCHEDULE, publish_ahead=timedelta(seconds=2), poll=timedelta(seconds=1))
    schedule = replace(schedule, clock_difference=timedelta(0))
    with closing(own_transit.ephemeral_store(schedule=schedule)) as store:
        in_vault = store.signing_key("ES256")
        wait_until(lambda: store.signing_key("ES256").kid != in_vault.kid, seconds=30)
        own = store.signing_key("ES256")

        for key in (in_vault, own):
            assert OwnKeys(store).key(key.kid, "ES256").verify(INPUT, key.sign(INPUT))


def test_a_closed_store_states_that_its_key_has_ended_and_forgets_it(own_transit: Transit) -> None:
    schedule = replace(SCHEDULE, publish_ahead=timedelta(0), poll=timedelta(seconds=1))
    store = own_transit.ephemeral_store(schedule=schedule)
    wait_until(lambda: store._keys.signing("ES256") is not None)

    store.close()

    with pytest.raises(TemporarilyUnavailable):
        store.signing_key("ES256")
    assert store._keys._own == ()
    with closing(own_transit.session()) as session:
        (listed,) = StatementBoard(own_transit.document(session, "statements")).read()
    assert listed.ended_at is not None


@pytest.mark.requirement("SGN-03")
def test_a_store_that_may_not_state_its_keys_signs_in_vault_alone(own_transit: Transit) -> None:
    own_transit.bao.allow("own", may_sign=("own-es256",))
    policy = 'path "kv/data/broker/keys/record" { capabilities = ["read"] }\n' + "\n".join(
        f'path "transit/{verb}/own-es256" {{ capabilities = ["read", "update"] }}'
        for verb in ("keys", "sign")
    )
    own_transit.bao.call("PUT", "sys/policies/acl/own", policy=policy)

    with closing(own_transit.ephemeral_store(schedule=SCHEDULE)) as store:
        assert len(store.signing_key("ES256").sign(INPUT)) == 64
        assert store.public_keys() == []


def test_nothing_is_published_before_other_replicas_were_seen(own_transit: Transit) -> None:
    """Their keys would be missing, and verifiers would keep the set."""
    own_transit.bao.seal()
    store = own_transit.ephemeral_store(schedule=SCHEDULE)
    assert isinstance(store, VaultEphemeralKeyStore)

    assert store.public_keys() == []
    assert store.fresh_for() == 0
    own_transit.bao.unseal()
    wait_until(lambda: len(store.public_keys()) == 2, seconds=30)
    store.close()


def test_a_store_can_be_closed_while_vault_is_away(own_transit: Transit) -> None:
    store = replace(own_transit, patience=1.0).ephemeral_store(schedule=SCHEDULE)
    own_transit.bao.freeze()

    began = time.monotonic()
    store.close()

    assert time.monotonic() - began < 60
    own_transit.bao.thaw()
