"""Quotas: who asks too often is refused, and nobody else."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from broker.endpoints.allowances import LocalAllowances
from broker.endpoints.limits import Limits, LimitTerms, source_of
from broker.errors import Reason
from broker.model import Quota
from tests.harness import Answer, GrpcFace, HttpFace, basic
from tests.stage import Stage
from tests.stagehands import Staging
from tests.world import WEB_SECRET, Cast, by_assertion, exchange_parameters, good_access_token

FEW = Quota(rate=1, burst=5)
BUSY = ("429", "RESOURCE_EXHAUSTED")


class Ticking:
    """A monotonic clock that stands until it is moved."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@dataclass
class Set:
    """A stage with limits, whose clock a test moves, and what was turned away without a record."""

    stage: Stage
    ticking: Ticking
    turned_away: Counter[tuple[str, str]] = field(default_factory=Counter)

    def ask(self, client_id: str = "mcp1-srv", **changes: Any) -> Answer:
        """A good exchange of a client's, or one that is changed."""
        parameters = exchange_parameters(good_access_token(), **changes)
        return self.stage.ask(parameters | by_assertion(client_id))

    def reasons(self) -> list[str | None]:
        """Why what is on record was refused."""
        return [record.get("reason") for record in self.stage.broker.records()]

    def is_refused(self, answer: Answer) -> bool:
        """Whether that is what an answer says, in all that it says."""
        if answer.is_granted:
            return False
        assert answer.status == BUSY[answer.face == "grpc"]
        assert answer.error == "temporarily_unavailable"
        assert self.retry_after(answer) >= 1
        return True

    def retry_after(self, answer: Answer) -> int:
        """When it is to come back."""
        if answer.face == "http":
            return int(answer.headers["retry-after"])
        assert "RetryInfo" in answer.everything
        return 1


Setting = Callable[..., Set]


@pytest.fixture
def setting(staging: Staging) -> Setting:
    """Sets the stage with quotas."""

    def build(
        *,
        per_client: Quota | None = None,
        per_source: Quota | None = None,
        cast: Cast | None = None,
    ) -> Set:
        ticking = Ticking()
        turned_away: Counter[tuple[str, str]] = Counter()
        limits = Limits(
            LocalAllowances(now=ticking),
            LimitTerms(per_client, per_source),
            observe=lambda face, reason: turned_away.update([(face, reason)]),
            monotonic=ticking,
        )
        return Set(staging(cast or Cast(), limits=limits), ticking, turned_away)

    return build


@pytest.mark.requirement("DOS-02")
def test_of_ten_times_its_quota_a_noisy_client_gets_its_quota_and_others_are_served(
    setting: Setting,
) -> None:
    world = setting(per_client=FEW)

    noisy, others = [], []
    for number in range(50):
        noisy.append(world.ask())
        if number % 10 == 0:
            others.append(world.ask("agent-x", resource="https://mcp1.test/mcp"))

    assert [world.is_refused(one) for one in noisy] == [False] * 5 + [True] * 45
    assert {one.status for one in others}.isdisjoint(BUSY)


@pytest.mark.requirement("CA-18")
def test_a_client_is_served_again_at_its_rate(setting: Setting) -> None:
    world = setting(per_client=FEW)
    assert [world.ask().is_granted for _ in range(6)] == [True] * 5 + [False]

    world.ticking.at += 2

    assert [world.ask().is_granted for _ in range(3)] == [True, True, False]


def test_a_quota_of_its_own_is_the_one_that_counts(setting: Setting) -> None:
    generous = replace(Cast().client("mcp1-srv"), quota=Quota(rate=1, burst=9))
    world = setting(per_client=FEW, cast=Cast().with_client(generous))

    assert sum(world.ask().is_granted for _ in range(20)) == 9


def test_one_refusal_in_ten_seconds_is_recorded_and_says_how_many_there_were(
    setting: Setting,
) -> None:
    """Or whoever asks often enough fills the disk."""
    world = setting(per_client=FEW)
    answers = [world.ask() for _ in range(25)]
    refused = [one for one in world.stage.broker.records() if one["decision"] == "deny"]

    assert [one["reason"] for one in refused] == ["client_limit"]
    assert refused[0]["client_id"] == "mcp1-srv"
    assert world.turned_away == {(world.stage.face.name, "client_limit"): 19}
    named = ["decision" in one.everything.lower() for one in answers[5:]]
    assert named == [True] + [False] * 19

    world.ticking.at += 10
    assert sum(world.ask().is_granted for _ in range(7)) == 5
    last = [one for one in world.stage.broker.records() if one["decision"] == "deny"][-1]
    assert last["detail"] == "19 more since the last record"


