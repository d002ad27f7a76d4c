from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cedarpy import pst
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from broker.model import Action, Authentication, PolicyQuery, Resource, Scope, Subject, Verdict
from broker.policy.cedar import CedarPolicyEngine
from broker.policy.cedar_text import cedar_text
from broker.policy.policy_set import PolicySet, read_policy_set
from tests.policy.queries import PERMIT_ALL, SHIPPED, TICKETS, client, query
from tests.policy.strategies import ATOMS, actors, policy_texts, queries, with_history

some_queries = st.lists(queries, min_size=1, max_size=4)
thorough = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def policies_of(text: str) -> PolicySet:
    with TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "broker.cedarschema").write_text((SHIPPED / "broker.cedarschema").read_text())
        (directory / "random.cedar").write_text(text)
        return read_policy_set(directory)


cached_policies_of = cache(policies_of)


def engine_of(policies: PolicySet, *, decision_cache_size: int) -> CedarPolicyEngine:
    return CedarPolicyEngine(policies, decision_cache_size=decision_cache_size)


@given(text=policy_texts, asked=some_queries)
@thorough
def test_a_remembered_decision_is_the_one_that_would_be_made(
    text: str, asked: list[PolicyQuery]
) -> None:
    policies = policies_of(text)
    remembering = engine_of(policies, decision_cache_size=64)
    forgetful = engine_of(policies, decision_cache_size=0)
    for one in [*asked, *asked]:
        assert remembering.decide(one) == forgetful.decide(one)


@given(text=policy_texts, asked=some_queries)
@thorough
def test_something_is_permitted_exactly_when_a_decision_grants_something(
    text: str, asked: list[PolicyQuery]
) -> None:
    policies = policies_of(text)
    engine = engine_of(policies, decision_cache_size=64)
    forgetful = engine_of(policies, decision_cache_size=0)
    for one in [*asked, *asked]:
        assert engine.permits_any(one) is bool(forgetful.decide(one).granted)


@given(text=policy_texts, asked=some_queries)
@thorough
def test_a_slice_that_sees_only_what_it_mentions_decides_like_the_whole_set_that_sees_all(
    text: str, asked: list[PolicyQuery]
) -> None:
    policies = policies_of(text)
    for one in asked:
        decision = engine_of(policies, decision_cache_size=64).decide(one)
        in_full = policies.answers_in_full(one, action=Action.EXCHANGE)
        impersonate = policies.answers_in_full(one, action=Action.IMPERSONATE)
        for got, full, other in zip(decision.scopes, in_full, impersonate, strict=True):
            if policies.whole.has_impersonation and other.verdict is Verdict.ERROR:
                assert got.verdict in {Verdict.ERROR, full.verdict}
            else:
                assert got.verdict is full.verdict
            if not decision.is_impersonation and got.verdict is not Verdict.ERROR:
                assert got.policy_ids == full.policy_ids


@pytest.mark.parametrize("condition", ATOMS)
@given(asked=some_queries)
@settings(max_examples=10, deadline=None)
def test_whatever_a_policy_mentions_it_is_told(condition: str, asked: list[PolicyQuery]) -> None:
    policies = cached_policies_of(PERMIT_ALL.replace(";", f" when {{ {condition} }};"))
    engine = engine_of(policies, decision_cache_size=64)
    for one in asked:
        in_full = policies.answers_in_full(one, action=Action.EXCHANGE)
        assert [got.verdict for got in engine.decide(one).scopes] == [
            got.verdict for got in in_full
        ]


@given(text=policy_texts, asked=queries)
@thorough
def test_explaining_and_deciding_agree(text: str, asked: PolicyQuery) -> None:
    engine = engine_of(policies_of(text), decision_cache_size=0)
    decision = engine.decide(asked)
    explained = engine.explain(asked)
    assert [one.scope for one in explained] == [one.scope for one in decision.scopes]
    for told, got in zip(explained, decision.scopes, strict=True):
        assert told.verdict is got.verdict or got.verdict is Verdict.ERROR


