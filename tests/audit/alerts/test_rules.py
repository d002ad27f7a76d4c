"""Each rule tells what it is for, and is silent about everything else."""

from typing import Any

import pytest

from broker.audit.record import KeyChangeFact, Record
from broker.errors import Reason
from tests.audit.alerts.telling import CLIENT, DAY, NOW, Telling, denied, issued

OTHER = "https://other.test/"


def learnt(rule: str, **terms: Any) -> Telling:
    """A rule that has learnt for longer than it wanted to, from the usual pair."""
    telling = Telling(rule, **terms)
    assert telling.see(issued(NOW - 2 * DAY, chain_depth=1)) == 0
    return telling


def test_the_first_token_of_a_client_for_a_resource_is_told_once() -> None:
    telling = learnt("first_use")

    assert telling.see(issued(NOW, resource=OTHER, subject="~2027-01~abc")) == 1
    assert telling.told[0]["client_id"] == CLIENT
    assert telling.told[0]["resource"] == OTHER
    assert telling.told[0]["subject"] == "~2027-01~abc"
    assert telling.told[0]["event_id"] == f"at-{NOW}"
    telling.clock += 10**6
    assert telling.see(issued(NOW + DAY, resource=OTHER)) == 0


@pytest.mark.parametrize(
    "record",
    [
        issued(),
        issued(subject="somebody else"),
        issued(mcp_server="another"),
        denied(resource=OTHER),
        denied(client_id="new"),
        issued(resource=None),
        issued(client_id=None),
        issued(event="token.introspect", resource=OTHER),
        issued(event="policy.explain", resource=OTHER),
    ],
)
def test_what_is_no_new_pair_is_no_first_use(record: Record) -> None:
    assert learnt("first_use").see(record) == 0


def test_a_new_log_only_learns() -> None:
    telling = Telling("first_use")
    first_day = [issued(NOW + hour * 3600, client_id=f"c{hour}") for hour in range(24)]

    assert telling.see(*first_day) == 0
    assert telling.see(issued(NOW + DAY + 1, client_id="c3")) == 0
    assert telling.see(issued(NOW + DAY + 2, client_id="late")) == 1


def test_pairs_are_two_names_and_not_their_sum() -> None:
    telling = learnt("first_use")
    telling.see(issued(NOW, client_id="a", resource="bc"))

    assert telling.see(issued(NOW, client_id="ab", resource="c")) == 1


@pytest.mark.parametrize("facts", [{}, {"client_id": None, "unverified_client_id": CLIENT}])
def test_a_client_that_is_refused_too_often_is_told(facts: dict[str, Any]) -> None:
    telling = Telling("client_denials", threshold=10, within=60)

    assert telling.see(*(denied(NOW + second, **facts) for second in range(10))) == 0
    assert telling.see(denied(NOW + 10, **facts)) == 1
    assert telling.told[0]["denials"] == 11
    assert telling.see(*(denied(NOW + 11 + second, **facts) for second in range(100))) == 0


@pytest.mark.parametrize(
    "records",
    [
        [issued(NOW + second) for second in range(100)],
        [denied(NOW + 10 * second) for second in range(100)],
        [denied(NOW + second, client_id=f"c{second}") for second in range(100)],
        [denied(NOW + second, client_id=None) for second in range(100)],
        [denied(NOW + second, decision="info") for second in range(100)],
    ],
    ids=["permits", "rare", "of many", "of nobody", "no decisions"],
)
def test_what_is_no_rate_of_one_client_is_not_told(records: list[Record]) -> None:
    assert Telling("client_denials", threshold=10, within=60).see(*records) == 0


def test_denials_of_all_together_are_told_too() -> None:
    telling = Telling("denials", threshold=50, within=60)
    many = [denied(NOW + number / 10, client_id=f"c{number}") for number in range(60)]

    assert telling.see(*many[:50]) == 0
    assert telling.see(*many[50:]) == 1
    assert Telling("denials", threshold=50, within=60).see(*map(issued, range(1000))) == 0
    slow = [denied(NOW + 2 * second) for second in range(1000)]
    assert Telling("denials", threshold=50, within=60).see(*slow) == 0


def test_chains_that_are_not_in_step_count_together() -> None:
    telling = Telling("denials", threshold=30, within=60)
    one = [denied(NOW + second) for second in range(20)]
    other = [denied(NOW + second + 0.5) for second in range(20)]

    assert telling.see(*one) == 0
    assert telling.see(*other) == 1


def test_a_replayed_assertion_is_told() -> None:
    telling = Telling("replays")

    assert telling.see(denied(reason="replay", parameter="assertion")) == 1
    assert telling.told[0]["reason"] == "replay"
    assert telling.told[0]["client_id"] == CLIENT


@pytest.mark.parametrize("reason", [one.code for one in Reason if one is not Reason.REPLAY])
def test_no_other_refusal_is_a_replay(reason: str) -> None:
    assert Telling("replays").see(denied(reason=reason)) == 0


