"""Asks Cedar and reads its answer so that nothing but a clean permit permits."""

from collections.abc import Sequence
from dataclasses import dataclass

import cedarpy

from broker.model import Verdict
from broker.policy.entities import Question

_MAX_ERRORS = 4
_MAX_ERROR_LENGTH = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """What Cedar says to one question: the verdict, and the policies that decided it, sorted."""

    verdict: Verdict
    policy_ids: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


def ask(
    policies: cedarpy.PolicySet,
    questions: Sequence[Question],
    *,
    entities: str | cedarpy.Entities,
    schema: cedarpy.Schema | None = None,
) -> list[Answer]:
    """One answer for each question, in order. With a schema, the questions are checked against it."""
    results = cedarpy.is_authorized_batch(list(questions), policies, entities, schema)
    if len(results) != len(questions):
        raise RuntimeError("Cedar answered another number of questions")
    return [_read(result) for result in results]


def _read(result: cedarpy.AuthzResult) -> Answer:
    """
    Read one result.

    Cedar skips a policy that fails, a forbid as well as a permit, and then answers from the others.
    Any failure therefore makes the answer an error, whatever else it says.
    """
    policy_ids = tuple(sorted(result.diagnostics.reasons))
    errors = tuple(str(error)[:_MAX_ERROR_LENGTH] for error in result.diagnostics.errors)
    if errors:
        return Answer(Verdict.ERROR, policy_ids, errors[:_MAX_ERRORS])
    if result.decision is cedarpy.Decision.Allow and policy_ids:
        return Answer(Verdict.PERMIT, policy_ids)
    if result.decision is cedarpy.Decision.Deny:
        return Answer(Verdict.FORBIDDEN if policy_ids else Verdict.NO_PERMIT, policy_ids)
    return Answer(Verdict.ERROR, policy_ids, ("Cedar gave no decision.",))
