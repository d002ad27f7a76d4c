"""Turns Cedar's answers about the scopes of a query into one decision."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Final

from broker.model import Action, Decision, ScopeDecision, Verdict
from broker.policy.entities import questions
from broker.policy.evaluation import Answer, ask
from broker.policy.facts import Facts
from broker.policy.slices import Slice
from broker.policy.step_up import step_up

_PORTION: Final = 16


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
        step_up=None if permitted else step_up(chosen, facts, exchange),
    )


def is_any_permitted(chosen: Slice, facts: Facts) -> bool | None:
    """
    Whether some scope is permitted, asked a few at a time until one is.

    ``None`` where none is and policy failed for one, so that the next time may tell otherwise.
    """
    has_failed = False
    for start in range(0, len(facts.scopes), _PORTION):
        portion = facts._replace(scopes=facts.scopes[start : start + _PORTION])
        exchange, _ = _both(chosen, portion)
        verdicts = {one.verdict for one in exchange}
        if Verdict.PERMIT in verdicts:
            return True
        has_failed = has_failed or Verdict.ERROR in verdicts
    return None if has_failed else False


def answers(chosen: Slice, facts: Facts, *actions: Action) -> list[Answer]:
    """Ask, in one batch, for each action and scope; the scopes of the first action come first."""
    asked = [one for action in actions for one in questions(facts, action=action)]
    return ask(chosen.handle, asked, entities=chosen.entities(facts))


def _both(chosen: Slice, facts: Facts) -> tuple[list[Answer], list[Answer]]:
    """The answers for what is asked and, only where some policy permits it, for impersonation."""
    if not chosen.has_impersonation or facts.action is not Action.EXCHANGE:
        return answers(chosen, facts, facts.action), []
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
