"""The lives of keys, from being published to leaving the key set, as they are on record."""

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import TemporarilyUnavailable
from broker.keys.book import KeyBook
from broker.keys.changes import RecordEditor
from broker.keys.life import KeyEntry, KeyState, Schedule, lives_at
from broker.keys.outlook import Change, upcoming
from broker.keys.record import (
    Claim,
    HeldRecord,
    KeyRecord,
    NoRecord,
    RecordUnreadable,
)

NOW = 1_800_000_000
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SCHEDULE = Schedule(publish_ahead=6 * MINUTE, keep_published=20 * MINUTE, rotate_every=DAY)
AHEAD, KEEP, NOTICE = 360, 1200, 45


@dataclass(frozen=True)
class Found:
    """A key that exists."""

    number: int
    created_at: int = NOW

    @property
    def kid(self) -> str:
        return kid(self.number)


def kid(number: int) -> str:
    return f"k{number}".rjust(43, "x")


def entry(number: int, activates_at: int | None = NOW - 9999, **others: int) -> KeyEntry:
    return KeyEntry("ES256", number, kid(number), NOW - 10_000, activates_at, **others)


def record(*entries: KeyEntry) -> KeyRecord:
    return KeyRecord().with_keys("ES256", entries)


def states(record: KeyRecord, now: int = NOW) -> dict[int, str]:
    """The state of each key by its number."""
    lives = lives_at(record.of("ES256"), now, keep_published=SCHEDULE.keep_published)
    return {life.entry.number: life.state.value for life in lives}


def at(now: int, schedule: Schedule = SCHEDULE) -> RecordEditor:
    return RecordEditor("ES256", schedule, now)


@pytest.mark.requirement("META-11", "ITR-06")
def test_a_key_is_published_then_signs_then_stays_for_its_tokens_and_then_leaves() -> None:
    first = at(NOW).adopt(KeyRecord(), [Found(1)])
    second = at(NOW).add_spare(first, Found(2))
    spare = at(NOW).spare(second)
    assert spare is not None
    changed = at(NOW).begin_in_time(second, spare)

    begins, leaves = NOW + AHEAD, NOW + AHEAD + KEEP
    assert states(changed, NOW) == {2: "pending", 1: "active"}
    assert states(changed, begins - 1) == {2: "pending", 1: "active"}
    assert states(changed, begins) == {2: "active", 1: "retiring"}
    assert states(changed, leaves - 1) == {2: "active", 1: "retiring"}
    assert states(changed, leaves) == {2: "active", 1: "retired"}


def test_a_spare_that_verifiers_know_begins_as_soon_as_every_replica_was_told() -> None:
    known = record(entry(1), entry(2, None))
    spare = at(NOW).spare(known)
    assert spare is not None

    changed = at(NOW).begin_in_time(known, spare)

    assert states(changed, NOW + NOTICE - 1) == {2: "pending", 1: "active"}
    assert states(changed, NOW + NOTICE) == {2: "active", 1: "retiring"}


def test_a_key_leaves_no_sooner_than_the_settings_ask_for_now() -> None:
    """Lifetimes may have been raised after the moment was set."""
    keys = record(entry(1, leaves_at=NOW + 10), entry(2, NOW))

    longer = lives_at(keys.of("ES256"), NOW + KEEP, keep_published=HOUR)
    shorter = lives_at(keys.of("ES256"), NOW + 5, keep_published=timedelta(seconds=1))

    assert [life.state for life in longer] == [KeyState.ACTIVE, KeyState.RETIRING]
    assert [life.state for life in shorter] == [KeyState.ACTIVE, KeyState.RETIRING]


def test_a_key_whose_end_nobody_set_stays_published() -> None:
    assert states(record(entry(1), entry(2)), NOW + 10**6) == {2: "active", 1: "retiring"}


@pytest.mark.requirement("SGN-02")
def test_a_revoked_key_is_published_by_nobody_and_another_signs_at_once() -> None:
    keys = record(entry(1), entry(2, None), entry(3, None))
    revoked = at(NOW).revoke(keys, kid(1))
    assert states(revoked) == {3: "pending", 2: "pending", 1: "revoked"}
    spare = at(NOW).spare(revoked)
    assert spare is not None
    assert spare.number == 2

    assert states(at(NOW).begin_at_once(revoked, spare)) == {
        3: "pending",
        2: "active",
        1: "revoked",
    }


def test_whoever_waits_for_a_successor_that_is_revoked_goes_on_and_does_not_leave() -> None:
    keys = record(
        entry(1, NOW - 9999, leaves_at=NOW + 50),
        entry(2, NOW - 500, leaves_at=NOW + 100 + KEEP),
        entry(3, NOW + 100),
    )

    revoked = at(NOW).revoke(keys, kid(3))

    # What is kept is the longer of what is on record and what the settings ask for.
    assert states(revoked, NOW + 99_999) == {3: "revoked", 2: "active", 1: "retired"}
    assert [one.leaves_at for one in revoked.of("ES256")] == [NOW + 50, None, None]