@pytest.mark.requirement("CAU-16")
def test_nobody_uses_up_the_quota_of_a_client_that_he_only_names(setting: Setting) -> None:
    world = setting(per_client=FEW)
    for _ in range(20):
        forged = exchange_parameters(good_access_token()) | by_assertion("mcp1-srv")
        forged["client_assertion"] = str(forged["client_assertion"])[:-8] + "AAAAAAAA"
        assert world.stage.ask(forged).error == "invalid_client"

    assert sum(world.ask().is_granted for _ in range(9)) == 5


def test_nobody_uses_up_a_quota_by_repeating_what_a_client_once_sent(setting: Setting) -> None:
    world = setting(per_client=FEW)
    seen = exchange_parameters(good_access_token()) | by_assertion("mcp1-srv")
    assert world.stage.ask(seen).is_granted

    for _ in range(20):
        assert world.stage.ask(seen).error == "invalid_client"

    assert set(world.reasons()) == {None, "replay"}
    assert sum(world.ask().is_granted for _ in range(9)) == 4


@dataclass(frozen=True)
class Repeated:
    """What a client was granted once, repeated with something else that is wrong, in a way of asking."""

    method: str
    changes: dict[str, str | None]
    reason: str


REPEATED = [
    Repeated("exchange", {"subject_token": "x"}, "malformed_token"),
    Repeated("exchange", {"scope": "no-such-scope"}, "scope_unknown"),
    Repeated("introspect", {"token": None}, "param_missing"),
    Repeated("revoke", {"token": None}, "param_missing"),
]


@pytest.mark.parametrize("repeated", REPEATED, ids=lambda one: f"{one.method}-{one.reason}")
@pytest.mark.requirement("CAU-16", "DOS-01")
def test_a_spent_proof_beside_what_is_wrong_counts_for_who_repeats_it(
    setting: Setting, repeated: Repeated
) -> None:
    """A refused request spends nothing, so what it is repeated beside is never told as a replay."""
    world = setting(per_client=FEW, per_source=Quota(rate=1000, burst=5))
    seen = exchange_parameters(good_access_token()) | by_assertion("mcp1-srv")
    assert world.stage.ask(seen).is_granted
    changed = {**seen, **repeated.changes}
    sent = {name: value for name, value in changed.items() if value is not None}

    ask = getattr(world.stage.face, repeated.method)
    answers = [ask(sent) for _ in range(9)]

    assert world.reasons() == [None] + [repeated.reason] * 6
    assert all(world.is_refused(one) for one in answers[6:])
    assert world.turned_away == {(world.stage.face.name, "source_limit"): 3}
    world.ticking.at += 0.01
    assert [world.ask().is_granted for _ in range(6)] == [True] * 4 + [False] * 2


def test_a_client_pays_for_its_own_mistakes(setting: Setting) -> None:
    """Its assertion is not spent, and so nobody can have seen it granted."""
    world = setting(per_client=FEW, per_source=FEW)
    wrong = {**exchange_parameters(good_access_token()), "subject_token": "x"}
    own = wrong | by_assertion("mcp1-srv")

    assert [world.stage.ask(own).error for _ in range(4)] == ["invalid_request"] * 4
    assert world.stage.ask(wrong | by_assertion("mcp1-srv")).error == "invalid_request"

    assert world.is_refused(world.ask())
    assert world.turned_away.total() == 0


def test_what_nobody_knows_to_be_spent_is_the_client_s_own(
    setting: Setting,
) -> None:
    world = setting(per_client=FEW, per_source=FEW)
    seen = exchange_parameters(good_access_token()) | by_assertion("mcp1-srv")
    assert world.stage.ask(seen).is_granted
    world.stage.broker.state.close()

    for _ in range(4):
        assert world.stage.ask({**seen, "subject_token": "x"}).error == "invalid_request"

    assert world.is_refused(world.stage.ask({**seen, "subject_token": "x"}))
    assert world.reasons()[-1] == "client_limit"


