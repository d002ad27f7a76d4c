"""Who is named in the audit record is named by a pseudonym, and found by who holds its key."""

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.log import FileAuditLog
from broker.audit.people.keys import AHEAD_SECONDS, KeysInUse
from broker.audit.people.naming import NoPeople
from broker.audit.people.periods import Length, is_current, is_period, period_of
from broker.audit.people.pseudonym import PeriodKey
from broker.audit.people.search import People
from broker.audit.reader import read_records, verify_directory
from broker.audit.record import Record
from broker.errors import Reason, TemporarilyUnavailable, TokenRejected
from broker.interfaces import AuditLog
from broker.model import RequestContext, ScopeDecision, Verdict
from tests.audit.people import ISSUER, Away, Clock, named_log
from tests.audit.requests import NOW, open_log
from tests.e2e.patience import until

ALICE = "alice@example.com"
PSEUDONYM = re.compile(r"~2027-01~[A-Za-z0-9_-]{22}")
ALL_LENGTHS: tuple[Length, ...] = ("month", "quarter", "year")

KEY = PeriodKey("2027-01", bytes(range(32)))


@pytest.fixture
def keys(tmp_path: Path) -> Away:
    return Away(tmp_path / "people")


@pytest.fixture
def log(tmp_path: Path, keys: Away) -> Iterator[FileAuditLog]:
    one, in_use = named_log(tmp_path / "audit", keys)
    yield one
    one.close()
    in_use.close()


def note(log: AuditLog, event: str = "token.issue", **facts: Any) -> None:
    with log.entry(event, RequestContext("grpc", f"event-{id(facts)}")) as entry:
        entry.note(**facts)


def last(tmp_path: Path) -> Record:
    *_, record = (one for one in read_records(tmp_path / "audit") if one.event != "chain.closed")
    return record


def lines(tmp_path: Path) -> str:
    return "".join(file.read_text() for file in (tmp_path / "audit").glob("*.jsonl"))


def test_a_person_is_in_the_record_under_a_pseudonym_alone(
    log: FileAuditLog, tmp_path: Path, keys: Away
) -> None:
    note(log, subject=ALICE, subject_issuer="https://idp.example", subject_kind="user")

    record = last(tmp_path)
    assert PSEUDONYM.fullmatch(str(record.subject))
    assert record.subject_issuer == "https://idp.example"
    assert "alice" not in lines(tmp_path)
    assert list(People(keys).pseudonyms_of(ALICE)) == [record.subject]


def test_the_pseudonym_is_the_hash_that_the_documents_promise() -> None:
    """Whoever holds the key can make it with other tools: printf '6:person17:alice@example.com' | openssl."""
    assert KEY.of(ALICE) == "~2027-01~AGwt3UQIX9EMF0GPGHO9nA"


def test_two_names_have_two_pseudonyms_and_one_name_has_one() -> None:
    assert KEY.of("ann") == KEY.of("ann")
    assert len({KEY.of(name) for name in ("ann", "Ann", "ann ", "an", "n", "")}) == 6


def test_the_same_person_has_other_pseudonyms_under_another_key_or_period() -> None:
    other_key = PeriodKey("2027-01", bytes(32))

    assert other_key.of("ann") != KEY.of("ann")
    assert PeriodKey("2027-02", bytes(range(32))).of("ann") != KEY.of("ann")


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        PeriodKey("2027-01", bytes(length))


def test_no_key_is_shown() -> None:
    assert repr(KEY) == "PeriodKey('2027-01')"