def test_a_revocation_is_for_ever_and_keeps_its_first_moment() -> None:
    once = at(NOW).revoke(record(entry(1), entry(2, None)), kid(1))
    twice = at(NOW + 99).revoke(once, kid(1))

    assert twice == once
    assert states(twice, NOW + 10**9)[1] == "revoked"


def test_a_key_that_somebody_made_by_hand_is_adopted_as_replicas_treat_it() -> None:
    keys = at(NOW).adopt(record(entry(1), entry(2, None)), [Found(3, NOW - 60)])

    assert states(keys, NOW - 60 + AHEAD - 1) == {3: "pending", 2: "pending", 1: "active"}
    # A spare that was passed over will not be needed.
    assert states(keys, NOW - 60 + AHEAD) == {3: "active", 2: "retired", 1: "retiring"}
    assert states(keys, NOW - 60 + AHEAD + KEEP) == {3: "active", 2: "retired", 1: "retired"}


def test_what_a_long_active_key_supersedes_leaves_as_if_it_had_begun_only_now() -> None:
    """A replica whose settings were changed may have come to the new key a moment ago."""
    keys = at(NOW).adopt(record(entry(1)), [Found(2, NOW - 10**6)])

    assert states(keys, NOW + KEEP - 1) == {2: "active", 1: "retiring"}
    assert states(keys, NOW + KEEP) == {2: "active", 1: "retired"}


def test_a_key_older_than_what_is_on_record_is_nobodys() -> None:
    book = KeyBook(SCHEDULE, now=lambda: NOW, records=Held(record(entry(5))))
    book.look()

    lives = book.lives("ES256", [Found(5), Found(4), Found(1)], signed=None)

    assert [life.entry.number for life in lives] == [5]


def test_gone_keys_are_dropped_from_the_record_at_last_and_the_newest_never() -> None:
    gone = [entry(number, leaves_at=NOW - 1, revoked_at=NOW - 1) for number in range(1, 31)]

    pruned = at(NOW).prune(record(*gone))

    assert [one.number for one in pruned.of("ES256")] == [22, 23, 24, 25, 26, 27, 28, 29, 30]


def test_a_key_is_due_early_enough_for_its_successor_to_begin_at_its_age() -> None:
    active_since = NOW - int(DAY.total_seconds())
    with_spare = record(entry(1, active_since), entry(2, None))
    alone = record(entry(1, active_since))

    assert at(NOW).due_at(with_spare) == NOW - NOTICE
    assert at(NOW).due_at(alone) == NOW - AHEAD
    assert at(NOW).due_at(record(entry(1, active_since), entry(2, NOW + 5))) is None
    assert at(NOW, replace(SCHEDULE, rotate_every=None)).due_at(alone) is None
    assert at(NOW - AHEAD).is_due(alone)
    assert not at(NOW - AHEAD - 1).is_due(alone)


def test_what_will_happen_is_told_in_its_order() -> None:
    keys = record(entry(1, leaves_at=NOW + 60 + KEEP), entry(2, NOW + 60), entry(3, None))
    young = replace(keys.of("ES256")[2], published_at=NOW)

    events = upcoming(at(NOW), keys.with_keys("ES256", (*keys.of("ES256")[:2], young)))

    assert [(event.at - NOW, event.kid, event.change) for event in events] == [
        (60, kid(2), Change.BEGINS),
        (60, kid(1), Change.SUCCEEDED),
        (60 + NOTICE, kid(1), Change.CLOSED),
        (AHEAD, kid(3), Change.KNOWN),
        (60 + KEEP, kid(1), Change.LEAVES),
    ]


def test_the_very_first_key_signs_though_its_maker_has_a_clock_that_is_far_ahead() -> None:
    keys = at(NOW).adopt(KeyRecord(), [Found(1, NOW + 99_999)])

    assert states(keys) == {1: "active"}


# The record as replicas follow it.


@dataclass
class Held:
    """A record that is read and never written."""

    record: KeyRecord
    version: int = 1

    def read(self) -> HeldRecord:
        return HeldRecord(self.record, self.version)

    def write(self, record: KeyRecord, *, over: int) -> bool:
        raise AssertionError(f"a replica wrote {record} over {over}")


def test_a_record_that_was_there_and_is_gone_is_a_fault_and_is_not_forgotten() -> None:
    records = Held(record(entry(1), entry(2, NOW, revoked_at=NOW)))
    book = KeyBook(SCHEDULE, now=lambda: NOW, records=records)
    book.look()
    records.record, records.version = KeyRecord(), 0

    with pytest.raises(TemporarilyUnavailable) as refused:
        book.look()

    assert refused.value.detail == "the record of the keys is gone"
    lives = book.lives("ES256", [Found(1), Found(2)], signed=None)
    assert [life.state.value for life in lives] == ["revoked", "active"]