def test_what_is_granted_asks_nothing_more_of_the_state(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = setting(per_client=FEW, per_source=FEW)
    monkeypatch.delattr("broker.state.memory.MemoryState.is_spent")

    assert world.ask().is_granted


@pytest.mark.requirement("DOS-01", "CAU-16")
def test_a_source_of_bad_proofs_is_turned_away_unread(setting: Setting) -> None:
    world = setting(per_source=FEW)
    wrong = exchange_parameters(good_access_token())
    answers = [world.stage.ask(wrong, basic("web-s", f"wrong {number}")) for number in range(30)]

    assert [one.error for one in answers[:6]] == ["invalid_client"] * 6
    assert all(world.is_refused(one) for one in answers[6:])
    # What is turned away is not looked at, so a good proof makes no difference to it.
    assert world.is_refused(world.ask())
    assert world.reasons() == ["bad_secret"] * 6
    assert world.turned_away == {(world.stage.face.name, "source_limit"): 25}
    assert world.stage.face.metadata()["issuer"]

    world.ticking.at += 3
    assert world.ask().is_granted
    assert world.stage.ask(wrong, basic("web-s", WEB_SECRET)).error != "invalid_client"


def test_what_cannot_be_read_counts_for_its_source(setting: Setting) -> None:
    world = setting(per_source=FEW)
    for _ in range(10):
        world.stage.ask({"grant_type": "x" * 5000})

    assert len(world.reasons()) == 6
    assert world.turned_away.total() == 4


def test_what_proves_a_client_never_counts_for_its_source(setting: Setting) -> None:
    world = setting(per_source=FEW)
    for _ in range(20):
        assert world.ask(scope="no-such-scope").error == "invalid_scope"

    assert world.turned_away.total() == 0


@pytest.mark.requirement("CAU-16")
def test_sources_have_nothing_to_do_with_each_other(setting: Setting) -> None:
    world = setting(per_source=FEW)
    face = world.stage.face
    if isinstance(face, GrpcFace):
        pytest.skip("every call of these tests comes from one address")
    body = b"grant_type=client_credentials"

    def statuses(address: str, number: int) -> list[str]:
        return [face.post(body, REMOTE_ADDR=address).status for _ in range(number)]

    assert statuses("192.0.2.9", 8) == ["401"] * 6 + ["429"] * 2
    assert statuses("2001:db8::1", 4) == ["401"] * 4
    assert statuses("2001:db8::ffff:2", 4) == ["401"] * 2 + ["429"] * 2
    assert statuses("2001:db8:0:1::1", 1) == ["401"]
    assert world.ask().is_granted


def test_the_metadata_and_the_keys_are_for_everybody(setting: Setting) -> None:
    """A verifier may live behind the address of somebody who guesses."""
    world = setting(per_source=FEW)
    for _ in range(8):
        world.stage.ask(exchange_parameters(good_access_token()), basic("web-s", "wrong"))

    assert world.is_refused(world.ask())
    assert world.stage.face.metadata()["issuer"]


@pytest.mark.requirement("R-34")
def test_who_is_refused_together_does_not_come_back_together(setting: Setting) -> None:
    world = setting(per_client=Quota(rate=1 / 60, burst=1))
    if not isinstance(world.stage.face, HttpFace):
        pytest.skip("the figure is the same on both faces")
    answers = [world.ask() for _ in range(40)]
    told = [world.retry_after(one) for one in answers if world.is_refused(one)]

    assert len(set(told)) > 10
    assert min(told) >= 60
    assert max(told) <= 120


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("64:ff9b::c000:207", "192.0.2.7"),
        ("64:ff9b::1:c000:207", "64:ff9b::/64"),
        ("64:ff9b:1::c000:207", "64:ff9b:1::/64"),
        ("2002:c000:207:5::1", "192.0.2.7"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdf8", "192.0.2.7"),
        ("::1", "::/64"),
        ("", ""),
        ("a:b", ""),
    ],
)
def test_an_address_stands_for_itself_or_for_its_network(address: str, source: str) -> None:
    assert source_of(address) == source


def test_no_quota_is_no_limit(setting: Setting) -> None:
    world = setting()

    assert all(world.ask().is_granted for _ in range(20))


def test_reasons_have_sentences_that_tell_nothing_of_others() -> None:
    for reason in (Reason.CLIENT_LIMIT, Reason.SOURCE_LIMIT):
        assert not set(json.dumps(reason.sentence)[1:-1]) & set('"\\')
