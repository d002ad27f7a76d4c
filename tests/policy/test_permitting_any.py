from pathlib import Path

import pytest

from broker.metrics import Metrics, ObservedPolicyEngine
from broker.model import Scope
from broker.policy.cedar import CedarPolicyEngine
from broker.policy.facts import MAX_SCOPES
from tests.policy.queries import PERMIT_ALL, READ, WRITE, LoadSet, client, login, query

OVERFLOWS = "context.chain_depth * 9223372036854775807 > 0"
FAILS = f'@id("f") forbid (principal, action, resource) when {{ {OVERFLOWS} }};\n'
ONE_OF_MANY = PERMIT_ALL.replace(";", ' when { resource.name == "s20" };')


def scopes(count: int) -> list[Scope]:
    return [Scope(f"s{one}", frozenset()) for one in range(count)]


def test_no_permit_for_any_scope_is_a_no(shipped: CedarPolicyEngine) -> None:
    assert not shipped.permits_any(query(*scopes(100)))
    assert not shipped.permits_any(query(READ, WRITE, who=client("newcomer")))


def test_one_scope_among_many_is_enough(shipped: CedarPolicyEngine) -> None:
    assert shipped.permits_any(query(*scopes(60), READ))


def test_a_scope_that_only_a_login_would_open_is_closed(shipped: CedarPolicyEngine) -> None:
    assert not shipped.permits_any(query(WRITE, authentication=login("pwd")))


def test_the_asking_ends_with_the_first_permit(load_set: LoadSet, sizes: list[int]) -> None:
    engine = load_set(ONE_OF_MANY)
    sizes.clear()
    assert engine.permits_any(query(*scopes(100)))
    assert sizes == [16, 16]


def test_a_no_is_asked_for_once_and_remembered(load_set: LoadSet, sizes: list[int]) -> None:
    engine = load_set(ONE_OF_MANY)
    sizes.clear()
    assert not engine.permits_any(query(*scopes(20)))
    assert sizes == [16, 4]
    assert not engine.permits_any(query(*scopes(20)))
    assert sizes == [16, 4]


def test_what_has_been_decided_is_not_asked_again(load_set: LoadSet, sizes: list[int]) -> None:
    engine = load_set(ONE_OF_MANY)
    engine.decide(query(*scopes(20)))
    engine.decide(query(*scopes(21)))
    sizes.clear()
    assert not engine.permits_any(query(*scopes(20)))
    assert engine.permits_any(query(*scopes(21)))
    assert sizes == []


def test_what_is_remembered_is_bounded(load_set: LoadSet) -> None:
    engine = load_set(PERMIT_ALL, decision_cache_size=64)
    for number in range(50):
        assert engine.permits_any(query(who=client(f"client-{number}")))
    assert len(engine._permits) <= 8


def test_an_answer_that_changes_with_the_second_is_not_remembered(load_set: LoadSet) -> None:
    condition = "context.auth has age && context.auth.age + 1 < 900"
    engine = load_set(PERMIT_ALL.replace(";", f" when {{ {condition} }};"))
    assert engine.permits_any(query())
    assert len(engine._permits) == 0


@pytest.mark.requirement("POL-02")
def test_a_failing_policy_is_a_no_and_is_not_remembered(load_set: LoadSet) -> None:
    engine = load_set(PERMIT_ALL + FAILS)
    assert not engine.permits_any(query(READ, WRITE))
    assert len(engine._permits) == 0
    impersonates = '@id("i") permit (principal, action == Action::"impersonate", resource);\n'
    about_that = FAILS.replace(" action,", ' action == Action::"impersonate",')
    assert not load_set(PERMIT_ALL + impersonates + about_that).permits_any(query())


@pytest.mark.requirement("POL-02")
def test_what_cannot_be_asked_is_a_no(load_set: LoadSet) -> None:
    engine = load_set(PERMIT_ALL)
    assert not engine.permits_any(query(Scope("\ud800", frozenset())))
    assert not engine.permits_any(query(*scopes(MAX_SCOPES + 1)))
    assert not engine.permits_any(query(who=client("a", groups={"unhashable"})))


def test_the_measured_engine_answers_alike(load_set: LoadSet, tmp_path: Path) -> None:
    engine = load_set(ONE_OF_MANY)
    observed = ObservedPolicyEngine(engine, Metrics(tmp_path / "metrics", "http"))
    for asked in (query(*scopes(20)), query(*scopes(21))):
        assert observed.permits_any(asked) is engine.permits_any(asked)