def test_how_many_replays_are_told_can_be_said() -> None:
    telling = Telling("replays", threshold=3, within=60)

    assert telling.see(*[denied(reason="replay")] * 2) == 0
    assert telling.see(denied(NOW + 300, reason="replay")) == 0
    assert telling.see(*[denied(NOW + 301, reason="replay")] * 2) == 1


def test_a_chain_deeper_than_any_before_is_told() -> None:
    telling = learnt("depth")

    assert telling.see(issued(NOW, chain_depth=3)) == 1
    assert (telling.told[0]["chain_depth"], telling.told[0]["usual_depth"]) == (3, 1)
    assert telling.see(issued(NOW, chain_depth=3)) == 0
    assert telling.see(issued(NOW, chain_depth=4)) == 1


@pytest.mark.parametrize(
    "record",
    [
        issued(chain_depth=1),
        issued(chain_depth=2),
        issued(chain_depth=None),
        denied(chain_depth=5),
        issued(event="token.introspect", chain_depth=5),
    ],
)
def test_what_is_as_deep_as_usual_is_not_told(record: Record) -> None:
    assert learnt("depth").see(record) == 0


def test_what_is_usual_for_one_resource_is_not_for_another() -> None:
    telling = Telling("depth")
    assert telling.see(issued(NOW - 2 * DAY, chain_depth=4)) == 0

    assert telling.see(issued(NOW, chain_depth=4)) == 0
    assert telling.see(issued(NOW, chain_depth=4, resource=OTHER)) == 1


def change(kid: str, before: str | None, after: str, at: float = NOW) -> KeyChangeFact:
    return KeyChangeFact(algorithm="ES256", at=int(at), from_state=before, kid=kid, to_state=after)


def keys(event: str, *changes: KeyChangeFact, event_id: str = "k", **facts: Any) -> Record:
    return issued(
        NOW, event=event, decision="info", event_id=event_id, key_changes=[*changes], **facts
    )


def signed(kid: str, at: float) -> Record:
    return issued(at, kid=kid, issued_at=int(at))


@pytest.mark.parametrize(
    ("record", "wrong"),
    [
        (signed("new", NOW + 500), "signed before its time"),
        (signed("old", NOW + 1100), "signed after its time"),
        (signed("revoked", NOW + 100), "signed after its time"),
        (signed("gone", NOW), "signed after its time"),
        (signed("pending", NOW), "signed while it was pending"),
    ],
)
def test_a_key_that_signs_outside_its_time_is_told(record: Record, wrong: str) -> None:
    telling = Telling("key_times")
    telling.see(*lives())

    assert telling.see(record) == 0
    assert telling.look(NOW + 60) == 0, "what is known of the key may still come"
    assert telling.look(NOW + 2000) == 1
    assert telling.told[0]["wrong"] == wrong
    assert telling.told[0]["kid"] == record.kid


def lives() -> list[Record]:
    """What the record tells of some keys."""
    return [
        keys(
            "key.seen",
            change("old", None, "active", NOW - 1000),
            change("revoked", None, "active", NOW - 1000),
            change("gone", None, "retired", NOW - 3000),
            change("pending", None, "pending", NOW - 10),
        ),
        keys(
            "key.rotate",
            change("new", "pending", "active", NOW + 1000),
            change("old", "active", "retiring", NOW + 1000),
            change("old", "retiring", "retired", NOW + 5000),
        ),
        keys("key.revoke", change("revoked", "active", "revoked", NOW)),
    ]


@pytest.mark.parametrize(
    "record",
    [
        signed("old", NOW),
        signed("old", NOW + 1000),
        signed("old", NOW + 1059),
        signed("new", NOW + 1000),
        signed("new", NOW + 941),
        signed("new", NOW + 10**6),
        signed("revoked", NOW - 1),
        signed("revoked", NOW + 59),
        signed("gone", NOW - 3000),
        signed("unknown", NOW),
        issued(kid="gone"),
        denied(kid="gone", issued_at=int(NOW)),
        issued(event="token.introspect", kid="gone", issued_at=int(NOW)),
    ],
)
def test_a_key_that_signs_in_its_time_is_not_told(record: Record) -> None:
    telling = Telling("key_times")
    telling.see(*lives(), record)

    assert telling.look(NOW + 10**7) == 0


def test_what_is_told_of_a_key_later_counts_for_what_it_signed_before() -> None:
    telling = Telling("key_times")
    telling.see(*lives(), signed("pending", NOW))
    telling.see(keys("key.seen", change("pending", "pending", "active", NOW - 1)))

    assert telling.look(NOW + 10**6) == 0


def test_a_rotation_that_was_not_done_changes_no_life() -> None:
    telling = Telling("key_times")
    telling.see(*lives())
    telling.see(keys("key.rotate", change("old", "active", "retiring", NOW), event_id="r1"))
    telling.see(keys("key.failed", about="r1", event_id="f1"))
    telling.see(signed("old", NOW + 500))

    assert telling.look(NOW + 10**6) == 0


