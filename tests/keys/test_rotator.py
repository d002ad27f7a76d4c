"""Rotating and revoking: one rotator at a time, whatever the others do, and old keys closed off."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from broker.errors import TemporarilyUnavailable
from broker.keys.book import KeyBook
from broker.keys.dev import DevKeySmith, DevKeyStore
from broker.keys.life import KeyState, Schedule
from broker.keys.outlook import rehearsal
from broker.keys.record import KeyRecord, RecordStore
from broker.keys.record_file import FileRecord
from broker.keys.rotator import KeySmith, NotRotated, Rotator, UnknownKey
from broker.keys.tender import KeyTender
from broker.keys.transit_smith import TransitSmith
from broker.keys.unavailable import signer_unavailable
from broker.keys.vault_session import VaultSession
from tests.harness import Clock
from tests.openbao import AppRole, OpenBao, Transit, vault_record, wait_until

SCHEDULE = Schedule(
    publish_ahead=timedelta(minutes=6),
    keep_published=timedelta(minutes=20),
    rotate_every=timedelta(days=1),
)
KEY = "transit/keys/own-es256"


class BrokenSmith(DevKeySmith):
    """Makes no key."""

    def make(self, algorithm: str) -> None:
        raise signer_unavailable(algorithm)


class SlowSmith(DevKeySmith):
    """Makes keys, and time goes by until anybody hears of one; ``meanwhile`` is what happens then."""

    clock: Clock
    seconds: int
    meanwhile: Callable[[], object]

    def make(self, algorithm: str) -> None:
        super().make(algorithm)
        self.clock.at += self.seconds
        self.meanwhile()


@dataclass
class Place:
    """Keys and their record, and rotators for them."""

    clock: Clock
    make_rotator: Callable[..., Rotator]
    records: RecordStore
    folder: Path = Path()

    def states(self) -> list[str]:
        """The states of the keys on record, newest first."""
        return [life.state.value for life in self.editor_lives()]

    def editor_lives(self) -> Any:
        return self.make_rotator().editor("ES256").lives(self.records.read().record)

    def pass_time(self, **parts: int) -> None:
        self.clock.at += int(timedelta(**parts).total_seconds())


@pytest.fixture
def dev(tmp_path: Path) -> Place:
    clock, folder = Clock(int(time.time())), tmp_path / "keys"
    # The first key is made by whoever signs.
    DevKeyStore(folder)

    def make_rotator(smith: KeySmith | None = None, schedule: Schedule = SCHEDULE) -> Rotator:
        return Rotator(
            FileRecord(folder),
            smith or DevKeySmith(folder),
            algorithms=("ES256",),
            schedule=schedule,
            now=clock,
        )

    return Place(clock, make_rotator, FileRecord(folder), folder)


@pytest.fixture
def rotator_role(own_transit: Transit) -> AppRole:
    return own_transit.bao.rotator_role("rotator", may_rotate=("own-es256",))


@pytest.fixture
def vault(own_transit: Transit, rotator_role: AppRole) -> Iterator[Place]:
    clock = Clock(int(time.time()) + 5)
    sessions = []

    def make_rotator(schedule: Schedule = SCHEDULE) -> Rotator:
        server = own_transit.server
        sessions.append(VaultSession(server, auth=rotator_role.auth))
        return Rotator(
            vault_record(sessions[-1]),
            TransitSmith(sessions[-1], keys=own_transit.keys),
            algorithms=("ES256",),
            schedule=schedule,
            now=clock,
        )

    sessions.append(VaultSession(own_transit.server, auth=rotator_role.auth))
    yield Place(clock, make_rotator, vault_record(sessions[0]))
    for session in sessions:
        session.close()


@pytest.fixture(params=["dev", pytest.param("vault", marks=pytest.mark.openbao)])
def place(request: pytest.FixtureRequest) -> Place:
    """A place of each kind."""
    place: Place = request.getfixturevalue(request.param)
    return place


def test_looking_writes_nothing(place: Place) -> None:
    place.make_rotator().look()

    assert place.records.read().version == 0


def test_the_first_look_after_the_keys_puts_them_on_record_with_a_spare(place: Place) -> None:
    place.make_rotator().tend()

    assert place.states() == ["pending", "active"]


def test_tending_again_writes_nothing(place: Place) -> None:
    place.make_rotator().tend()
    version = place.records.read().version

    for _ in range(3):
        place.make_rotator().tend()

    assert place.records.read().version == version


def test_no_spare_is_made_where_none_is_wanted(place: Place) -> None:
    rotator = place.make_rotator(schedule=replace(SCHEDULE, has_spare=False))
    rotator.tend()
    assert place.states() == ["active"]

    rotator.rotate(["ES256"])
    assert place.states() == ["pending", "active"]


def test_a_rotation_on_the_way_is_not_overtaken_by_another(place: Place) -> None:
    place.make_rotator().rotate(["ES256"])
    record = place.records.read().record

    with pytest.raises(NotRotated, match="is about to sign already"):
        place.make_rotator().rotate(["ES256"])
    assert place.records.read().record == record


@pytest.mark.requirement("SGN-02")
def test_by_a_clock_that_is_behind_the_record_nothing_is_rotated_but_a_key_is_revoked(
    dev: Place,
) -> None:
    rotator = dev.make_rotator()
    rotator.tend()
    before, active = dev.records.read(), dev.editor_lives()[-1].entry.kid
    dev.pass_time(seconds=-31)

    for act in (rotator.tend, lambda: rotator.rotate(["ES256"])):
        with pytest.raises(NotRotated, match="The clock is 31 s behind what is on record"):
            act()

    assert dev.records.read() == before
    assert active in rotator.revoke(active).record.revoked_ids
    dev.pass_time(seconds=31)
    rotator.tend()


def test_of_many_rotators_that_find_a_key_due_exactly_one_sets_its_successor(
    place: Place,
) -> None:
    place.make_rotator().tend()
    rotators = [place.make_rotator() for _ in range(6)]
    together = Barrier(len(rotators))

    def tend(rotator: Rotator) -> None:
        together.wait()
        rotator.tend()

    with ThreadPoolExecutor(len(rotators)) as pool:
        for day in range(1, 6):
            place.pass_time(days=1)
            list(pool.map(tend, rotators))
            list(pool.map(tend, rotators))
            assert place.states()[:3] == ["pending", "pending", "active"]
            numbers = [life.entry.number for life in place.editor_lives()]
            # One key is made for each successor, and no more.
            assert numbers[0] == 2 + day
            place.pass_time(minutes=10)


def slow_smith(dev: Place, *, seconds: int, meanwhile: Callable[[], object] = list) -> SlowSmith:
    """One for these keys."""
    smith = SlowSmith(dev.folder)
    smith.clock, smith.seconds, smith.meanwhile = dev.clock, seconds, meanwhile
    return smith


@pytest.mark.requirement("SGN-02", "ITR-06", "R-08")
def test_a_key_that_is_long_in_the_making_supersedes_nothing_until_it_is_on_record(
    dev: Place,
) -> None:
    """By its age alone it would sign, and the spare that a rotation is about to choose would leave."""
    schedule = replace(SCHEDULE, publish_ahead=timedelta(seconds=20))
    dev.make_rotator(schedule=schedule).tend()
    dev.pass_time(hours=1)
    book = KeyBook(schedule, now=dev.clock, records=dev.records)
    seen: list[list[KeyState]] = []

    def look() -> None:
        book.look()
        found = DevKeySmith(dev.folder).found("ES256")
        seen.append([life.state for life in book.lives("ES256", found, signed=None)])

    smith = slow_smith(dev, seconds=30, meanwhile=look)
    dev.make_rotator(smith, schedule=schedule).rotate(["ES256"])
    look()

    pending, active = KeyState.PENDING, KeyState.ACTIVE
    assert seen == [[pending, pending, active]] * 2


@pytest.mark.requirement("SGN-02", "R-08")
def test_the_moment_of_a_successor_is_set_when_all_keys_are_made_and_everybody_can_be_told(
    dev: Place,
) -> None:
    dev.make_rotator().tend()
    dev.pass_time(hours=1)

    record = dev.make_rotator(slow_smith(dev, seconds=50)).rotate(["ES256"])

    successor = record.of("ES256")[1]
    assert successor.activates_at == dev.clock.at + SCHEDULE.notice.total_seconds()


def test_keys_that_took_longer_than_the_claim_to_them_are_not_put_on_record(dev: Place) -> None:
    dev.make_rotator().tend()
    dev.pass_time(hours=1)
    before = dev.records.read().record

    with pytest.raises(NotRotated, match="It took too long to make the keys"):
        dev.make_rotator(slow_smith(dev, seconds=60)).rotate(["ES256"])

    assert dev.records.read().record == before


def test_a_revocation_takes_what_somebody_else_is_making_for_a_spare(dev: Place) -> None:
    schedule = replace(SCHEDULE, publish_ahead=timedelta(seconds=20))
    dev.make_rotator(schedule=schedule).tend()
    dev.pass_time(hours=1)
    kid = dev.editor_lives()[-1].entry.kid

    def revoke() -> None:
        dev.make_rotator(schedule=schedule).revoke(kid)

    slow = slow_smith(dev, seconds=30, meanwhile=revoke)
    with pytest.raises(NotRotated, match="changed by somebody else"):
        dev.make_rotator(slow, schedule=schedule).rotate(["ES256"])

    assert dev.states() == ["pending", "active", "revoked"]


def test_a_key_is_replaced_at_its_age_and_not_before(place: Place) -> None:
    rotator = place.make_rotator()
    rotator.tend()
    place.pass_time(hours=23, minutes=58)
    rotator.tend()
    assert place.states() == ["pending", "active"]

    place.pass_time(minutes=2)
    rotator.tend()
    assert place.states() == ["pending", "pending", "active"]
    place.pass_time(minutes=1)
    assert place.states() == ["pending", "active", "retiring"]


def test_no_key_is_replaced_by_itself_where_nobody_asked_for_it(place: Place) -> None:
    rotator = place.make_rotator(schedule=replace(SCHEDULE, rotate_every=None))
    rotator.tend()
    place.pass_time(days=999)
    rotator.tend()

    assert place.states() == ["pending", "active"]


@dataclass
class DyingSmith:
    """A smith whose rotator dies as it makes a key: before, or after it was made."""

    inner: KeySmith
    is_made: bool

    def found(self, algorithm: str) -> Any:
        return self.inner.found(algorithm)

    def make(self, algorithm: str) -> None:
        if self.is_made:
            self.inner.make(algorithm)
        raise KeyboardInterrupt

    def settle(self, algorithm: str, *, signs_from: int, gone: frozenset[int]) -> None:
        raise AssertionError((algorithm, signs_from, gone))


@pytest.mark.parametrize("is_made", [False, True])
def test_what_a_rotator_left_half_done_another_brings_to_an_end(
    dev: Place, tmp_path: Path, *, is_made: bool
) -> None:
    dev.make_rotator(schedule=replace(SCHEDULE, has_spare=False)).tend()
    smith = DyingSmith(DevKeySmith(tmp_path / "keys"), is_made)
    with pytest.raises(KeyboardInterrupt):
        dev.make_rotator(smith).rotate(["ES256"])

    dev.make_rotator().tend()
    dev.pass_time(minutes=7)
    dev.make_rotator().tend()

    states = dev.states()
    assert states.count("active") == 1
    assert states[0] == "pending"


@pytest.mark.parametrize("is_made", [False, True])
def test_a_rotator_that_dies_at_its_first_work_leaves_the_first_key_signing(
    dev: Place, tmp_path: Path, *, is_made: bool
) -> None:
    """A broker that starts afterwards remembers nothing but what is on record."""
    smith = DyingSmith(DevKeySmith(tmp_path / "keys"), is_made)
    with pytest.raises(KeyboardInterrupt):
        dev.make_rotator(smith).tend()

    store = DevKeyStore(tmp_path / "keys", schedule=SCHEDULE, now=dev.clock)

    assert len(store.signing_key("ES256").sign(b"a.b")) == 64


def test_where_there_is_no_key_none_is_rotated(dev: Place, tmp_path: Path) -> None:
    (tmp_path / "keys" / "es256.pem").unlink()

    dev.make_rotator().tend()
    with pytest.raises(NotRotated, match="there is no key yet"):
        dev.make_rotator().rotate(["ES256"])
    assert list((tmp_path / "keys").iterdir()) == []


def test_the_claim_of_a_rotator_that_died_counts_for_a_minute(dev: Place) -> None:
    dev.make_rotator().tend()
    records = dev.records
    held = records.read()
    records.write(replace(held.record, claim=claim_until(dev.clock.at + 60)), over=held.version)

    with pytest.raises(NotRotated, match="Another rotation is under way"):
        dev.make_rotator().rotate(["ES256"])
    dev.pass_time(seconds=60)
    dev.make_rotator().rotate(["ES256"])

    assert dev.states() == ["pending", "pending", "active"]
    assert dev.records.read().record.claim is None


def claim_until(moment: int) -> Any:
    return KeyRecord.of_members({"keys": [], "claim": {"by": "dead", "until": moment}}).claim


def test_a_claim_that_was_taken_over_is_not_written_through(dev: Place, tmp_path: Path) -> None:
    """A rotator that slept through its minute finds that the record is not what it was."""
    dev.make_rotator().tend()

    class SleepySmith(DevKeySmith):
        def make(self, algorithm: str) -> None:
            super().make(algorithm)
            dev.pass_time(minutes=2)
            dev.make_rotator().tend()

    with pytest.raises(NotRotated, match="It took too long"):
        dev.make_rotator(SleepySmith(tmp_path / "keys")).rotate(["ES256"])
    assert dev.states().count("active") == 1


def test_a_failure_on_the_way_gives_the_record_free(dev: Place, tmp_path: Path) -> None:
    dev.make_rotator(schedule=replace(SCHEDULE, has_spare=False)).tend()
    with pytest.raises(TemporarilyUnavailable):
        dev.make_rotator(BrokenSmith(tmp_path / "keys")).rotate(["ES256"])

    dev.make_rotator().rotate(["ES256"])
    assert dev.states() == ["pending", "pending", "active"]


def test_a_record_that_is_almost_full_is_not_added_to_but_a_key_can_be_revoked(dev: Place) -> None:
    rotator = dev.make_rotator(schedule=replace(SCHEDULE, keep_published=timedelta(days=99)))
    rotator.tend()
    for _ in range(60):
        try:
            rotator.rotate(["ES256"])
        except NotRotated as refused:
            assert "Too many keys" in str(refused)  # noqa: PT017 -- it is looked for among others.
            break
        dev.pass_time(minutes=7)
    else:
        pytest.fail("the record grew without end")

    rotator.revoke(dev.editor_lives()[1].entry.kid)

    assert dev.states()[:2] == ["active", "revoked"]


# Emergencies.


def test_a_revoked_key_is_followed_by_the_spare_and_that_by_a_new_spare(place: Place) -> None:
    rotator = place.make_rotator()
    rotator.tend()
    spare, active = (life.entry.kid for life in place.editor_lives())

    revoked = rotator.revoke(active)

    assert revoked.was_active
    assert revoked.signing is not None
    assert revoked.signing.kid == spare
    assert place.states() == ["pending", "active", "revoked"]


def test_a_revocation_waits_for_no_rotation_that_is_under_way(dev: Place) -> None:
    rotator = dev.make_rotator()
    rotator.tend()
    active = dev.editor_lives()[-1].entry.kid
    held = dev.records.read()
    dev.records.write(replace(held.record, claim=claim_until(dev.clock.at + 60)), over=held.version)

    rotator.revoke(active)

    assert dev.states()[-2:] == ["active", "revoked"]


def test_without_a_spare_one_is_made_in_the_emergency(place: Place) -> None:
    rotator = place.make_rotator(schedule=replace(SCHEDULE, has_spare=False))
    rotator.tend()

    revoked = rotator.revoke(place.editor_lives()[0].entry.kid)

    assert revoked.signing is not None
    assert place.states() == ["active", "revoked"]


def test_however_long_the_other_is_in_the_making_it_begins_as_the_revoked_one_stops(
    dev: Place,
) -> None:
    schedule = replace(SCHEDULE, has_spare=False)
    dev.make_rotator(schedule=schedule).tend()
    kid = dev.editor_lives()[0].entry.kid

    revoked = dev.make_rotator(slow_smith(dev, seconds=3), schedule=schedule).revoke(kid)

    entries = {entry.kid: entry for entry in revoked.record.of("ES256")}
    assert revoked.signing is not None
    assert revoked.signing.activates_at == entries[kid].revoked_at == revoked.revoked_at
    assert dev.states() == ["active", "revoked"]


def test_a_key_is_revoked_though_no_other_can_be_made(dev: Place, tmp_path: Path) -> None:
    rotator = dev.make_rotator(schedule=replace(SCHEDULE, has_spare=False))
    rotator.tend()
    broken = dev.make_rotator(
        BrokenSmith(tmp_path / "keys"), schedule=replace(SCHEDULE, has_spare=False)
    )

    revoked = broken.revoke(dev.editor_lives()[0].entry.kid)

    assert revoked.was_active
    assert revoked.signing is None
    assert dev.states() == ["revoked"]
    # Once one can be made, the same command has it sign.
    dev.pass_time(minutes=1)
    again = rotator.revoke(revoked.kid)
    assert (again.is_repeated, again.was_active) == (True, True)
    assert again.signing is not None
    assert dev.states() == ["active", "revoked"]


def test_a_successor_that_is_revoked_before_it_began_changes_nothing_else(place: Place) -> None:
    rotator = place.make_rotator()
    rotator.rotate(["ES256"])
    spare, successor, active = (life.entry.kid for life in place.editor_lives())

    revoked = rotator.revoke(successor)

    assert not revoked.was_active
    assert revoked.signing is not None
    assert revoked.signing.kid == active
    place.pass_time(days=30)
    assert place.states() == ["pending", "revoked", "active"]
    rotator.rotate(["ES256"])
    assert place.editor_lives()[1].entry.kid == spare


@pytest.mark.parametrize("kid", ["", "x", "../es256.pem", "k" * 43, "k" * 100_000])
def test_a_key_that_is_on_no_record_is_not_revoked(place: Place, kid: str) -> None:
    place.make_rotator().tend()
    version = place.records.read().version

    with pytest.raises(UnknownKey):
        place.make_rotator().revoke(kid)
    assert place.records.read().version == version


def test_revoking_twice_is_as_good_as_once(place: Place) -> None:
    rotator = place.make_rotator()
    rotator.tend()
    active = place.editor_lives()[-1].entry.kid
    rotator.revoke(active)
    states = place.states()

    again = rotator.revoke(active)

    assert again.is_repeated
    assert place.states() == states


def test_a_rehearsal_changes_nothing(place: Place) -> None:
    rotator = place.make_rotator()
    rotator.tend()
    version, found = place.records.read().version, len(rotator.found("ES256"))
    active = place.editor_lives()[-1].entry.kid

    rehearsed = rehearsal(rotator).rotate(["ES256"])
    revoked = rehearsal(rotator).revoke(active)

    assert place.records.read().version == version
    assert len(rotator.found("ES256")) == found
    assert len(rehearsed.of("ES256")) == 3
    assert revoked.was_active


# Where keys are kept.


def test_the_files_of_keys_that_are_gone_are_deleted(dev: Place, tmp_path: Path) -> None:
    rotator = dev.make_rotator()
    rotator.rotate(["ES256"])
    dev.pass_time(minutes=6)
    rotator.tend()
    rotator.revoke(dev.editor_lives()[1].entry.kid)
    assert dev.states()[-2:] == ["revoked", "retiring"]
    files = sorted(file.name for file in (tmp_path / "keys").iterdir())
    assert files == ["es256-3.pem", "es256-4.pem", "es256.pem", "record.json"]

    dev.pass_time(hours=1)
    rotator.tend()
    files = sorted(file.name for file in (tmp_path / "keys").iterdir())
    assert files == ["es256-3.pem", "es256-4.pem", "record.json"]


def key_config(bao: OpenBao) -> tuple[int, int, list[int]]:
    """What Vault still signs from, what it still shows from, and the versions that it shows."""
    data = bao.call("GET", KEY)["data"]
    versions = sorted(map(int, data["keys"]))
    return data["min_encryption_version"], data["min_decryption_version"], versions


@pytest.mark.openbao
@pytest.mark.requirement("R-08")
def test_a_superseded_version_is_closed_off_in_vault_once_every_replica_could_follow(
    vault: Place, own_transit: Transit
) -> None:
    rotator = vault.make_rotator()
    rotator.rotate(["ES256"])
    vault.pass_time(minutes=6, seconds=44)
    rotator.tend()
    assert key_config(own_transit.bao) == (0, 1, [1, 2, 3])

    vault.pass_time(seconds=1)
    rotator.tend()
    assert key_config(own_transit.bao) == (2, 1, [1, 2, 3])

    vault.pass_time(minutes=20)
    rotator.tend()
    assert key_config(own_transit.bao) == (2, 2, [2, 3])


@pytest.mark.openbao
@pytest.mark.requirement("R-08")
def test_where_nobody_looks_after_the_keys_the_next_rotation_closes_off_the_superseded_version(
    vault: Place, own_transit: Transit
) -> None:
    rotator = vault.make_rotator(schedule=replace(SCHEDULE, has_spare=False))
    rotator.rotate(["ES256"])
    vault.pass_time(hours=1)

    vault.make_rotator(schedule=replace(SCHEDULE, has_spare=False)).rotate(["ES256"])

    assert own_transit.bao.call("GET", KEY)["data"]["min_encryption_version"] == 2


@pytest.mark.openbao
@pytest.mark.requirement("R-08")
def test_vault_signs_nothing_with_a_revoked_version_from_the_first_moment_on(
    vault: Place, own_transit: Transit
) -> None:
    vault.make_rotator().tend()

    vault.make_rotator().revoke(vault.editor_lives()[-1].entry.kid)

    # It can be hidden as well, since nothing that is older is still needed.
    assert key_config(own_transit.bao)[:2] == (2, 2)


@pytest.mark.openbao
def test_a_revoked_successor_does_not_close_off_the_version_that_signs_on(
    vault: Place, own_transit: Transit
) -> None:
    vault.make_rotator().rotate(["ES256"])

    vault.make_rotator().revoke(vault.editor_lives()[1].entry.kid)

    assert vault.states() == ["pending", "revoked", "active"]
    assert key_config(own_transit.bao)[0] <= 1


@pytest.mark.openbao
def test_a_revocation_counts_though_vault_cannot_be_told(
    vault: Place, own_transit: Transit
) -> None:
    vault.make_rotator().tend()
    active = vault.editor_lives()[-1].entry.kid
    own_transit.bao.call(
        "PUT",
        "sys/policies/acl/rotator",
        policy=f'path "{KEY}" {{ capabilities = ["read"] }}\n'
        'path "kv/data/broker/+/record" { capabilities = ["read", "update"] }',
    )

    revoked = vault.make_rotator().revoke(active)

    assert revoked.fault.startswith("vault: forbidden (needs ")
    assert vault.states()[-2:] == ["active", "revoked"]


@pytest.mark.openbao
def test_a_bound_that_somebody_set_higher_is_not_lowered(
    vault: Place, own_transit: Transit
) -> None:
    vault.make_rotator().rotate(["ES256"])
    own_transit.bao.call("POST", f"{KEY}/config", min_encryption_version=3)
    vault.pass_time(minutes=10)

    vault.make_rotator().tend()

    assert key_config(own_transit.bao)[0] == 3


@pytest.mark.openbao
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"{KEY}/config", {"exportable": True}),
        ("POST", f"{KEY}/config", {"deletion_allowed": True}),
        ("POST", "transit/sign/own-es256", {"input": "YQ==", "key_version": 1}),
        ("POST", "transit/keys/another", {"type": "ecdsa-p256"}),
    ],
)
def test_a_rotator_can_neither_sign_nor_take_keys_out(
    own_transit: Transit, rotator_role: AppRole, method: str, path: str, body: dict[str, Any]
) -> None:
    assert method == "POST"
    session = VaultSession(own_transit.server, auth=rotator_role.auth)

    with closing(session), pytest.raises(TemporarilyUnavailable) as refused:
        session.post(path, body)

    assert refused.value.detail.startswith("vault: forbidden (needs ")


@pytest.mark.openbao
@pytest.mark.parametrize("path", [f"{KEY}/rotate", f"{KEY}/config", "kv/data/broker/keys/record"])
def test_who_signs_can_neither_rotate_nor_write_the_record(own_transit: Transit, path: str) -> None:
    with closing(own_transit.session()) as session:
        with pytest.raises(TemporarilyUnavailable) as refused:
            session.post(path, {"data": {"keys": []}})
        assert refused.value.detail.startswith("vault: forbidden (needs ")


@pytest.mark.openbao
def test_a_version_made_by_hand_in_vault_is_adopted_as_it_signs(
    vault: Place, own_transit: Transit
) -> None:
    vault.make_rotator().tend()
    own_transit.bao.rotate_key("own-es256")

    vault.make_rotator().tend()
    vault.pass_time(minutes=7)
    vault.make_rotator().tend()

    assert vault.states() == ["pending", "active", "retired", "retiring"]


@pytest.mark.openbao
def test_a_record_that_is_damaged_rotates_nothing(vault: Place, own_transit: Transit) -> None:
    vault.make_rotator().tend()
    own_transit.bao.call("POST", "kv/data/broker/keys/record", data={"keys": "none"})

    for use in (vault.make_rotator().tend, lambda: vault.make_rotator().rotate(["ES256"])):
        with pytest.raises(TemporarilyUnavailable) as refused:
            use()
        assert refused.value.detail == "vault: the record of the keys is not one"
    assert key_config(own_transit.bao)[2] == [1, 2]


# The thread that looks after keys.


def test_a_tender_goes_on_after_whatever_happens_and_tells_it_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[int] = []

    def tend() -> None:
        calls.append(1)
        if len(calls) < 20:
            raise signer_unavailable("vault: sealed")

    tender = KeyTender(tend, interval=0.001)
    tender.start()
    wait_until(lambda: len(calls) > 30)
    tender.close()

    assert caplog.messages == [
        "the keys cannot be looked after: TemporarilyUnavailable: vault: sealed",
    ]


def test_a_tender_looks_at_once_and_ends_when_it_is_told() -> None:
    calls: list[int] = []
    tender = KeyTender(lambda: calls.append(1), interval=3600)
    tender.start()
    wait_until(lambda: bool(calls))

    began = time.monotonic()
    tender.close()

    assert time.monotonic() - began < 60
    assert calls == [1]