def test_what_was_read_too_long_ago_is_stale_whichever_way_the_clock_went() -> None:
    book = KeyBook(SCHEDULE, now=lambda: NOW, records=NoRecord())

    assert not book.is_stale(NOW - 15)
    assert book.is_stale(NOW - 16)
    assert book.is_stale(NOW + 16)


def test_a_key_set_is_kept_no_longer_than_until_an_unknown_key_may_sign() -> None:
    book = KeyBook(SCHEDULE, now=lambda: NOW, records=NoRecord())

    assert book.fresh_for(NOW) == AHEAD - 30
    assert book.fresh_for(NOW - 100) == AHEAD - 130
    assert book.fresh_for(NOW - AHEAD) == 0


def test_nothing_can_be_put_where_nothing_is_on_record() -> None:
    with pytest.raises(TemporarilyUnavailable):
        NoRecord().write(KeyRecord(), over=0)


# The form of the record.


def test_a_record_is_read_as_it_was_written() -> None:
    written = KeyRecord(
        (entry(1, leaves_at=NOW), entry(2, None), entry(3, NOW, revoked_at=NOW)),
        Claim("somebody", NOW),
    )

    assert KeyRecord.of_members(written.members()) == written


GOOD = {"algorithm": "ES256", "number": 1, "kid": "k" * 43, "published_at": 1}
NO_RECORDS: dict[str, object] = {
    "a list": [],
    "another format": {"keys": [], "format": 2},
    "keys that are no list": {"keys": {}},
    "a key that is no object": {"keys": [1]},
    "a key without an id": {"keys": [{**GOOD, "kid": ""}]},
    "an id that could be a path": {"keys": [{**GOOD, "kid": "../" * 14 + "k"}]},
    "another algorithm": {"keys": [{**GOOD, "algorithm": "none"}]},
    "no number": {"keys": [{**GOOD, "number": 0}]},
    "a moment as text": {"keys": [{**GOOD, "published_at": "1"}]},
    "a moment before time": {"keys": [{**GOOD, "activates_at": -1}]},
    "a fraction of a second": {"keys": [{**GOOD, "revoked_at": 1.5}]},
    "a key twice": {"keys": [GOOD, GOOD]},
    "two keys of one number": {"keys": [GOOD, {**GOOD, "kid": "l" * 43}]},
    "two keys of one id": {"keys": [GOOD, {**GOOD, "number": 2}]},
    "too many keys": {
        "keys": [{**GOOD, "number": n, "kid": str(n).rjust(43, "k")} for n in range(1, 67)]
    },
    "a claim that is none": {"keys": [], "claim": "mine"},
}


@pytest.mark.parametrize("members", NO_RECORDS.values(), ids=NO_RECORDS)
def test_what_is_no_record_is_not_read_as_one(members: object) -> None:
    with pytest.raises(RecordUnreadable):
        KeyRecord.of_members(members)


# Whatever is done to it.


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int]]:
    """What operators and time do, with the seconds that pass before each."""
    kinds = st.sampled_from(["rotate", "revoke-active", "revoke-scheduled", "wait"])
    return draw(st.lists(st.tuples(kinds, st.integers(0, 3000)), max_size=25))


def changed(editor: RecordEditor, record: KeyRecord, kind: str) -> KeyRecord:
    """The record after one of those, with a spare in it."""
    if editor.spare(record) is None:
        newest = max(one.number for one in record.of("ES256"))
        record = editor.add_spare(record, Found(newest + 1))
    scheduled, active, spare = editor.scheduled(record), editor.active(record), editor.spare(record)
    assert spare is not None
    if kind == "rotate" and scheduled is None:
        return editor.begin_in_time(record, spare)
    if kind == "revoke-scheduled" and scheduled is not None:
        return editor.revoke(record, scheduled.kid)
    if kind == "revoke-active" and active is not None:
        return editor.begin_at_once(editor.revoke(record, active.kid), scheduled or spare)
    return record


@given(histories())
def test_whatever_is_done_one_key_signs_that_is_published_and_none_leaves_too_early(
    history: list[tuple[str, int]],
) -> None:
    now, keys = NOW, at(NOW).adopt(KeyRecord(), [Found(1)])
    last_signed: dict[int, int] = {}
    for kind, seconds in history:
        now += seconds
        keys = at(now).prune(changed(at(now), keys, kind))
        lives = {life.entry.number: life for life in at(now).lives(keys)}

        signing = [number for number, one in lives.items() if one.state is KeyState.ACTIVE]
        assert len(signing) == 1
        assert signing[0] >= max(last_signed, default=0)
        last_signed[signing[0]] = now
        for number, moment in last_signed.items():
            if number in lives and lives[number].state is KeyState.RETIRED:
                assert now >= moment + KEEP
