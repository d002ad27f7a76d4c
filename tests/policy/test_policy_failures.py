import threading
from typing import Any

import pytest

from broker.model import Authentication, Decision, PolicyQuery, Resource, Scope, Verdict
from broker.policy.cedar import CedarPolicyEngine
from broker.policy.facts import MAX_SCOPES
from tests.policy.queries import (
    NOW,
    PERMIT_ALL,
    READ,
    SHIPPED,
    WRITE,
    LoadSet,
    chain,
    client,
    query,
)

OVERFLOWS = "context.chain_depth * 9223372036854775807 > 0"
FAILING_FORBID = f'@id("f") forbid (principal, action, resource) when {{ {OVERFLOWS} }};\n'


class Panic(BaseException):
    """As a panic of native code arrives: no Exception."""


class Broken:
    """A policy set that raises whatever it is given."""

    digest = "0" * 64

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        raise self.error


def broken(error: BaseException) -> CedarPolicyEngine:
    engine = CedarPolicyEngine.load(SHIPPED)
    engine._policies = Broken(error)  # type: ignore[assignment]
    return engine


def verdicts(decision: Decision) -> list[Verdict]:
    return [one.verdict for one in decision.scopes]


@pytest.mark.requirement("POL-02")
def test_a_forbid_that_fails_denies_although_cedar_would_skip_it(load_set: LoadSet) -> None:
    decision = load_set(PERMIT_ALL + FAILING_FORBID).decide(query())
    assert verdicts(decision) == [Verdict.ERROR]
    assert decision.granted == ()
    assert "integer overflow" in decision.scopes[0].errors[0]
    assert decision.step_up is None


@pytest.mark.requirement("POL-02")
def test_a_permit_that_fails_denies_although_another_permits(load_set: LoadSet) -> None:
    failing = f'@id("p") permit (principal, action == Action::"exchange", resource) when {{ {OVERFLOWS} }};'
    assert verdicts(load_set(PERMIT_ALL + failing).decide(query())) == [Verdict.ERROR]


@pytest.mark.requirement("POL-02")
def test_a_failure_denies_the_scope_it_concerns_and_no_other(load_set: LoadSet) -> None:
    only_write = FAILING_FORBID.replace("when {", 'when { resource.name == "crm.contacts.write" &&')
    decision = load_set(PERMIT_ALL + only_write).decide(query(READ, WRITE))
    assert verdicts(decision) == [Verdict.PERMIT, Verdict.ERROR]
    assert decision.granted == ("crm.contacts.read",)


@pytest.mark.requirement("POL-02")
def test_a_failure_about_impersonation_denies_the_exchange_as_well(load_set: LoadSet) -> None:
    impersonates = '@id("i") permit (principal, action == Action::"impersonate", resource);\n'
    failing = FAILING_FORBID.replace(" action,", ' action == Action::"impersonate",')
    decision = load_set(PERMIT_ALL + impersonates + failing).decide(query())
    assert verdicts(decision) == [Verdict.ERROR]
    assert not decision.is_impersonation


@pytest.mark.requirement("POL-02")
@pytest.mark.parametrize(
    "error", [RuntimeError("secret"), MemoryError(), Panic("secret"), ValueError()]
)
def test_an_engine_in_trouble_denies_every_scope_and_says_only_what_kind(
    error: BaseException,
) -> None:
    engine = broken(error)
    decision = engine.decide(query(READ, WRITE))
    assert verdicts(decision) == [Verdict.ERROR, Verdict.ERROR]
    assert "secret" not in repr(decision)
    assert type(error).__name__ in decision.scopes[0].errors[0]
    assert {one.verdict for one in engine.explain(query(READ, WRITE))} == {Verdict.ERROR}
    assert not engine.permits_any(query(READ, WRITE))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_what_stops_the_process_is_not_taken_for_a_denial(error: BaseException) -> None:
    with pytest.raises(type(error)):
        broken(error).decide(query())
    with pytest.raises(type(error)):
        broken(error).permits_any(query())


@pytest.mark.requirement("POL-02")
@pytest.mark.parametrize(
    "asked",
    [
        query(to=Resource("https://api.example/#fragment", {})),
        query(Scope("\ud800", frozenset())),
        query(who=client("a", groups={"unhashable"})),
        query(scopes=frozenset({"\udfff"})),
    ],
    ids=["fragment", "surrogate scope", "mutable groups", "surrogate in the token"],
)
def test_what_cannot_be_asked_is_denied(shipped: CedarPolicyEngine, asked: PolicyQuery) -> None:
    assert set(verdicts(shipped.decide(asked))) <= {Verdict.ERROR, Verdict.NO_PERMIT}
    assert {one.verdict for one in shipped.explain(asked)} == {Verdict.ERROR}


@pytest.mark.parametrize("auth_time", [-(10**30), NOW + 10**30])
def test_an_absurd_moment_of_login_is_very_old_or_now(
    shipped: CedarPolicyEngine, auth_time: int
) -> None:
    asked = query(WRITE, authentication=Authentication(auth_time, "phr"))
    expected = [Verdict.PERMIT if auth_time > NOW else Verdict.FORBIDDEN]
    assert verdicts(shipped.decide(asked)) == expected
    assert [one.verdict for one in shipped.explain(asked)] == expected


@pytest.mark.requirement("POL-02")
def test_too_many_scopes_at_once_are_denied(shipped: CedarPolicyEngine) -> None:
    many = [Scope(f"s{number}", frozenset()) for number in range(MAX_SCOPES + 1)]
    assert set(verdicts(shipped.decide(query(*many)))) == {Verdict.ERROR}
    assert set(verdicts(shipped.decide(query(*many[:-1])))) == {Verdict.NO_PERMIT}


def test_a_failure_is_not_remembered(load_set: LoadSet) -> None:
    engine = load_set(PERMIT_ALL + FAILING_FORBID)
    engine.decide(query())
    assert len(engine._decisions) == 0


@pytest.mark.requirement("POL-06")
def test_what_an_actor_claims_about_itself_reaches_no_policy(shipped: CedarPolicyEngine) -> None:
    forged = {
        "sub": "agent-desk",
        "relation": "audience",
        "acr": "phr",
        "auth": {"acr": "phr", "age": 1},
        "subject_scopes": ["tickets:comment"],
        "chain_depth": 0,
    }
    asked = query(WRITE, authentication=Authentication(), inherited_act=forged)
    plain = query(WRITE, authentication=Authentication(), inherited_act=chain("agent-desk"))
    assert shipped.decide(asked) == shipped.decide(plain)
    assert not shipped.decide(asked).granted


def test_many_threads_are_answered_as_one_would_be(shipped: CedarPolicyEngine) -> None:
    asked = [
        query(scope, who=client(name)) for scope in (READ, WRITE) for name in ("mcp-tickets", "x")
    ]
    expected = [shipped.decide(one).granted for one in asked]
    engine = CedarPolicyEngine.load(SHIPPED, decision_cache_size=2)
    wrong: list[object] = []

    def work() -> None:
        for _ in range(50):
            got = [engine.decide(one).granted for one in asked]
            if got != expected:
                wrong.append(got)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert wrong == []
    assert not any(thread.is_alive() for thread in threads)
