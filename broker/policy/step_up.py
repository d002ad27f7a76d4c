"""The login that would lift what forbids a request, tried before it is offered."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from broker.model import StepUp, Verdict
from broker.policy.annotations import Cure
from broker.policy.entities import context_of, json_text, question, questions
from broker.policy.evaluation import Answer, ask
from broker.policy.facts import Facts, ScopeFacts
from broker.policy.slices import Slice

MAX_SCOPES_TRIED: Final = 16
MAX_CLASSES_TRIED: Final = 4


class _Trial(NamedTuple):
    """A scope that is forbidden, and what satisfies everything that forbids it."""

    scope: ScopeFacts
    cure: Cure

    @property
    def classes(self) -> tuple[str | None, ...]:
        """The context classes to try; ``None`` leaves the class as it is."""
        return self.cure.acr_values[:MAX_CLASSES_TRIED] or (None,)


def step_up(chosen: Slice, facts: Facts, answers: Sequence[Answer]) -> StepUp | None:
    """
    The login that would get the first scope permitted that any login could.

    It is tried before it is offered, at the greatest age it allows: a challenge that does not help
    would send the user round in circles and tell what the policies want for nothing. Only the first
    ``MAX_SCOPES_TRIED`` scopes and the best ``MAX_CLASSES_TRIED`` classes are tried, so a refusal
    costs at most two calls to Cedar more, however much was asked.
    """
    if not facts.is_user:
        return None
    curable = list(islice(_curable(chosen, facts, answers), MAX_SCOPES_TRIED))
    if not curable:
        return None
    narrowed = facts._replace(scopes=tuple(trial.scope for trial in curable))
    trials = _only_forbidden(chosen, narrowed, curable)
    helpful = _helpful_classes(chosen, narrowed, trials)
    for trial, classes in zip(trials, helpful, strict=True):
        if classes:
            named = " ".join(acr for acr in classes if acr is not None)
            return StepUp(named, trial.cure.max_age)
    return None


def _curable(chosen: Slice, facts: Facts, answers: Sequence[Answer]) -> Iterator[_Trial]:
    """The scopes that nothing forbids but what some login satisfies."""
    for scope, answer in zip(facts.scopes, answers, strict=True):
        if answer.verdict is Verdict.FORBIDDEN:
            demands = [chosen.policies[name].annotations.cure for name in answer.policy_ids]
            cure = _combined([demand for demand in demands if demand is not None])
            if cure is not None and None not in demands:
                yield _Trial(scope, cure)


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


def _only_forbidden(chosen: Slice, facts: Facts, curable: list[_Trial]) -> list[_Trial]:
    """
    Leave out what no permit is for, which most of what strangers ask is.

    Where a permit looks at the login itself, only trying the login can tell.
    """
    if chosen.permits is None:
        return curable
    asked = questions(facts)
    got = ask(chosen.permits, asked, entities=chosen.entities(facts))
    return [
        trial
        for trial, answer in zip(curable, got, strict=True)
        if answer.verdict is Verdict.PERMIT
    ]


def _helpful_classes(chosen: Slice, facts: Facts, trials: list[_Trial]) -> list[list[str | None]]:
    """For each trial the context classes that get its scope permitted; all are tried at once."""
    tried = [(trial, acr) for trial in trials for acr in trial.classes]
    if not tried:
        return [[] for _ in trials]
    contexts = {
        (acr, max_age): _context(chosen, facts, acr=acr, max_age=max_age)
        for acr, max_age in {(acr, trial.cure.max_age) for trial, acr in tried}
    }
    asked = [
        question(
            facts,
            trial.scope,
            action=facts.action,
            context=contexts[acr, trial.cure.max_age],
        )
        for trial, acr in tried
    ]
    # A login changes the context alone, so the entities are the ones that were there already.
    got = iter(ask(chosen.handle, asked, entities=chosen.entities(facts)))
    return [
        [acr for acr in trial.classes if next(got).verdict is Verdict.PERMIT] for trial in trials
    ]


def _context(chosen: Slice, facts: Facts, *, acr: str | None, max_age: int | None) -> str:
    return json_text(context_of(chosen.sight.with_login(facts, acr=acr, age=max_age or 0)))
