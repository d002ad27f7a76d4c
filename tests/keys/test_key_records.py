"""What is done to keys and what becomes of them, in the audit log: before it is done, and as it is seen."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from broker.audit.log import FileAuditLog
from broker.audit.reader import verify_directory
from broker.errors import TemporarilyUnavailable
from broker.keys.dev import DevKeySmith, DevKeyStore
from broker.keys.ephemeral import StatedKey
from broker.keys.journal import KeyJournal
from broker.keys.life import Schedule
from broker.keys.outlook import exposure_of
from broker.keys.published import published_key
from broker.keys.record import MOST_REVOKED_AT_ONCE, HeldRecord, KeyRecord, RecordFull, RevokedKey
from broker.keys.record_file import FileRecord
from broker.keys.rotator import NotRotated, Revoked, Rotator
from broker.keys.statement import KeyStatement
from broker.keys.unavailable import signer_unavailable
from broker.keys.witness import KeyWitness
from broker.model import KeyExposure
from tests.e2e.running import read_records
from tests.harness import Clock

SCHEDULE: Final = Schedule(
    publish_ahead=timedelta(minutes=6),
    keep_published=timedelta(minutes=20),
    rotate_every=timedelta(days=1),
)
MINUTE: Final = 60

Write = Callable[[KeyRecord, int], bool]


@dataclass
class WatchedRecord:
    """The record in a file, with something happening at each write."""

    inner: FileRecord
    at_write: Write

    def read(self) -> HeldRecord:
        return self.inner.read()

    def write(self, record: KeyRecord, *, over: int) -> bool:
        return self.at_write(record, over)


@dataclass
class Place:
    """Embedded keys with their record, and an audit log for what is done to them."""

    directory: Path
    clock: Clock
    audit: FileAuditLog
    stated: list[StatedKey] = field(default_factory=list)

    @property
    def records(self) -> FileRecord:
        return FileRecord(self.directory / "keys")

    def rotator(self, at_write: Write | None = None) -> Rotator:
        records = self.records
        rotator = Rotator(
            records if at_write is None else WatchedRecord(records, at_write),
            DevKeySmith(self.directory / "keys"),
            algorithms=("ES256",),
            schedule=SCHEDULE,
            now=self.clock,
            stated=lambda: self.stated,
        )
        rotator.journal = KeyJournal(
            self.audit, face="command", operator="olga", exposure=self.exposure
        )
        return rotator

    def exposure(self, revoked: Revoked) -> KeyExposure:
        return exposure_of(
            revoked,
            schedule=SCHEDULE,
            max_age=timedelta(minutes=5),
            longest_token=timedelta(minutes=10),
        )

    def witness(self) -> KeyWitness:
        return KeyWitness(self.rotator(), self.audit)

    def told(self, event: str) -> list[dict[str, Any]]:
        return read_records(self.directory / "audit", event)

    def active(self) -> str:
        return next(
            one.entry.kid
            for one in self.rotator().editor("ES256").lives(self.records.read().record)
            if one.state == "active"
        )

    def pass_time(self, **parts: int) -> None:
        self.clock.at += int(timedelta(**parts).total_seconds())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    DevKeyStore(tmp_path / "keys")
    audit = FileAuditLog(tmp_path / "audit", writer="operator", now=time.time, write_timeout=30.0)
    place = Place(tmp_path, Clock(int(time.time())), audit)
    place.rotator().tend()
    place.pass_time(minutes=1)
    yield place
    audit.close()
    assert verify_directory(tmp_path / "audit").is_intact


def steps(changes: Sequence[dict[str, Any]]) -> set[tuple[str | None, str, int]]:
    """From which state to which, and when."""
    return {(one.get("from_state"), one["to_state"], one["at"]) for one in changes}


def test_a_rotation_is_on_disk_with_all_its_moments_before_the_record_changes(place: Place) -> None:
    place.pass_time(minutes=10)
    told_before: list[list[dict[str, Any]]] = []

    def write(record: KeyRecord, over: int) -> bool:
        told_before.append(place.told("key.rotate"))
        return place.records.write(record, over=over)

    active, spare = (
        place.active(),
        place.rotator().editor("ES256").spare(place.records.read().record),
    )
    place.rotator(write).rotate(["ES256"])

    # The claim changes the life of no key, so it is not told.
    nothing, (told,) = told_before
    assert nothing == []
    assert (told["initiator"], told["operator"], told["decision"]) == ("command", "olga", "info")
    begins = place.clock() + int(SCHEDULE.notice.total_seconds())
    changes = {
        kid: [one for one in told["key_changes"] if one["kid"] == kid]
        for kid in (active, spare.kid if spare else "")
    }
    assert steps(changes.pop(active)) == {
        ("active", "retiring", begins),
        ("retiring", "retired", begins + 20 * MINUTE),
    }
    (successor,) = changes.values()
    assert steps(successor) == {("pending", "active", begins)}
    assert (None, "pending", place.clock()) in steps(told["key_changes"])


def test_what_was_announced_is_what_is_seen_later_at_the_announced_moments(place: Place) -> None:
    witness = place.witness()
    witness.look()
    place.rotator().rotate(["ES256"])
    for _ in range(40):
        place.pass_time(minutes=1)
        witness.look()

    (announced,) = place.told("key.rotate")
    seen = [
        (one["kid"], one["to_state"], one["at"])
        for record in place.told("key.seen")
        for one in record["key_changes"]
    ]
    assert {(one["kid"], one["to_state"], one["at"]) for one in announced["key_changes"]} <= {*seen}
    assert len(seen) == len({*seen})


def test_a_rotation_by_age_and_a_new_spare_say_so(place: Place) -> None:
    (adopted, spare) = place.told("key.publish")
    assert adopted["initiator"] == spare["initiator"] == "upkeep"
    assert [one["to_state"] for one in adopted["key_changes"]] == ["pending", "active"]
    assert [one["to_state"] for one in spare["key_changes"]] == ["pending"]

    place.pass_time(days=1)
    place.rotator().tend()

    (rotated,) = place.told("key.rotate")
    assert rotated["initiator"] == "age"


def test_what_cannot_be_recorded_is_not_rotated_and_makes_no_key(place: Place) -> None:
    before = place.records.read()
    files = sorted((place.directory / "keys").iterdir())
    place.audit.close()
    place.pass_time(days=1)

    for change in (lambda: place.rotator().rotate(["ES256"]), place.rotator().tend):
        with pytest.raises(TemporarilyUnavailable) as refused:
            change()
        assert refused.value.reason.code == "audit_unavailable"

    assert place.records.read() == before
    assert sorted((place.directory / "keys").iterdir()) == files


def test_a_revocation_is_on_disk_first_with_the_exposure_that_remains(place: Place) -> None:
    told_before: list[list[dict[str, Any]]] = []

    def write(record: KeyRecord, over: int) -> bool:
        told_before.append(place.told("key.revoke"))
        return place.records.write(record, over=over)

    kid, now = place.active(), place.clock()
    revoked = place.rotator(write).revoke(kid)

    told = told_before[0][0]
    assert (told["kid"], told["initiator"], told["operator"]) == (kid, "command", "olga")
    assert ("active", "revoked", now) in steps(
        [one for one in told["key_changes"] if one["kid"] == kid]
    )
    assert ("pending", "active", now) in steps(told["key_changes"])
    exposure = place.exposure(revoked)
    assert told["exposure"] == {
        "stopped_at": exposure.stopped_at,
        "accepted_until": exposure.accepted_until,
        "expired_at": exposure.expired_at,
        "known_from": exposure.known_from,
        "cut_off_until": exposure.cut_off_until,
    }
    assert revoked.is_recorded


def test_a_revocation_does_not_wait_for_its_record_and_a_witness_makes_up_for_it(
    place: Place, tmp_path: Path
) -> None:
    kid = place.active()
    place.audit.close()

    revoked = place.rotator().revoke(kid)

    assert not revoked.is_recorded
    assert kid in place.records.read().record.revoked_ids
    place.audit = FileAuditLog(tmp_path / "audit", writer="keys", now=time.time, write_timeout=30.0)
    place.witness().look()
    (seen,) = place.told("key.seen")
    assert (kid, "revoked") in {(one["kid"], one["to_state"]) for one in seen["key_changes"]}
    place.audit.close()


def test_a_change_that_others_were_faster_than_is_taken_back(place: Place) -> None:
    kid, losses = place.active(), iter([False])

    def lose_once(record: KeyRecord, over: int) -> bool:
        return next(losses, True) and place.records.write(record, over=over)

    place.rotator(lose_once).revoke(kid)

    first, second = place.told("key.revoke")
    (failed,) = place.told("key.failed")
    assert failed["about"] == first["event_id"] != second["event_id"]
    assert failed["detail"].startswith("nothing was changed")


def test_a_revocation_that_the_record_has_no_room_for_is_not_made_and_says_so(place: Place) -> None:
    kid, rotator = "k" * 43, place.rotator()
    rotator.has_keys_in_memory = True
    held = place.records.read()
    full = [
        RevokedKey(str(n).rjust(43, "r"), 1, place.clock() + 9) for n in range(MOST_REVOKED_AT_ONCE)
    ]
    assert place.records.write(replace(held.record, revoked=tuple(full)), over=held.version)
    before = place.records.read()

    with pytest.raises(RecordFull, match=r"96 revoked keys .* at most"):
        rotator.revoke(kid)

    assert place.records.read() == before
    (announced,), (failed,) = place.told("key.revoke"), place.told("key.failed")
    assert failed["about"] == announced["event_id"]
    assert failed["detail"].startswith("nothing was changed")
    # Once what it remembers is over, there is room again.
    place.pass_time(seconds=10)
    assert rotator.revoke(kid).record.revoked_ids == {kid}


def test_a_second_revocation_tells_the_moments_of_the_first(place: Place) -> None:
    kid = place.active()
    first = place.rotator().revoke(kid)
    place.pass_time(minutes=3)

    second = place.rotator().revoke(kid)

    assert (first.is_repeated, second.is_repeated) == (False, True)
    assert place.exposure(second) == place.exposure(first)
    assert (second.was_active, second.signing) == (True, first.signing)
    told = [one["exposure"] for one in place.told("key.revoke")]
    assert told[0] == told[1]


def test_a_change_of_which_nobody_knows_whether_it_was_made_says_so(place: Place) -> None:
    place.pass_time(days=1)
    writes = iter([True])

    def break_down(record: KeyRecord, over: int) -> bool:
        if next(writes, False):
            return place.records.write(record, over=over)
        raise signer_unavailable("vault: timeout")

    with pytest.raises(TemporarilyUnavailable):
        place.rotator(break_down).rotate(["ES256"])

    (announced,), (failed,) = place.told("key.rotate"), place.told("key.failed")
    assert failed["about"] == announced["event_id"]
    assert "not known" in failed["detail"]


def test_a_crash_before_the_change_leaves_the_announcement_alone(place: Place) -> None:
    place.pass_time(days=1)
    place.audit.close()
    before = place.records.read().record.keys
    child = os.fork()
    if child == 0:
        place.audit = FileAuditLog(
            place.directory / "audit", writer="operator", now=time.time, write_timeout=30.0
        )
        writes = iter([True])

        def die(record: KeyRecord, over: int) -> bool:
            return place.records.write(record, over=over) if next(writes, False) else os._exit(9)

        place.rotator(die).rotate(["ES256"])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

    assert len(place.told("key.rotate")) == 1
    assert place.told("key.failed") == []
    assert place.records.read().record.keys == before


def test_a_refused_rotation_leaves_no_record(place: Place) -> None:
    place.rotator().rotate(["ES256"])

    with pytest.raises(NotRotated):
        place.rotator().rotate(["ES256"])

    assert len(place.told("key.rotate")) == 1


def test_a_successor_that_is_revoked_takes_back_what_was_announced_for_the_active_key(
    place: Place,
) -> None:
    active = place.active()
    record = place.rotator().rotate(["ES256"])
    successor = place.rotator().editor("ES256").scheduled(record)
    assert successor is not None

    place.rotator().revoke(successor.kid)

    (told,) = place.told("key.revoke")
    assert steps([one for one in told["key_changes"] if one["kid"] == active]) == {
        ("active", "active", place.clock())
    }


@pytest.mark.requirement("SGN-02")
def test_a_retired_key_does_not_come_back_when_its_successor_is_revoked(place: Place) -> None:
    first = place.active()
    place.rotator().rotate(["ES256"])
    place.pass_time(hours=1)
    second = place.active()
    assert second != first

    place.rotator().revoke(second)

    lives = place.rotator().editor("ES256").lives(place.records.read().record)
    states = {life.entry.kid: life.state.value for life in lives}
    assert states[first] == "retired"
    assert states[second] == "revoked"
    (told,) = place.told("key.revoke")
    assert first not in [one["kid"] for one in told["key_changes"]]


def test_a_witness_tells_every_state_at_first_and_then_only_what_changes(place: Place) -> None:
    witness = place.witness()
    for _ in range(3):
        witness.look()

    (seen,) = place.told("key.seen")
    assert {one["to_state"] for one in seen["key_changes"]} == {"pending", "active"}
    assert all("from_state" not in one for one in seen["key_changes"])

    kid = place.active()
    place.rotator().revoke(kid)
    witness.look()

    _, news = place.told("key.seen")
    assert ("active", "revoked", place.clock()) in steps(news["key_changes"])


def test_what_a_witness_could_not_record_it_records_at_the_next_look(
    place: Place, tmp_path: Path
) -> None:
    audit = place.audit
    place.audit = FileAuditLog(tmp_path / "audit", writer="keys", now=time.time, write_timeout=30.0)
    witness = place.witness()
    (tmp_path / "audit").rename(tmp_path / "away")
    (tmp_path / "audit").touch()
    with pytest.raises(TemporarilyUnavailable):
        witness.look()
    (tmp_path / "audit").unlink()
    (tmp_path / "away").rename(tmp_path / "audit")
    deadline = time.monotonic() + 60
    while not place.told("key.seen") and time.monotonic() < deadline:
        try:
            witness.look()
        except TemporarilyUnavailable:
            time.sleep(0.05)

    (seen,) = place.told("key.seen")
    assert len(seen["key_changes"]) == 2
    place.audit.close()
    place.audit = audit


def test_a_key_in_the_memory_of_a_replica_is_named_with_its_replica(place: Place) -> None:
    now = place.clock()
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    statement = KeyStatement(
        replica="broker-1.7f",
        algorithm="ES256",
        published=published_key(public, "ES256"),
        made_at=now - 600,
        begins_at=now - 200,
        ends_at=now + 600,
        certifier="c" * 43,
    )
    kid = statement.kid
    place.stated.append(StatedKey(statement, now + 600))
    witness = place.witness()
    witness.look()
    place.rotator().revoke(kid)
    witness.look()

    (told,) = place.told("key.revoke")
    expected = {
        "kid": kid,
        "algorithm": "ES256",
        "from_state": "active",
        "to_state": "revoked",
        "at": now,
        "replica": "broker-1.7f",
    }
    assert told["key_changes"] == [expected]
    at_first, news = place.told("key.seen")
    assert (None, "active", now - 200) in steps(at_first["key_changes"])
    assert news["key_changes"] == [expected]
