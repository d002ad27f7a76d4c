from dataclasses import replace

import msgspec
import pytest

from broker.bounded import BoundedMemory, MemoryStatus
from broker.model import Resource, Scope, Subject
from broker.policy.cedar import CedarPolicyEngine
from tests.policy.queries import CRM, NOW, PERMIT_ALL, READ, WRITE, LoadSet, client, login, query


def remembered(engine: CedarPolicyEngine) -> int:
    return len(engine._decisions)


def test_users_share_a_decision_when_no_policy_looks_at_the_person(load_set: LoadSet) -> None:
    issuer = "https://idp.example"
    engine = load_set(PERMIT_ALL.replace(";", ' when { context.subject_kind == "user" };'))
    first = engine.decide(query(subject=Subject("alice", issuer)))
    assert engine.decide(query(subject=Subject("bob", "https://other.example"))) is first
    assert engine.decide(query(subject=Subject("bob", issuer, kind="client"))) is not first


def test_a_policy_that_looks_at_the_person_keeps_people_apart(load_set: LoadSet) -> None:
    engine = load_set(PERMIT_ALL.replace(";", ' when { context.subject == Subject::"alice" };'))
    assert engine.decide(query(subject=Subject("alice", "i"))).granted
    assert not engine.decide(query(subject=Subject("bob", "i"))).granted


def test_a_login_of_another_age_shares_a_decision_until_a_policy_can_tell(
    load_set: LoadSet,
) -> None:
    engine = load_set(
        PERMIT_ALL.replace(";", " when { context.auth has age && context.auth.age <= 900 };")
    )
    fresh = engine.decide(query(authentication=login(age=1)))
    assert fresh.granted
    assert engine.decide(query(authentication=login(age=899))) is fresh
    assert engine.decide(query(authentication=login(age=900))).granted
    assert not engine.decide(query(authentication=login(age=901))).granted
    assert not engine.decide(query(authentication=login(age=None))).granted
    assert remembered(engine) == 4


def test_time_passing_turns_a_remembered_permit_into_a_denial(load_set: LoadSet) -> None:
    engine = load_set(
        PERMIT_ALL.replace(";", " when { context.auth has age && context.auth.age < 900 };")
    )
    asked = query(authentication=login(age=890))
    assert engine.decide(asked).granted
    assert engine.decide(msgspec.structs.replace(asked, now=NOW + 9)).granted
    assert not engine.decide(msgspec.structs.replace(asked, now=NOW + 10)).granted


@pytest.mark.parametrize(
    "condition",
    [
        "context.auth has age && context.auth.age + 1 < 900",
        "context.auth has age && [1, 2].contains(context.auth.age)",
        "context.auth == context.auth",
        "context == context",
        "(if context.chain_depth > 1 then context.auth else context.auth) has age",
        "context.auth has age && context.auth.age < context.chain_depth",
    ],
)
def test_a_policy_that_needs_the_exact_age_is_asked_each_time(
    load_set: LoadSet, condition: str
) -> None:
    engine = load_set(PERMIT_ALL.replace(";", f" when {{ {condition} }};"))
    engine.decide(query())
    assert remembered(engine) == 0


def test_a_change_in_the_registry_is_seen_at_once(load_set: LoadSet) -> None:
    engine = load_set(
        f"""
        @id("group") permit (principal in ClientGroup::"crm", action == Action::"exchange", resource)
        when {{ resource has owner && resource.owner == "{client().client_id}" }};
        @id("derived") permit (principal, action == Action::"exchange", resource)
        when {{ context.subject_scopes.containsAny(resource.derives_from) &&
                resource in ScopeGroup::"shared" }};
        """
    )
    mine = Resource(CRM, {}, owner="mcp-tickets")
    member = client(groups=frozenset({"crm"}))
    shared = replace(READ, groups=frozenset({"shared"}))
    for _ in range(2):
        assert not engine.decide(query(to=mine)).granted
        assert engine.decide(query(to=mine, who=member)).granted
        assert not engine.decide(query(to=replace(mine, owner="other"), who=member)).granted
        assert engine.decide(query(shared)).granted
        assert not engine.decide(query(Scope(READ.name, frozenset({"x"}), shared.groups))).granted
        assert not engine.decide(query(READ)).granted


def test_the_order_of_scopes_is_the_order_asked_also_from_memory(
    shipped: CedarPolicyEngine,
) -> None:
    for scopes in ((READ, WRITE), (WRITE, READ)):
        for _ in range(2):
            assert shipped.decide(query(*scopes)).granted == tuple(one.name for one in scopes)


def test_a_scope_asked_twice_is_decided_twice_alike(shipped: CedarPolicyEngine) -> None:
    assert shipped.decide(query(READ, READ)).granted == (READ.name, READ.name)


@pytest.mark.parametrize("size", [0, 1, 2, 7, 64])
def test_memory_never_exceeds_its_size(size: int) -> None:
    memory: BoundedMemory[int, str] = BoundedMemory(size)
    for number in range(1_000):
        memory.put(number, str(number))
        assert len(memory) <= size
        assert memory.get(number) in {str(number), None}
        assert memory.get(number // 2) in {str(number // 2), None}


def test_memory_counts_what_it_knew_and_what_it_did_not() -> None:
    memory: BoundedMemory[int, bool] = BoundedMemory(2)
    memory.put(1, False)
    asked = [memory.get(1), memory.get(2), memory.get(1)]

    assert asked == [False, None, False]
    assert memory.status() == MemoryStatus(entries=1, capacity=2, hits=2, misses=1)


def test_an_engine_tells_how_its_memories_are_doing(load_set: LoadSet) -> None:
    engine = load_set(PERMIT_ALL)
    for _ in range(3):
        engine.decide(query())
    engine.permits_any(query(WRITE))

    told = engine.memories()

    assert told["policies"] == MemoryStatus(entries=1, capacity=20_000, hits=4, misses=0)
    assert (told["slices"].hits, told["slices"].misses) == (3, 1)
    assert (told["decisions"].hits, told["decisions"].misses) == (2, 2)
    assert (told["permits"].hits, told["permits"].misses) == (0, 1)
    assert told["entities"].misses == 2
    assert all(0 < one.entries <= one.capacity for one in told.values())


def test_memory_keeps_what_is_asked_for() -> None:
    memory: BoundedMemory[int, str] = BoundedMemory(8)
    memory.put(0, "kept")
    for number in range(1, 100):
        memory.put(number, "new")
        assert memory.get(0) == "kept"


def test_an_engine_remembers_a_bounded_number_of_decisions(load_set: LoadSet) -> None:
    engine = load_set(PERMIT_ALL, decision_cache_size=8)
    for number in range(50):
        assert engine.decide(query(who=client(f"client-{number}"))).granted
    assert remembered(engine) <= 8


def test_an_engine_without_memory_decides_each_time(load_set: LoadSet) -> None:
    engine = load_set(PERMIT_ALL, decision_cache_size=0)
    assert engine.decide(query()) is not engine.decide(query())
    assert remembered(engine) == 0
