"""The policy engine: Cedar decides, what it decided is remembered, and trouble denies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from broker.bounded import BoundedMemory, MemoryStatus
from broker.model import (
    Decision,
    PolicyQuery,
    PolicyReference,
    ScopeDecision,
    ScopeExplanation,
    Verdict,
)
from broker.policy.deciding import decide, is_any_permitted
from broker.policy.explain import explain
from broker.policy.facts import Facts
from broker.policy.files import PolicyFiles
from broker.policy.policies import MAX_POLICIES
from broker.policy.policy_set import PolicySet, policy_set_of, read_policy_set
from broker.policy.problems import PolicyLoadError
from broker.policy.tables import run_rows

DECISION_CACHE_SIZE = 4_096

# What is remembered grows with the scopes asked for, and callers choose how many those are.
_MAX_REMEMBERED_SCOPES = 32


class CedarPolicyEngine:
    """
    Decides by one policy set, which never changes.

    It holds no lock and may be asked by many threads and after a fork. Decisions are remembered by
    the facts that the policies can see, at most ``decision_cache_size`` of them; those with errors
    or about very many scopes never are.
    """

    def __init__(
        self, policies: PolicySet, *, decision_cache_size: int = DECISION_CACHE_SIZE
    ) -> None:
        self._policies = policies
        self._decisions: BoundedMemory[Facts, Decision] = BoundedMemory(decision_cache_size)
        self._permits: BoundedMemory[Facts, bool] = BoundedMemory(decision_cache_size // 8)

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
        return cls._checked(policies, size=decision_cache_size, disabled=disabled)

    @classmethod
    def of(cls, files: PolicyFiles, *, disabled: frozenset[str] = frozenset()) -> Self:
        """The same for a folder that has been read."""
        return cls._checked(policy_set_of(files), size=DECISION_CACHE_SIZE, disabled=disabled)

    @classmethod
    def _checked(cls, policies: PolicySet, *, size: int, disabled: frozenset[str]) -> Self:
        if wrong_rows := run_rows(policies).wrong_rows:
            raise PolicyLoadError(wrong_rows)
        return cls(policies.switched_off(disabled), decision_cache_size=size)

    @property
    def digest(self) -> str:
        """The SHA-256 of the set in hex."""
        return self._policies.digest

    def place(self, policy_id: str) -> PolicyReference | None:
        """Where a policy stands, if the set has one of this name."""
        policy = self._policies.whole.policies.get(policy_id)
        return None if policy is None else policy.reference

    def memories(self) -> Mapping[str, MemoryStatus]:
        """
        How everything is doing that is remembered here, by name.

        The policies were parsed once, when they were loaded, so they are asked for and found each time.
        """
        slices = self._policies.slices.memories()
        used = slices["slices"].hits + slices["slices"].misses
        return {
            "policies": MemoryStatus(len(self._policies.whole.policies), MAX_POLICIES, used, 0),
            **slices,
            "decisions": self._decisions.status(),
            "permits": self._permits.status(),
        }

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

    def permits_any(self, query: PolicyQuery) -> bool:
        try:
            return self._permits_any(query)
        except BaseException as error:  # noqa: BLE001 - a panic in Cedar is no Exception either
            _let_pass(error)
            return False

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
        is_small = len(facts.scopes) <= _MAX_REMEMBERED_SCOPES
        if is_sound and is_small and not chosen.sight.is_changing:
            self._decisions.put(facts, decision)
        return decision

    def _permits_any(self, query: PolicyQuery) -> bool:
        chosen = self._policies.slices.slice_for(query.client)
        facts = chosen.sight.facts(query)
        decision = self._decisions.get(facts)
        if decision is not None:
            return bool(decision.granted)
        permits = self._permits.get(facts)
        if permits is None:
            permits = is_any_permitted(chosen, facts)
            if permits is not None and not chosen.sight.is_changing:
                self._permits.put(facts, permits)
        return permits is True


def _let_pass(error: BaseException) -> None:
    """Raise again what asks the process to stop."""
    if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
        raise error


def _named(error: BaseException) -> str:
    return f"The policy engine failed: {type(error).__name__}."
