"""The policy engine: Cedar decides, what it decided is remembered, and trouble denies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from broker.model import (
    Decision,
    PolicyQuery,
    ScopeDecision,
    ScopeExplanation,
    Verdict,
)
from broker.policy.bounded import BoundedMemory
from broker.policy.deciding import decide
from broker.policy.explain import explain
from broker.policy.facts import Facts
from broker.policy.policy_set import PolicySet, read_policy_set
from broker.policy.problems import PolicyLoadError
from broker.policy.tables import run_rows

DECISION_CACHE_SIZE = 4_096


class CedarPolicyEngine:
    """
    Decides by one policy set, which never changes.

    It holds no lock and may be asked by many threads and after a fork. Decisions are remembered by
    the facts that the policies can see, at most ``decision_cache_size`` of them; those with errors
    never are.
    """

    def __init__(
        self, policies: PolicySet, *, decision_cache_size: int = DECISION_CACHE_SIZE
    ) -> None:
        self._policies = policies
        self._decisions: BoundedMemory[Facts, Decision] = BoundedMemory(decision_cache_size)

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        decision_cache_size: int = DECISION_CACHE_SIZE,
        disabled: frozenset[str] = frozenset(),
    ) -> Self:
        """
        Read a policy folder and check it: syntax, schema, lint, and its own decision tables.

        ``disabled`` are ``@id``s to leave out once the tables have passed. Raises
        ``PolicyLoadError``.
        """
        policies = read_policy_set(directory)
        if wrong_rows := run_rows(policies).wrong_rows:
            raise PolicyLoadError(wrong_rows)
        return cls(policies.without(disabled), decision_cache_size=decision_cache_size)

    @property
    def digest(self) -> str:
        """The SHA-256 of the set in hex."""
        return self._policies.digest

    def decide(self, query: PolicyQuery) -> Decision:
        try:
            return self._decide(query)
        except BaseException as error:  # noqa: BLE001 - a panic in Cedar is no Exception either
            _let_pass(error)
            failed = tuple(
                ScopeDecision(scope.name, Verdict.ERROR, errors=(_named(error),))
                for scope in query.scopes
            )
            return Decision(failed, self.digest)

    def explain(self, query: PolicyQuery) -> Sequence[ScopeExplanation]:
        try:
            return explain(self._policies, query)
        except BaseException as error:  # noqa: BLE001 - a panic in Cedar is no Exception either
            _let_pass(error)
            return [
                ScopeExplanation(scope.name, Verdict.ERROR, errors=(_named(error),))
                for scope in query.scopes
            ]

    def _decide(self, query: PolicyQuery) -> Decision:
        chosen = self._policies.slices.slice_for(query.client)
        facts = chosen.sight.facts(query)
        remembered = self._decisions.get(facts)
        if remembered is not None:
            return remembered
        decision = decide(chosen, facts, digest=self.digest)
        is_sound = all(one.verdict is not Verdict.ERROR for one in decision.scopes)
        if is_sound and not chosen.sight.is_changing:
            self._decisions.put(facts, decision)
        return decision


def _let_pass(error: BaseException) -> None:
    """Raise again what asks the process to stop."""
    if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
        raise error


def _named(error: BaseException) -> str:
    return f"The policy engine failed: {type(error).__name__}."