@pytest.mark.parametrize(
    "facts",
    [
        {"subject": "client:agent-a", "subject_kind": "client"},
        {"subject": "client:agent-a"},
        {"party_kind": "client", "party": "agent-a"},
        {"party_kind": "mcp_server", "party": "https://tickets.example/mcp"},
        {"party_kind": "issuer", "party": "https://idp.example"},
        {"party_kind": "subject", "party": "client:agent-a"},
        {"actors": ({"iss": ISSUER, "sub": "agent-a", "sub_profile": "service"},)},
        {"actors": ({"iss": "https://idp.example", "sub": "robot", "sub_profile": "ai_agent"},)},
        {"mcp_client": "agent-a", "unverified_client_id": "agent-a", "operator": "root"},
    ],
)
def test_who_is_no_person_keeps_their_name_and_needs_no_key(
    log: FileAuditLog, tmp_path: Path, keys: Away, facts: dict[str, Any]
) -> None:
    keys.is_away = True

    note(log, **facts)

    record = last(tmp_path)
    for name, value in facts.items():
        assert getattr(record, name) == (list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize(
    ("event", "facts"),
    [
        ("token.issue", {"subject": ALICE}),
        ("token.introspect", {"subject": ALICE, "resource": "https://api.example"}),
        ("token.revoke", {"subject": ALICE}),
        ("policy.explain", {"subject": ALICE, "subject_kind": "user"}),
        ("token.withdraw", {"party_kind": "subject", "party": ALICE}),
        ("token.withdraw", {"party": ALICE}),
        ("token.issue", {"actors": ({"iss": "https://idp.example", "sub": ALICE},)}),
        ("token.issue", {"actors": ({"sub": ALICE},)}),
        ("token.issue", {"actors": ({"sub": ALICE, "sub_profile": ["ai_agent"]},)}),
        ("token.issue", {"actors": ({"sub": ALICE, "sub_profile": "user"},)}),
        (
            "token.issue",
            {"actors": ({"iss": "x", "sub": "bob", "email": ALICE, "n": {"a": ALICE}},)},
        ),
        ("token.issue", {"subject": ALICE, "detail": f"asked for {ALICE}, and {ALICE}."}),
        ("token.issue", {"subject": ALICE + "\n\x1b[2J\u202e"}),
        ("token.issue", {"subject": "alice@example.com" * 300}),
    ],
)
@pytest.mark.requirement("LOG-07")
def test_nobody_is_named_wherever_a_record_may_name_somebody(
    log: FileAuditLog, tmp_path: Path, event: str, facts: dict[str, Any]
) -> None:
    note(log, event, **facts)

    assert "alice" not in lines(tmp_path)
    assert PSEUDONYM.search(lines(tmp_path))


@pytest.mark.requirement("LOG-07")
def test_what_cedar_quotes_of_a_person_is_withheld_and_its_policy_is_told(
    log: FileAuditLog, tmp_path: Path
) -> None:
    failed = f'error while evaluating policy `tickets`: entity `Subject::"{ALICE}"` does not exist'
    decision = ScopeDecision("read", Verdict.ERROR, (), (failed, f"invalid IP address: {ALICE}"))
    note(log, subject=ALICE, scope_decisions=(decision,))

    [fact] = last(tmp_path).scope_decisions or []
    assert fact.errors[0].startswith("error while evaluating policy `tickets`: ")
    assert len(fact.errors) == 2
    assert "alice" not in lines(tmp_path)


def test_the_parts_of_a_request_name_the_same_person_alike(
    log: FileAuditLog, tmp_path: Path
) -> None:
    with log.entry("token.issue", RequestContext("grpc", "together")) as entry:
        entry.note(subject=ALICE, actors=({"sub": "bob@example.com"},))
        for _ in range(3):
            with entry.part():
                pass

    records = [one for one in read_records(tmp_path / "audit") if one.event == "token.issue"]
    assert len(records) == 3
    assert len({one.subject for one in records}) == 1
    assert len({str(one.actors) for one in records}) == 1
    assert "bob" not in lines(tmp_path)


def test_a_refusal_names_nobody_either(log: FileAuditLog, tmp_path: Path) -> None:
    rejected = TokenRejected(Reason.REVOKED, f"{ALICE} was withdrawn")
    entry = log.entry("token.issue", RequestContext("http", "denied"))
    entry.note(subject=ALICE)
    entry.__exit__(TokenRejected, rejected, None)

    assert last(tmp_path).decision == "deny"
    assert "alice" not in lines(tmp_path)


@pytest.mark.requirement("LOG-06")
def test_a_name_that_is_too_long_for_a_record_is_found_by_all_of_it(
    log: FileAuditLog, tmp_path: Path, keys: Away
) -> None:
    long = "a" * 700
    note(log, subject=long)
    note(log, actors=({"sub": long},))

    found = People(keys).pseudonyms_of(long)
    assert len(found) == 2
    assert all(one in lines(tmp_path) for one in found)
    assert not set(found) & set(People(keys).pseudonyms_of("a" * 701))


@pytest.mark.requirement("LOG-01")
def test_a_token_in_place_of_a_name_is_hashed_without_what_is_secret_in_it(
    log: FileAuditLog, tmp_path: Path, keys: Away
) -> None:
    note(log, subject="eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl")

    assert last(tmp_path).subject == KeysPseudonym(keys).of("[token removed]")


class KeysPseudonym:
    """What is made of a text by the key of the month."""

    def __init__(self, keys: Away) -> None:
        self._key = PeriodKey("2027-01", keys.files.held()["2027-01"])

    def of(self, text: str) -> str:
        return self._key.of(text)


@pytest.mark.requirement("LOG-03")
def test_a_client_whose_user_calls_themselves_a_pseudonym_is_hashed_like_others(
    log: FileAuditLog, tmp_path: Path, keys: Away
) -> None:
    [theirs] = People(keys).pseudonyms_of(ALICE)
    note(log, subject=theirs)

    assert last(tmp_path).subject != theirs


def test_without_the_key_of_the_period_nobody_is_recorded_and_nobody_served(
    tmp_path: Path, keys: Away
) -> None:
    keys.is_away = True
    log, in_use = named_log(tmp_path / "audit", keys)
    with closing(log), closing(in_use):
        with pytest.raises(TemporarilyUnavailable) as refused:
            note(log, subject=ALICE)
        assert refused.value.reason is Reason.AUDIT_UNAVAILABLE
        with pytest.raises(TemporarilyUnavailable):
            in_use.check()
        note(log, subject="client:agent-a")
        log.check()

        keys.is_away = False
        in_use.look()

        note(log, subject=ALICE)
        in_use.check()
    assert "alice" not in lines(tmp_path)


def test_the_key_of_the_next_period_is_there_a_day_ahead_and_midnight_needs_nobody(
    tmp_path: Path, keys: Away
) -> None:
    midnight = datetime(2027, 2, 1, tzinfo=UTC).timestamp()
    clock = Clock(midnight - AHEAD_SECONDS + 1)
    log, in_use = named_log(tmp_path / "audit", keys, clock=clock)
    with closing(log), closing(in_use):
        keys.is_away = True
        clock.at = midnight - 1
        note(log, subject=ALICE)
        clock.at = midnight
        note(log, subject=ALICE)

    subjects = [one.subject for one in read_records(tmp_path / "audit") if one.subject]
    assert [str(one)[:9] for one in subjects] == ["~2027-01~", "~2027-02~"]
    keys.is_away = False
    assert list(People(keys).pseudonyms_of(ALICE)) == subjects[::-1]


def test_a_key_that_is_away_longer_than_a_day_closes_the_record_at_midnight(keys: Away) -> None:
    midnight = datetime(2027, 2, 1, tzinfo=UTC).timestamp()
    clock = Clock(midnight - AHEAD_SECONDS - 1)
    with closing(KeysInUse(keys, length="month", now=clock)) as in_use:
        keys.is_away = True
        in_use.at(midnight - 1)
        with pytest.raises(TemporarilyUnavailable) as refused:
            in_use.at(midnight)
    assert "2027-02" in refused.value.detail


def test_a_key_that_was_destroyed_is_given_up_by_who_uses_it(keys: Away) -> None:
    with closing(KeysInUse(keys, length="month", now=Clock())) as in_use:
        before = in_use.at(NOW).of(ALICE)
        keys.destroy("2027-01")
        in_use.look()

        assert in_use.at(NOW).of(ALICE) != before


def test_a_key_that_is_destroyed_while_it_is_asked_for_is_given_up_too(keys: Away) -> None:
    class Racing(dict[str, PeriodKey]):
        """Keys of which one is destroyed between its being found and its being given."""

        def get(self, name: str, default: Any = None) -> Any:
            found = super().get(name, default)
            keys.destroy(name)
            in_use.look()
            return found

    with closing(KeysInUse(keys, length="month", now=Clock())) as in_use:
        in_use._held = Racing(in_use._held)
        before = in_use.at(NOW).of(ALICE)

        assert in_use.at(NOW).of(ALICE) != before


def test_keys_that_people_were_looked_for_by_leave_memory(keys: Away) -> None:
    keys.obtain("2027-01")
    people = People(keys, fresh=0.05)
    assert people.periods() == ("2027-01",)

    until(lambda: people._held is None, seconds=30, what="the keys are dropped")


def test_a_period_that_is_over_leaves_memory(keys: Away) -> None:
    clock = Clock()
    with closing(KeysInUse(keys, length="month", now=clock)) as in_use:
        clock.at = NOW + 62 * 86_400
        in_use.look()
        keys.is_away = True

        with pytest.raises(TemporarilyUnavailable):
            in_use.at(NOW)


def test_who_is_forgotten_is_found_no_more_and_the_record_is_whole(
    log: FileAuditLog, tmp_path: Path, keys: Away
) -> None:
    note(log, subject=ALICE)
    now = [0.0]
    people = People(keys, monotonic=lambda: now[0])
    assert people.periods() == ("2027-01",)

    keys.destroy("2027-01")
    now[0] += 5

    assert people.periods() == people.pseudonyms_of(ALICE) == ()
    log.close()
    assert verify_directory(tmp_path / "audit").is_intact


def test_names_are_looked_for_only_where_there_is_one(keys: Away) -> None:
    keys.obtain("2027-01")

    assert People(keys).pseudonyms_of("") == ()


def test_a_chain_of_records_without_people_refuses_a_person(tmp_path: Path) -> None:
    with closing(open_log(tmp_path / "audit")) as log:
        log.name_people(NoPeople(ISSUER))
        note(log, subject="client:agent-a")
        with pytest.raises(TemporarilyUnavailable) as refused:
            note(log, subject=ALICE)
        assert "nobody can be named" in refused.value.detail

    assert "alice" not in lines(tmp_path)


@pytest.mark.parametrize("length", ALL_LENGTHS)
@given(at=st.integers(min_value=0, max_value=7_000_000_000))
def test_periods_follow_each_other_without_a_gap(length: Length, at: int) -> None:
    period = period_of(at, length)

    assert period.holds(at)
    assert is_period(period.name)
    assert is_current(period.name, at)
    assert not period.holds(period.until)
    assert period_of(period.until, length).since == period.until
    assert period_of(period.until, length).name > period.name


@pytest.mark.parametrize(
    "name",
    ["", "2026-13", "2026-00", "2026-q5", "26-11", "2026-11\n", "../2026", "2026-11-01", "٢٠٢٦"],
)
def test_nothing_else_is_the_name_of_a_period(name: str) -> None:
    assert not is_period(name)
