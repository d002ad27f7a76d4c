"""What every audit log must do."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.audit.log import FileAuditLog
from broker.audit.reader import read_records
from broker.errors import (
    InvalidClient,
    InvalidGrant,
    InvalidTarget,
    Reason,
    TemporarilyUnavailable,
    TokenRejected,
)
from broker.interfaces import AuditLog
from broker.model import (
    InputToken,
    OneTimeId,
    RequestContext,
    ScopeDecision,
    Verdict,
)
from tests.fakes import RecordingAuditLog

NOW = 1_800_000_000.25
CONTEXT = RequestContext("http", "req-1", "192.0.2.7:4711")


@dataclass(frozen=True, slots=True)
class Subject:
    """An audit log, what it has kept, and a way to make it unable to keep anything."""

    log: AuditLog
    records: Callable[[], list[Mapping[str, Any]]]
    fail: Callable[[], None]


@pytest.fixture(params=["file", "recording"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    made = _file(tmp_path / "audit") if request.param == "file" else _recording()
    yield made
    made.log.close()


def _recording() -> Subject:
    log = RecordingAuditLog(now=lambda: NOW)

    def fail() -> None:
        log.is_available = False

    return Subject(log, lambda: log.records, fail)


def _file(directory: Path) -> Subject:
    log = FileAuditLog(directory, writer="w1", now=lambda: NOW, write_timeout=60)

    def records() -> list[Mapping[str, Any]]:
        found = [msgspec.to_builtins(record) for record in read_records(directory)]
        return [record for record in found if not record["event"].startswith("chain.")]

    def fail() -> None:
        directory.rename(directory.with_name("gone"))
        directory.write_bytes(b"no directory any more")

    return Subject(log, records, fail)


def request(
    log: AuditLog,
    failure: BaseException | None = None,
    *,
    context: RequestContext = CONTEXT,
    facts: Mapping[str, object] | None = None,
) -> None:
    """One request that notes facts and then succeeds or fails."""
    with log.entry("token.issue", context) as entry:
        entry.note(**(facts or {}))
        if failure is not None:
            raise failure


def only_record(subject: Subject) -> Mapping[str, Any]:
    (record,) = subject.records()
    return record


def assert_same(record: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """The record is exactly this, apart from its place in a chain."""
    assert {
        name: record[name] for name in record if name not in {"prev", "seq", "writer"}
    } == expected


def test_a_block_that_is_left_normally_is_recorded_as_permitted(subject: Subject) -> None:
    with subject.log.entry("token.issue", CONTEXT) as entry:
        entry.note(client_id="agent-x", jti="jti-1")

    assert_same(
        only_record(subject),
        {
            "v": 1,
            "event": "token.issue",
            "event_id": "req-1",
            "time": "2027-01-15T08:00:00.250000Z",
            "decision": "permit",
            "face": "http",
            "peer": "192.0.2.7:4711",
            "client_id": "agent-x",
            "jti": "jti-1",
        },
    )


def test_an_oauth_error_is_recorded_as_denied_and_goes_on(subject: Subject) -> None:
    refusal = InvalidTarget(
        Reason.POLICY_FORBIDDEN, parameter="resource", detail="forbidden by g-external"
    )

    with pytest.raises(InvalidTarget) as caught:
        request(subject.log, refusal, facts={"client_id": "agent-x"})

    assert caught.value is refusal
    assert_same(
        only_record(subject),
        {
            "v": 1,
            "event": "token.issue",
            "event_id": "req-1",
            "time": "2027-01-15T08:00:00.250000Z",
            "decision": "deny",
            "error": "invalid_target",
            "reason": "policy_forbidden",
            "parameter": "resource",
            "detail": "forbidden by g-external",
            "face": "http",
            "peer": "192.0.2.7:4711",
            "client_id": "agent-x",
        },
    )


@pytest.mark.parametrize(
    "failure",
    [
        ValueError("secret-in-a-message"),
        KeyboardInterrupt("secret-in-a-message"),
        SystemExit("secret-in-a-message"),
        GeneratorExit("secret-in-a-message"),
    ],
)
@pytest.mark.requirement("LOG-01")
def test_any_other_exception_is_recorded_by_its_type_alone(
    subject: Subject, failure: BaseException
) -> None:
    with pytest.raises(type(failure)):
        request(subject.log, failure)

    record = only_record(subject)
    assert (record["decision"], record["error"], record["reason"], record["detail"]) == (
        "deny",
        "server_error",
        "internal_error",
        type(failure).__name__,
    )
    assert "secret" not in str(record)


def test_a_rejection_that_no_caller_is_told_of_is_recorded_without_a_code(
    subject: Subject,
) -> None:
    rejected = TokenRejected(Reason.TOKEN_EXPIRED, "an hour ago")
    with pytest.raises(TokenRejected):
        request(subject.log, rejected)

    record = only_record(subject)
    assert (record["decision"], record["reason"]) == ("deny", "token_expired")
    assert record["detail"] == "an hour ago"
    assert "error" not in record


@pytest.mark.parametrize("event", ["config.loaded", "config.rejected", "service.started"])
def test_an_event_of_the_service_informs(subject: Subject, event: str) -> None:
    with subject.log.entry(event, RequestContext("", "boot-1")) as entry:
        entry.note(policy_digest="ab" * 32)

    record = only_record(subject)
    assert (record["event"], record["decision"]) == (event, "info")
    assert "face" not in record
    assert "peer" not in record


@pytest.mark.parametrize("event", ["", "token.mint", "chain.opened", "chain.closed"])
def test_an_event_that_is_not_listed_is_a_mistake_in_the_program(
    subject: Subject, event: str
) -> None:
    with pytest.raises(ValueError, match="no audit event"):
        subject.log.entry(event, CONTEXT)

    assert subject.records() == []


def test_a_later_fact_replaces_an_earlier_one_and_none_takes_it_away(subject: Subject) -> None:
    with subject.log.entry("token.issue", CONTEXT) as entry:
        entry.note(client_id="first", tenant="acme")
        entry.note(client_id="second", tenant=None)

    record = only_record(subject)
    assert record["client_id"] == "second"
    assert "tenant" not in record


def test_what_was_noted_can_be_asked_for_while_the_entry_is_open(subject: Subject) -> None:
    with subject.log.entry("token.issue", CONTEXT) as entry:
        assert entry.noted("client_id") is None
        entry.note(client_id="agent-x")
        assert entry.noted("client_id") == "agent-x"


@pytest.mark.requirement("LOG-03")
@pytest.mark.parametrize(
    "name",
    [
        *("event", "time", "decision", "v", "event_id", "writer", "seq", "prev"),
        *("boot_id", "cause", "torn_bytes", "group", "log_id"),
        *("level", "timestamp", "msg", "_logger", "request_id", "token", "Event"),
    ],
)
def test_a_fact_cannot_take_the_place_of_what_the_log_says_itself(
    subject: Subject, name: str
) -> None:
    with pytest.raises(ValueError, match="no fact named"):
        request(subject.log, facts={name: "permit"})

    record = only_record(subject)
    assert (record["event"], record["decision"]) == ("token.issue", "deny")
    assert record["reason"] == "internal_error"
    assert record["time"] == "2027-01-15T08:00:00.250000Z"


@pytest.mark.requirement("LOG-03")
def test_what_the_refusal_says_stands_above_what_was_noted(subject: Subject) -> None:
    facts = {"reason": "replay", "error": "none", "detail": "all is well"}

    with pytest.raises(InvalidClient):
        request(subject.log, InvalidClient(Reason.BAD_SECRET), facts=facts)

    record = only_record(subject)
    assert (record["reason"], record["error"]) == ("bad_secret", "invalid_client")


@pytest.mark.requirement("LOG-04")
@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.code)
def test_every_reason_is_recorded_by_its_code(subject: Subject, reason: Reason) -> None:
    with pytest.raises(InvalidGrant):
        request(subject.log, InvalidGrant(reason))

    assert only_record(subject)["reason"] == reason.code


@pytest.mark.requirement("LOG-04")
@pytest.mark.parametrize("reason", ["", "because", "REPLAY", 7])
def test_a_reason_outside_the_closed_list_is_a_mistake_in_the_program(
    subject: Subject, reason: object
) -> None:
    with pytest.raises(ValueError, match="closed list"):
        request(subject.log, facts={"reason": reason})

    assert only_record(subject)["reason"] == "internal_error"


@pytest.mark.parametrize(
    "facts",
    [
        {"client_id": b"agent-x"},
        {"client_id": 7},
        {"chain_depth": "1"},
        {"chain_depth": 1.5},
        {"scopes_granted": "a:read"},
        {"scopes_granted": [1]},
        {"scopes_granted": {"a:read": True}},
        {"actors": ["mcp1-srv"]},
        {"inputs": [OneTimeId("k", "i", "j", 1)]},
    ],
)
def test_a_fact_of_the_wrong_type_is_a_mistake_in_the_program(
    subject: Subject, facts: Mapping[str, object]
) -> None:
    with pytest.raises((TypeError, ValueError)):
        request(subject.log, facts=facts)

    assert only_record(subject)["reason"] == "internal_error"


def test_facts_are_kept_in_the_shapes_that_the_model_has(subject: Subject) -> None:
    with subject.log.entry("token.issue", CONTEXT) as entry:
        entry.note(
            relation="audience",
            actors=({"sub": "mcp1-srv", "iss": "https://sts.test"}, {"sub": "agent-x"}),
            chain_depth=2,
            scopes_asked=frozenset({"b:read", "a:read"}),
            scopes_granted=("b:read",),
            inputs=(
                InputToken("subject_token", "https://sts.test", "jti-0", 1_800_000_300),
                InputToken("actor_token", "https://idp-a.test", None, 1_800_000_060),
            ),
            scope_decisions=(
                ScopeDecision("b:read", Verdict.PERMIT, ("exchange-read",)),
                ScopeDecision("a:read", Verdict.ERROR, (), ("no such attribute",)),
            ),
        )

    record = only_record(subject)
    assert record["actors"] == [{"sub": "mcp1-srv", "iss": "https://sts.test"}, {"sub": "agent-x"}]
    assert record["scopes_asked"] == ["a:read", "b:read"]
    assert record["inputs"] == [
        {
            "slot": "subject_token",
            "issuer": "https://sts.test",
            "jti": "jti-0",
            "expires_at": 1_800_000_300,
        },
        {"slot": "actor_token", "issuer": "https://idp-a.test", "expires_at": 1_800_000_060},
    ]
    assert record["scope_decisions"] == [
        {"scope": "b:read", "verdict": "permit", "policy_ids": ["exchange-read"]},
        {"scope": "a:read", "verdict": "error", "errors": ["no such attribute"]},
    ]


def test_facts_may_be_given_as_plain_json_too(subject: Subject) -> None:
    facts = {
        "inputs": [{"slot": "subject_token", "issuer": "https://sts.test", "expires_at": 7}],
        "scope_decisions": [{"scope": "a:read", "verdict": "permit"}],
    }

    request(subject.log, facts={**facts, "lifetime": timedelta(minutes=5, milliseconds=900)})

    record = only_record(subject)
    assert {name: record[name] for name in facts} == facts
    assert record["lifetime"] == 300


def test_what_was_noted_is_what_it_was_at_that_moment(subject: Subject) -> None:
    act, scopes = {"sub": "mcp1-srv"}, ["a:read"]
    with subject.log.entry("token.issue", CONTEXT) as entry:
        entry.note(actors=[act], scopes_granted=scopes)
        act["sub"] = "admin"
        scopes.append("a:write")

    record = only_record(subject)
    assert record["actors"] == [{"sub": "mcp1-srv"}]
    assert record["scopes_granted"] == ["a:read"]


@pytest.mark.parametrize("failure", [None, InvalidTarget(Reason.TARGET_UNKNOWN), ValueError("x")])
def test_when_the_record_cannot_be_kept_nothing_else_is_answered(
    subject: Subject, failure: Exception | None
) -> None:
    subject.fail()

    with pytest.raises(TemporarilyUnavailable) as caught:
        request(subject.log, failure)

    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
    with pytest.raises(TemporarilyUnavailable):
        subject.log.check()


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_goes_on_even_when_the_record_cannot_be_kept(
    subject: Subject, failure: type[BaseException]
) -> None:
    subject.fail()

    with pytest.raises(failure):
        request(subject.log, failure())


def test_a_closed_log_keeps_what_it_had_and_refuses_the_rest(subject: Subject) -> None:
    request(subject.log)
    subject.log.check()

    subject.log.close()

    with pytest.raises(TemporarilyUnavailable):
        request(subject.log)
    with pytest.raises(TemporarilyUnavailable):
        subject.log.check()
    assert [record["event_id"] for record in subject.records()] == ["req-1"]


@pytest.mark.requirement("LOG-04")
def test_as_many_requests_as_there_were_are_recorded_each_once(subject: Subject) -> None:
    def requests(thread: int) -> None:
        for number in range(25):
            context = RequestContext("grpc", f"req-{thread}-{number}")
            failure = InvalidTarget(Reason.TARGET_UNKNOWN) if number % 3 == 0 else None
            with suppress(InvalidTarget):
                request(subject.log, failure, context=context)

    threads = [threading.Thread(target=requests, args=(thread,)) for thread in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    records = subject.records()
    assert {record["event_id"] for record in records} == {
        f"req-{thread}-{number}" for thread in range(16) for number in range(25)
    }
    assert len(records) == 16 * 25
    decisions = [record["decision"] for record in records]
    assert (decisions.count("permit"), decisions.count("deny")) == (16 * 16, 16 * 9)


def group_of(log: AuditLog, size: int, failure: BaseException | None = None) -> None:
    """A request for several tokens, of which the last may fail."""
    with log.entry("token.issue", CONTEXT) as entry:
        entry.note(client_id="agent-x", targets_asked=["all"])
        parts = []
        for number in range(size):
            with entry.part() as part:
                part.note(scopes_asked=[f"scope-{number}"])
                if failure is not None and number == size - 1:
                    raise failure
                part.note(targets_asked=[f"target-{number}"])
            parts.append(part)
        for number, part in enumerate(parts):
            part.note(jti=f"jti-{number}")


def test_each_part_of_a_request_has_a_record_in_one_group(subject: Subject) -> None:
    group_of(subject.log, 3)

    records = subject.records()
    assert [one["event_id"] for one in records] == ["req-1#1", "req-1#2", "req-1#3"]
    for number, one in enumerate(records):
        assert one["decision"] == "permit"
        assert (one["group"], one["group_number"], one["group_size"]) == ("req-1", number + 1, 3)
        assert (one["client_id"], one["jti"]) == ("agent-x", f"jti-{number}")
        assert one["targets_asked"] == [f"target-{number}"]


def test_a_part_that_is_refused_leaves_one_record_with_what_was_known_of_it(
    subject: Subject,
) -> None:
    with pytest.raises(InvalidTarget):
        group_of(subject.log, 3, InvalidTarget(Reason.TARGET_UNKNOWN))

    record = only_record(subject)
    assert (record["event_id"], record["decision"]) == ("req-1", "deny")
    assert (record["reason"], record["group_number"]) == ("target_unknown", 3)
    assert (record["targets_asked"], record["scopes_asked"]) == (["all"], ["scope-2"])
    assert "group" not in record


def test_a_request_that_fails_after_its_parts_is_refused_as_a_whole(subject: Subject) -> None:
    def fail_at_last() -> None:
        with subject.log.entry("token.issue", CONTEXT) as entry:
            for _ in range(2):
                with entry.part() as part:
                    part.note(targets_asked=["one"])
            raise InvalidClient(Reason.REPLAY)

    with pytest.raises(InvalidClient):
        fail_at_last()

    record = only_record(subject)
    assert (record["decision"], record["reason"]) == ("deny", "replay")
    assert not {"group", "group_number", "targets_asked"} & set(record)


def test_a_group_that_cannot_be_kept_is_refused(subject: Subject) -> None:
    subject.fail()

    with pytest.raises(TemporarilyUnavailable):
        group_of(subject.log, 3)


def test_a_part_has_no_parts(subject: Subject) -> None:
    with (
        pytest.raises(TypeError),
        subject.log.entry("token.issue", CONTEXT) as entry,
        entry.part() as part,
    ):
        part.part()
