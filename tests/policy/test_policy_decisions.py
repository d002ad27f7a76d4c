from datetime import timedelta

import pytest

from broker.model import Relation, Resource, Scope, StepUp, Subject, Verdict
from broker.policy.cedar import CedarPolicyEngine
from tests.policy.queries import (
    CRM,
    PERMIT_ALL,
    READ,
    TICKETS,
    WRITE,
    LoadSet,
    chain,
    client,
    login,
    query,
)

NEEDS_PHR = """
@id("phr") @cure("step_up") @acr_values("phr phrh") @max_age("900")
forbid (principal, action, resource)
unless {
  context.auth has acr && ["phr", "phrh"].contains(context.auth.acr) &&
  context.auth has age && context.auth.age <= 900
};
"""
IMPERSONATES = '@id("imp") permit (principal, action == Action::"impersonate", resource);\n'


@pytest.mark.requirement("POL-01")
def test_without_a_matching_permit_nothing_is_granted(shipped: CedarPolicyEngine) -> None:
    for asked in (
        query(who=client("newcomer")),
        query(to=Resource("https://new.example", {})),
        query(Scope("crm.contacts.delete", frozenset({"tickets:read"}))),
    ):
        decision = shipped.decide(asked)
        assert [one.verdict for one in decision.scopes] == [Verdict.NO_PERMIT]
        assert decision.granted == decision.policy_ids == ()


def test_a_permitted_scope_names_the_permit_and_its_limit(shipped: CedarPolicyEngine) -> None:
    decision = shipped.decide(query(READ))
    assert decision.granted == ("crm.contacts.read",)
    assert decision.policy_ids == ("tickets-reads-contacts",)
    assert decision.max_lifetime == timedelta(seconds=120)
    assert decision.policy_digest == shipped.digest
    assert not decision.is_impersonation


def test_denied_scopes_are_dropped_and_the_others_stay_in_order(shipped: CedarPolicyEngine) -> None:
    delete = Scope("crm.contacts.delete", frozenset())
    decision = shipped.decide(query(WRITE, delete, READ))
    assert decision.granted == ("crm.contacts.write", "crm.contacts.read")
    assert [one.verdict for one in decision.scopes] == [
        Verdict.PERMIT,
        Verdict.NO_PERMIT,
        Verdict.PERMIT,
    ]


def test_a_forbid_beats_every_permit_and_is_named(shipped: CedarPolicyEngine) -> None:
    asked = query(
        Scope("tickets:read", frozenset({"tickets:read"})),
        to=Resource(TICKETS, {}, owner="mcp-tickets"),
        relation=Relation.AUDIENCE,
    )
    (decided,) = shipped.decide(asked).scopes
    assert decided.verdict is Verdict.FORBIDDEN
    assert decided.policy_ids == ("guard-own-resource",)


def test_the_same_client_may_narrow_what_was_issued_to_it(shipped: CedarPolicyEngine) -> None:
    asked = query(
        Scope("tickets:read", frozenset({"tickets:read"})),
        who=client("agent-desk"),
        to=Resource(TICKETS, {}, owner="mcp-tickets"),
        relation=Relation.ISSUED_TO,
    )
    assert shipped.decide(asked).policy_ids == ("narrow-own-token",)


def test_the_lifetime_is_the_least_of_all_permits_of_the_granted_scopes(load_set: LoadSet) -> None:
    engine = load_set(
        """
        @id("a") @max_ttl("300") permit (principal, action == Action::"exchange", resource);
        @id("b") @max_ttl("90") permit (principal, action == Action::"exchange", resource)
        when { resource.name == "crm.contacts.read" };
        @id("c") @max_ttl("10") permit (principal, action == Action::"exchange", resource)
        when { resource.name == "crm.contacts.write" };
        @id("no") forbid (principal, action, resource) when { resource.name == "crm.contacts.write" };
        """
    )
    assert engine.decide(query(READ)).max_lifetime == timedelta(seconds=90)
    assert engine.decide(query(READ, WRITE)).max_lifetime == timedelta(seconds=90)
    assert engine.decide(query(WRITE)).max_lifetime is None
    assert engine.decide(query(Scope("x", frozenset()))).max_lifetime == timedelta(seconds=300)


@pytest.mark.requirement("TEX-18")
@pytest.mark.parametrize(
    "authentication",
    [login(None, age=None), login("pwd"), login("phr", age=3_601), login("phr", age=None)],
)
def test_a_login_that_is_too_weak_or_too_old_is_answered_with_the_one_that_helps(
    shipped: CedarPolicyEngine, authentication: object
) -> None:
    decision = shipped.decide(query(WRITE, authentication=authentication))
    assert decision.granted == ()
    assert decision.policy_ids == ("contacts-written-after-strong-login",)
    assert decision.step_up == StepUp("phr", 3_600)


@pytest.mark.requirement("TEX-18")
def test_a_login_that_would_not_help_is_not_asked_for(shipped: CedarPolicyEngine) -> None:
    weak = login("pwd")
    without_scope = query(WRITE, authentication=weak, scopes=frozenset({"tickets:read"}))
    too_deep = query(WRITE, authentication=weak, inherited_act=chain("a", "b", "c", "d", "e"))
    assert shipped.decide(without_scope).step_up is None
    assert shipped.decide(too_deep).step_up is None


def test_a_program_is_not_asked_to_log_in(load_set: LoadSet) -> None:
    engine = load_set(PERMIT_ALL + NEEDS_PHR)
    program = Subject("client:job", "https://broker.example", kind="client")
    asked = query(authentication=login(None, age=None))
    assert engine.decide(asked).step_up == StepUp("phr phrh", 900)
    assert (
        engine.decide(query(subject=program, authentication=login(None, age=None))).step_up is None
    )


