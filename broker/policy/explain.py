"""Explains a decision: who decided it, where that stands, and the least that would change it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cedarpy import pst

from broker.model import (
    NearestMiss,
    PolicyQuery,
    PolicyReference,
    Scope,
    ScopeExplanation,
    StepUp,
    Verdict,
)
from broker.policy.case import Case
from broker.policy.cedar_text import cedar_text
from broker.policy.changes import Change, change_to, changes_for, holding
from broker.policy.deciding import decide
from broker.policy.evaluation import Answer
from broker.policy.policies import Policy, handle
from broker.policy.policy_set import PolicySet
from broker.policy.syntax import conditions, conjuncts, negated

_MAX_CANDIDATES = 256
_MAX_MISSES = 5


def explain(policies: PolicySet, query: PolicyQuery) -> list[ScopeExplanation]:
    """Decide each scope anew, by all policies and with all facts told, and give the grounds."""
    return [_explain_scope(policies, query, scope) for scope in query.scopes]


def _explain_scope(policies: PolicySet, query: PolicyQuery, scope: Scope) -> ScopeExplanation:
    case = Case.of(query, scope)
    answer = case.ask(policies.whole.handle, schema=policies.schema)
    explaining = _Explaining(policies, case, answer)
    return ScopeExplanation(
        scope=scope.name,
        verdict=answer.verdict,
        policies=explaining.references(),
        nearest_misses=tuple(explaining.misses()),
        errors=answer.errors,
    )


@dataclass(frozen=True, slots=True)
class _Explaining:
    """One scope under explanation."""

    policies: PolicySet
    case: Case
    answer: Answer

    def references(self) -> tuple[PolicyReference, ...]:
        """Where the deciding policies stand."""
        return tuple(self._policy(name).reference for name in self.answer.policy_ids)

    def misses(self) -> list[NearestMiss]:
        """What stood in the way: the forbids, or else the permits that came nearest."""
        match self.answer.verdict:
            case Verdict.FORBIDDEN:
                forbids = [self._forbidden(self._policy(name)) for name in self.answer.policy_ids]
                return [*forbids, *self._near_permits()][:_MAX_MISSES]
            case Verdict.NO_PERMIT:
                return self._near_permits()
            case _:
                return []

    def _policy(self, policy_id: str) -> Policy:
        return self.policies.whole.policies[policy_id]

    def _near_permits(self) -> list[NearestMiss]:
        """The permits whose head matches, the one with the fewest changes to make first."""
        permits = self._permits_for_this()
        pieces = [(permit, piece) for permit in permits for piece in conditions(permit.tree)]
        held = holding([piece for _, piece in pieces], self.case)
        failed: dict[str, list[pst.Expr]] = {permit.policy_id: [] for permit in permits}
        for number, (permit, piece) in enumerate(pieces):
            if number not in held:
                failed[permit.policy_id].append(piece)
        if not all(failed.values()):
            # Some permit matches as it is, so that only the forbids stand in the way.
            return []
        ways = {name: changes_for(pieces, self.case) for name, pieces in failed.items()}
        nearest = sorted(permits, key=lambda one: (len(ways[one.policy_id]), _breadth(one)))
        return [
            NearestMiss(
                permit.reference,
                tuple(map(cedar_text, failed[permit.policy_id])),
                self._permit_sentence(ways[permit.policy_id]),
            )
            for permit in nearest[:_MAX_MISSES]
        ]

    def _permits_for_this(self) -> list[Policy]:
        chosen = self.policies.slices.slice_for(self.case.query.client)
        permits = {name: one for name, one in chosen.policies.items() if one.is_permit}
        heads = {name: replace(one.tree, clauses=()) for name, one in permits.items()}
        matching = self.case.ask(handle(heads)).policy_ids
        return [permits[name] for name in matching[:_MAX_CANDIDATES]]

    def _permit_sentence(self, changes: Sequence[Change]) -> str:
        what = _together(changes)
        after = self._after(changes)
        if after is None:
            return f"Would match if {what}."
        if after.verdict is Verdict.PERMIT:
            return f"Would be permitted if {what}."
        if after.verdict is Verdict.FORBIDDEN:
            others = ", ".join(after.policy_ids)
            return f"Would match if {what}, but would be forbidden by {others}."
        return f"Would come nearer if {what}, but would still be refused."

    def _forbidden(self, forbid: Policy) -> NearestMiss:
        ways, failed = self._ways_out(forbid)
        reason = forbid.annotations.reason
        parts = [reason, self._forbid_sentence(forbid, ways), self._cure_sentence(forbid)]
        return NearestMiss(
            forbid.reference,
            tuple(map(cedar_text, failed)),
            " ".join(part for part in parts if part),
        )

    def _ways_out(self, forbid: Policy) -> tuple[list[list[Change]], list[pst.Expr]]:
        """Each list of changes that would lift the forbid, and the conditions that it misses."""
        ways: list[list[Change]] = []
        missed: list[pst.Expr] = []
        for clause in forbid.tree.clauses:
            if isinstance(clause, pst.Unless):
                pieces = list(conjuncts(clause.expr))
                held = holding(pieces, self.case)
                failed = [piece for number, piece in enumerate(pieces) if number not in held]
                ways.append(changes_for(failed, self.case))
                missed += failed
        for clause in forbid.tree.clauses:
            if isinstance(clause, pst.When):
                pieces = list(conjuncts(clause.expr))
                ways += [[change_to(piece, self.case, wanted=False)] for piece in pieces]
                missed.append(negated(clause.expr))
        return ways, missed

    def _forbid_sentence(self, forbid: Policy, ways: list[list[Change]]) -> str:
        lifting = ""
        for changes in ways:
            after = self._after(changes)
            if after is None or after.verdict is Verdict.ERROR:
                continue
            if after.verdict is Verdict.PERMIT:
                return f"Would be permitted if {_together(changes)}."
            if forbid.policy_id not in after.policy_ids and not lifting:
                lifting = (
                    f"Would not forbid if {_together(changes)}, but it would still be refused."
                )
        if lifting:
            return lifting
        if ways:
            return f"Would not forbid if {_together(ways[0])}."
        return "Forbids all that its head names."

    def _cure_sentence(self, forbid: Policy) -> str:
        if forbid.annotations.cure is None:
            return ""
        chosen = self.policies.slices.slice_for(self.case.query.client)
        facts = chosen.sight.facts(self.case.query)
        offer = decide(chosen, facts, digest=self.policies.digest).step_up
        return "" if offer is None else _offer_sentence(offer)

    def _after(self, changes: Sequence[Change]) -> Answer | None:
        """What the whole set says once the changes are made, or ``None`` if one cannot be tried."""
        if not all(change.edits for change in changes):
            return None
        edits = [edit for change in changes for edit in change.edits]
        return self.case.edited(edits).ask(self.policies.whole.handle, schema=self.policies.schema)


def _breadth(policy: Policy) -> int:
    """How little the head demands: of two near misses, the one that names its case is nearer."""
    return [policy.tree.principal, policy.tree.resource].count(pst.ScopeAny())


def _together(changes: Sequence[Change]) -> str:
    *others, last = (change.phrase for change in changes)
    return f"{', '.join(others)} and {last}" if others else last


def _offer_sentence(offer: StepUp) -> str:
    demands = [f"acr_values {offer.acr_values}"] if offer.acr_values else []
    demands += [] if offer.max_age is None else [f"max_age {offer.max_age}"]
    return f"A new login of the user cures it: {', '.join(demands)}."
