"""Turns Cedar's answers about the scopes of a query into one decision."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from broker.model import Action, Decision, ScopeDecision, StepUp, Verdict
from broker.policy.annotations import Cure
from broker.policy.entities import questions
from broker.policy.evaluation import Answer, ask
from broker.policy.facts import Facts
from broker.policy.slices import Slice


def decide(chosen: Slice, facts: Facts, *, digest: str) -> Decision:
    """What the policies say to these facts. It depends on nothing else, so it may be remembered."""
    exchange, impersonate = _both(chosen, facts)
    permitted = [index for index, one in enumerate(exchange) if one.verdict is Verdict.PERMIT]
    # A token is for all its scopes at once: one that may not be impersonated keeps the actors in.
    is_impersonation = bool(permitted and impersonate) and all(
        impersonate[index].verdict is Verdict.PERMIT for index in permitted
    )
    if is_impersonation:
        for index in permitted:
            both = {*exchange[index].policy_ids, *impersonate[index].policy_ids}
            exchange[index] = replace(exchange[index], policy_ids=tuple(sorted(both)))
    return Decision(
        scopes=tuple(
            ScopeDecision(scope.name, one.verdict, one.policy_ids, one.errors)
            for scope, one in zip(facts.scopes, exchange, strict=True)
        ),
        policy_digest=digest,
        max_lifetime=_max_lifetime(chosen, [exchange[index] for index in permitted]),
        is_impersonation=is_impersonation,
        step_up=None if permitted else _step_up(chosen, facts, exchange),
    )


def answers(chosen: Slice, facts: Facts, *actions: Action) -> list[Answer]:
    """Ask, in one batch, for each action and scope; the scopes of the first action come first."""
    asked = [one for action in actions for one in questions(facts, action=action)]
    return ask(chosen.handle, asked, entities=chosen.entities(facts))


def _both(chosen: Slice, facts: Facts) -> tuple[list[Answer], list[Answer]]:
    """The answers for exchange and, only where some policy permits it, for impersonation."""
    if not chosen.has_impersonation:
        return answers(chosen, facts, Action.EXCHANGE), []
    got = answers(chosen, facts, Action.EXCHANGE, Action.IMPERSONATE)
    exchange, impersonate = got[: len(facts.scopes)], got[len(facts.scopes) :]
    for index, one in enumerate(impersonate):
        if one.verdict is Verdict.ERROR:
            errors = exchange[index].errors + one.errors
            exchange[index] = replace(exchange[index], verdict=Verdict.ERROR, errors=errors)
    return exchange, impersonate


def _max_lifetime(chosen: Slice, permits: Iterable[Answer]) -> timedelta | None:
    limits = [
        limit
        for answer in permits
        for policy_id in answer.policy_ids
        if (limit := chosen.policies[policy_id].annotations.max_ttl) is not None
    ]
    return timedelta(seconds=min(limits)) if limits else None


def _step_up(chosen: Slice, facts: Facts, answers: list[Answer]) -> StepUp | None:
    """
    The login that would get the first scope permitted that any login could.

    It is tried before it is offered, at the greatest age it allows: a challenge that does not help
    would send the user round in circles and tell what the policies want for nothing.
    """
    if not facts.is_user:
        return None
    for scope, answer in zip(facts.scopes, answers, strict=True):
        if answer.verdict is Verdict.FORBIDDEN:
            offer = _cure_that_works(chosen, facts._replace(scopes=(scope,)), answer)
            if offer is not None:
                return offer
    return None


def _cure_that_works(chosen: Slice, facts: Facts, answer: Answer) -> StepUp | None:
    cures = [chosen.policies[policy_id].annotations.cure for policy_id in answer.policy_ids]
    demand = _combined([cure for cure in cures if cure is not None])
    if demand is None or None in cures:
        return None
    works = [
        acr for acr in demand.acr_values or (None,) if _is_permitted(chosen, facts, acr, demand)
    ]
    if not works:
        return None
    return StepUp(" ".join(acr for acr in works if acr is not None), demand.max_age)


def _combined(cures: list[Cure]) -> Cure | None:
    """What satisfies all these demands at once, or ``None`` where nothing does."""
    if not cures:
        return None
    named = [cure.acr_values for cure in cures if cure.acr_values]
    common = tuple(acr for acr in named[0] if all(acr in other for other in named)) if named else ()
    if named and not common:
        return None
    ages = [cure.max_age for cure in cures if cure.max_age is not None]
    return Cure(common, min(ages) if ages else None)


def _is_permitted(chosen: Slice, facts: Facts, acr: str | None, demand: Cure) -> bool:
    cured = chosen.sight.with_login(facts, acr=acr, age=demand.max_age or 0)
    (answer,) = answers(chosen, cured, Action.EXCHANGE)
    return answer.verdict is Verdict.PERMIT