def test_what_is_not_to_come_of_a_key_is_forgotten() -> None:
    telling = Telling("key_times")
    telling.see(*lives(), keys("key.seen", change("old", "active", "active", NOW)))
    telling.see(signed("old", NOW + 10**5))

    assert telling.look(NOW + 10**6) == 0


def config(event: str, digest: str, detail: str | None = None) -> Record:
    return issued(
        NOW, event=event, decision="info", policy_digest=digest, detail=detail, client_id=None
    )


def test_another_policy_set_or_configuration_is_told_once_for_all_workers() -> None:
    telling = Telling("changes")

    assert telling.see(*[config("config.loaded", "d2")] * 4) == 1
    assert telling.told[0]["policy_digest"] == "d2"
    assert telling.see(*[config("config.rejected", "d2", "broker.yaml:1")] * 4) == 1
    assert telling.see(config("config.loaded", "d3")) == 1


def test_a_start_with_other_policies_than_before_is_told() -> None:
    telling = Telling("changes")

    assert telling.see(*[config("service.started", "d1")] * 4) == 0
    assert telling.see(*[config("service.started", "d2")] * 4) == 1
    assert telling.see(config("service.started", "d2"), config("service.stopped", "d2")) == 0


@pytest.mark.parametrize(
    "record", [issued(policy_digest="d9"), denied(policy_digest="d9"), keys("key.rotate")]
)
def test_nothing_else_is_a_change(record: Record) -> None:
    telling = Telling("changes")
    telling.see(config("service.started", "d1"))

    assert telling.see(record) == 0


def test_a_record_of_which_nobody_knows_whether_it_is_whole_is_told_by_its_reason() -> None:
    telling = Telling("unverified")

    assert telling.look() == 0
    assert telling.look(unverified="it took longer than 60 s") == 1
    assert telling.told[0]["why"] == "it took longer than 60 s"
    assert telling.look(unverified="it took longer than 60 s") == 0
    assert telling.look(unverified="ended by signal 9") == 1


def test_damage_is_told_by_chain_and_kind() -> None:
    telling = Telling("damage")

    assert telling.look() == 0
    assert telling.look(damaged={"http-0": "changed", "anchor": "rolled back"}) == 2
    assert telling.told[0]["chain"] == "http-0"
    assert telling.look(damaged={"http-0": "changed"}) == 0
    assert telling.look(damaged={"http-0": "missing"}) == 1


def test_damage_at_a_place_is_told_once_and_as_grave() -> None:
    telling = Telling("damage")
    place = "http-0.000001.jsonl:3"

    assert telling.look(damaged={place: "the record was changed after it was indexed"}) == 1
    assert telling.look(damaged={place: "changed: it was changed after it was written"}) == 0
    assert telling.look(damaged={"http-0.000002.jsonl": "the file is gone"}) == 1
    assert [(one["place"], one["log_level"]) for one in telling.told] == [
        (place, "critical"),
        ("http-0.000002.jsonl", "critical"),
    ]


def test_a_sink_that_falls_behind_is_told() -> None:
    telling = Telling("backlog")

    assert telling.look(backlogs={"http": 0, "syslog": 10_000}) == 0
    assert telling.look(backlogs={"http": 10_001, "syslog": 5}) == 1
    assert (telling.told[0]["sink"], telling.told[0]["backlog"]) == ("http", 10_001)


def test_what_was_learnt_outlives_a_restart() -> None:
    before, after = learnt("first_use"), Telling("first_use")
    before.see(issued(NOW, resource=OTHER))
    after.alerts.recall(before.alerts.memory())

    assert after.see(issued(NOW + 1, resource=OTHER)) == 0
    assert after.see(issued(NOW + 1, resource="https://third.test/")) == 1

    deep, later = learnt("depth"), Telling("depth")
    deep.see(issued(NOW, chain_depth=4))
    later.alerts.recall(deep.alerts.memory())
    assert later.see(issued(NOW, chain_depth=4)) == 0
    assert later.see(issued(NOW, chain_depth=5)) == 1

    changed, again = Telling("changes"), Telling("changes")
    changed.see(config("service.started", "d1"))
    again.alerts.recall(changed.alerts.memory())
    assert again.see(config("service.started", "d2")) == 1


@pytest.mark.parametrize("rule", ["first_use", "depth", "changes", "denials"])
@pytest.mark.parametrize(
    "lines",
    [[], [""], ["nan"], ["inf", "x"], ["1e999", "3"], ["x" * 10_000] * 3, ["", "-1 a", "é a"]],
)
def test_a_memory_that_makes_no_sense_is_passed_over(rule: str, lines: list[str]) -> None:
    telling = Telling(rule)
    telling.alerts.recall({rule: lines, "unknown": lines})

    assert telling.see(issued(), denied()) == 0
