import pytest

from broker.model import PolicyQuery, Scope, StepUp, Verdict
from broker.policy.facts import MAX_SCOPES
from broker.policy.step_up import MAX_CLASSES_TRIED, MAX_SCOPES_TRIED
from tests.policy.queries import PERMIT_ALL, LoadSet, client, login, query

MOST_TRIED = MAX_SCOPES_TRIED * MAX_CLASSES_TRIED
FOR_ANOTHER = PERMIT_ALL.replace("principal", 'principal == Client::"another"')
UNLESS_LATE = 'when { context.relation == "issued_to" };'
UNLESS_WEAK = 'when { context.auth has acr && context.auth.acr == "a" };'


def cured(*, by: str, scopes: str = "s*") -> str:
    """A forbid that names eight context classes, of which at most one lifts it."""
    return f"""
    @id("cured") @cure("step_up") @acr_values("a b c d e f g h") @max_age("900")
    forbid (principal, action, resource) when {{ resource.name like "{scopes}" }}
    unless {{ context.auth has acr && context.auth.acr == "{by}" }};
    """


def scopes(count: int, start: int = 0) -> list[Scope]:
    return [Scope(f"s{one}", frozenset({"tickets:read"})) for one in range(start, start + count)]


def weakly(asked: list[Scope]) -> PolicyQuery:
    return query(*asked, authentication=login("pwd"))


@pytest.mark.requirement("TEX-18")
def test_looking_for_a_login_takes_two_calls_however_much_is_asked(
    load_set: LoadSet, sizes: list[int]
) -> None:
    engine = load_set(PERMIT_ALL + cured(by="no class"))
    sizes.clear()
    decision = engine.decide(weakly(scopes(MAX_SCOPES)))
    assert {one.verdict for one in decision.scopes} == {Verdict.FORBIDDEN}
    assert decision.step_up is None
    assert sizes == [MAX_SCOPES, MAX_SCOPES_TRIED, MOST_TRIED]


@pytest.mark.parametrize("permit", [FOR_ANOTHER, PERMIT_ALL.replace(";", f" {UNLESS_LATE}")])
def test_no_login_is_tried_for_what_no_permit_is_for(
    load_set: LoadSet, sizes: list[int], permit: str
) -> None:
    engine = load_set(permit + cured(by="a"))
    sizes.clear()
    assert engine.decide(weakly(scopes(100))).step_up is None
    assert sizes == [100, MAX_SCOPES_TRIED]


def test_no_login_is_tried_where_no_forbid_has_a_cure(load_set: LoadSet, sizes: list[int]) -> None:
    never = '@id("never") forbid (principal, action, resource);'
    for engine in (load_set(PERMIT_ALL + never), load_set(PERMIT_ALL + never + cured(by="a"))):
        sizes.clear()
        assert engine.decide(weakly(scopes(100))).step_up is None
        assert sizes == [100]


def test_no_login_is_tried_while_something_is_granted(load_set: LoadSet, sizes: list[int]) -> None:
    engine = load_set(PERMIT_ALL + cured(by="a", scopes="s1*"))
    sizes.clear()
    decision = engine.decide(weakly(scopes(20)))
    assert decision.granted
    assert decision.step_up is None
    assert sizes == [20]


@pytest.mark.requirement("TEX-18")
def test_a_permit_that_wants_the_login_as_well_is_tried_with_it(
    load_set: LoadSet, sizes: list[int]
) -> None:
    engine = load_set(PERMIT_ALL.replace(";", f" {UNLESS_WEAK}") + cured(by="a"))
    sizes.clear()
    assert engine.decide(weakly(scopes(30))).step_up == StepUp("a", 900)
    assert sizes == [30, MOST_TRIED]


@pytest.mark.parametrize(("by", "offer"), [("d", StepUp("d", 900)), ("e", None)])
def test_only_the_best_classes_are_tried(load_set: LoadSet, by: str, offer: StepUp | None) -> None:
    engine = load_set(PERMIT_ALL + cured(by=by))
    assert engine.decide(weakly(scopes(1))).step_up == offer


@pytest.mark.parametrize(("before", "offer"), [(15, StepUp("a", 900)), (16, None)])
def test_only_the_first_curable_scopes_are_tried(
    load_set: LoadSet, before: int, offer: StepUp | None
) -> None:
    hopeless = cured(by="no class", scopes="s1*").replace('"cured"', '"hopeless"')
    engine = load_set(PERMIT_ALL + hopeless + cured(by="a", scopes="s2*"))
    asked = [*scopes(before, 100), *scopes(1, 200)]
    assert engine.decide(weakly(asked)).step_up == offer


def test_scopes_that_no_login_cures_do_not_use_up_the_tries(load_set: LoadSet) -> None:
    never = '@id("never") forbid (principal, action, resource) when { resource.name like "s1*" };'
    engine = load_set(PERMIT_ALL + never + cured(by="a", scopes="s2*"))
    asked = [*scopes(50, 100), *scopes(1, 200)]
    assert engine.decide(weakly(asked)).step_up == StepUp("a", 900)


def test_the_login_offered_is_for_the_first_scope_that_one_helps(load_set: LoadSet) -> None:
    other = cured(by="b", scopes="s2*").replace('"cured"', '"other"').replace("900", "60")
    engine = load_set(PERMIT_ALL + cured(by="a", scopes="s1*") + other)
    first, second = scopes(1, 100), scopes(1, 200)
    assert engine.decide(weakly([*first, *second])).step_up == StepUp("a", 900)
    assert engine.decide(weakly([*second, *first])).step_up == StepUp("b", 60)


def test_a_refusal_that_is_remembered_asks_nothing(load_set: LoadSet, sizes: list[int]) -> None:
    engine = load_set(PERMIT_ALL + cured(by="a"))
    first = engine.decide(weakly(scopes(20)))
    sizes.clear()
    assert engine.decide(weakly(scopes(20))) is first
    assert sizes == []


def test_decisions_about_very_many_scopes_are_not_kept(load_set: LoadSet) -> None:
    engine = load_set(PERMIT_ALL)
    for count in (33, 100, MAX_SCOPES):
        assert len(engine.decide(query(*scopes(count))).granted) == count
    assert len(engine._decisions) == 0


def test_what_all_clients_are_told_about_fits_one_bounded_memory(load_set: LoadSet) -> None:
    named = [f"client-{number}" for number in range(12)]
    engine = load_set(
        "".join(
            PERMIT_ALL.replace('"all"', f'"p-{name}"').replace(
                "principal", f'principal == Client::"{name}"'
            )
            for name in named
        )
    )
    for name in named:
        assert engine.decide(query(who=client(name))).granted
        assert engine.decide(query(*scopes(100), who=client(name))).granted
    slices = [engine._policies.slices.slice_for(client(name)) for name in named]
    assert len({id(one.known_entities) for one in slices}) == 1
    assert len(slices[0].known_entities) == len(named)