@given(text=policy_texts, asked=queries)
@thorough
def test_an_offered_login_is_one_that_helps(text: str, asked: PolicyQuery) -> None:
    engine = engine_of(policies_of(text), decision_cache_size=0)
    offer = engine.decide(asked).step_up
    if offer is None:
        return
    offered: list[str | None] = [*offer.acr_values.split()]
    for acr in offered or [asked.delegation.authentication.acr]:
        after = Authentication(
            auth_time=asked.now - (offer.max_age or 0),
            acr=acr,
            amr=asked.delegation.authentication.amr,
        )
        assert engine.decide(query_after(asked, after)).granted


def query_after(asked: PolicyQuery, login: Authentication) -> PolicyQuery:
    return replace(asked, delegation=replace(asked.delegation, authentication=login))


@pytest.mark.requirement("sec:ACT-09")
@given(text=policy_texts, asked=queries, others=actors)
@thorough
def test_who_acted_earlier_never_changes_a_decision(
    text: str, asked: PolicyQuery, others: list[str]
) -> None:
    engine = engine_of(policies_of(text), decision_cache_size=0)
    there = asked.delegation.chain_depth - 1
    subs = (others * 4 + ["somebody"] * 4)[:there]
    assert engine.decide(with_history(asked, *subs)) == engine.decide(asked)


@pytest.mark.requirement("sec:ACT-09")
@given(asked=queries, others=st.lists(st.sampled_from(("agent-desk", "root")), max_size=8))
@thorough
def test_more_actors_never_get_more(
    shipped: CedarPolicyEngine, asked: PolicyQuery, others: list[str]
) -> None:
    alone = shipped.decide(with_history(asked)).granted
    granted = shipped.decide(with_history(asked, *others)).granted
    assert granted == alone if len(others) < 5 else set(granted) <= set(alone)


@pytest.mark.requirement("POL-04")
@given(identity=st.text(min_size=1, max_size=40), resource=st.text(max_size=40))
@example(identity='x" || true || "', resource='https://api.crm.example/v2") || ("')
@example(identity="\\", resource='Scope::"https://api.crm.example/v2#crm.contacts.read"')
@example(identity='Client::"mcp-tickets"', resource="https://api.crm.example/v2\n")
@example(identity="mcp-tickets\x00", resource="https://api.crm.example/v2\x00")
@example(identity="mcp-tickets\n// ", resource="*")
@example(identity="\ud800", resource="\udfff")
@example(identity="__entity", resource="__extn")
@thorough
def test_no_id_means_anything_but_itself(
    shipped: CedarPolicyEngine, identity: str, resource: str
) -> None:
    assume(identity not in {"mcp-tickets", "crm.contacts.read", TICKETS})
    for asked in (
        query(who=client(identity)),
        query(to=Resource(resource, {}, owner=identity)),
        query(Scope(identity, frozenset({resource}), frozenset({identity}))),
        query(subject_audience=identity, mcp_client=identity),
    ):
        assert shipped.decide(asked).granted == ()
    groups = frozenset({identity})
    known = query(
        who=client(groups=groups), subject=Subject(identity, resource), mcp_server=identity
    )
    assert shipped.decide(known).granted in {(), ("crm.contacts.read",)}


@pytest.mark.requirement("POL-04")
@given(identity=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
@example(identity='a"b\\c::d\ne\x00f')
@thorough
def test_a_policy_for_an_odd_id_is_for_that_id_alone(identity: str) -> None:
    literal = cedar_text(pst.EntityLit(pst.EntityUid(pst.EntityType("Client"), identity)))
    text = f'@id("odd") permit (principal == {literal}, action == Action::"exchange", resource);'
    engine = engine_of(policies_of(text), decision_cache_size=0)
    assert engine.decide(query(who=client(identity))).granted
    assert not engine.decide(query(who=client(identity + "x"))).granted
    assert not engine.decide(query(who=client(literal))).granted