def test_no_login_is_asked_for_while_something_is_granted(shipped: CedarPolicyEngine) -> None:
    decision = shipped.decide(query(READ, WRITE, authentication=login("pwd")))
    assert decision.granted == ("crm.contacts.read",)
    assert decision.step_up is None


def test_only_the_classes_that_help_are_offered(load_set: LoadSet) -> None:
    engine = load_set(PERMIT_ALL + NEEDS_PHR.replace('["phr", "phrh"]', '["phrh"]'))
    assert engine.decide(query(authentication=login("pwd"))).step_up == StepUp("phrh", 900)


def test_two_forbids_are_cured_by_what_satisfies_both_or_not_at_all(load_set: LoadSet) -> None:
    also = """
    @id("mfa") @cure("step_up") @acr_values("mfa phr") @max_age("60")
    forbid (principal, action, resource)
    unless {
      context.auth has acr && ["mfa", "phr"].contains(context.auth.acr) &&
      context.auth has age && context.auth.age <= 60
    };
    """
    asked = query(authentication=login("pwd"))
    assert load_set(PERMIT_ALL + NEEDS_PHR + also).decide(asked).step_up == StepUp("phr", 60)
    apart = also.replace("mfa phr", "mfa")
    assert load_set(PERMIT_ALL + NEEDS_PHR + apart).decide(asked).step_up is None
    incurable = (
        '@id("never") forbid (principal, action, resource) when { context.chain_depth > 0 };'
    )
    assert load_set(PERMIT_ALL + NEEDS_PHR + incurable).decide(asked).step_up is None


def test_a_forbid_may_ask_for_nothing_but_a_fresh_login(load_set: LoadSet) -> None:
    engine = load_set(
        PERMIT_ALL
        + """
        @id("fresh") @cure("step_up") @max_age("60") forbid (principal, action, resource)
        unless { context.auth has age && context.auth.age <= 60 };
        """
    )
    assert engine.decide(query(authentication=login(age=61))).step_up == StepUp("", 60)
    assert engine.decide(query(authentication=login(age=60))).granted


@pytest.mark.requirement("TEX-19")
def test_impersonation_needs_a_permit_of_its_own(load_set: LoadSet) -> None:
    assert not load_set(PERMIT_ALL).decide(query()).is_impersonation
    decision = load_set(PERMIT_ALL + IMPERSONATES).decide(query())
    assert decision.is_impersonation
    assert decision.policy_ids == ("all", "imp")


def test_a_permit_to_impersonate_alone_grants_nothing(load_set: LoadSet) -> None:
    decision = load_set(IMPERSONATES).decide(query())
    assert decision.granted == ()
    assert not decision.is_impersonation


def test_one_scope_that_may_not_be_impersonated_keeps_the_actors_in(load_set: LoadSet) -> None:
    only_read = IMPERSONATES.replace(";", ' when { resource.name == "crm.contacts.read" };')
    engine = load_set(PERMIT_ALL + only_read)
    assert engine.decide(query(READ)).is_impersonation
    both = engine.decide(query(READ, WRITE))
    assert both.granted == ("crm.contacts.read", "crm.contacts.write")
    assert not both.is_impersonation
    assert both.policy_ids == ("all",)


def test_an_impersonating_token_lives_no_longer_than_that_permit_allows(load_set: LoadSet) -> None:
    engine = load_set(PERMIT_ALL + '@max_ttl("30") ' + IMPERSONATES)
    assert engine.decide(query()).max_lifetime == timedelta(seconds=30)


def test_the_shipped_guardrail_keeps_a_chain_from_being_hidden(write_guarded: LoadSet) -> None:
    engine = write_guarded(PERMIT_ALL + IMPERSONATES)
    assert engine.decide(query(inherited_act=None)).is_impersonation
    decision = engine.decide(query())
    assert decision.granted == ("crm.contacts.read",)
    assert not decision.is_impersonation


def test_a_token_without_scopes_of_its_own_carries_none(load_set: LoadSet) -> None:
    engine = load_set(
        PERMIT_ALL.replace(";", ' when { context.subject_scopes.contains("tickets:read") };')
    )
    assert engine.decide(query()).granted
    assert not engine.decide(query(scopes=None)).granted
    assert not engine.decide(query(scopes=frozenset())).granted


def test_a_client_with_a_url_for_an_id_is_matched_as_it_is(load_set: LoadSet) -> None:
    url = "https://agent.example/client.json"
    engine = load_set(PERMIT_ALL.replace("principal", f'principal == Client::"{url}"'))
    assert engine.decide(query(who=client(url))).granted
    assert not engine.decide(query(who=client(url + "/"))).granted
    assert not engine.decide(query(who=client(url.upper()))).granted


def test_every_scope_stands_in_its_resource_and_its_groups(load_set: LoadSet) -> None:
    engine = load_set(
        f"""
        @id("a") permit (principal, action == Action::"exchange", resource in Resource::"{CRM}")
        when {{ resource in ScopeGroup::"reading" && resource.derives_from.contains("tickets:read") }};
        """
    )
    grouped = Scope("r", frozenset({"tickets:read"}), frozenset({"reading"}))
    assert engine.decide(query(grouped)).granted
    assert not engine.decide(query(READ)).granted
    assert not engine.decide(query(grouped, to=Resource("https://api.crm.example", {}))).granted
