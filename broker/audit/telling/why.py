"""Why a request was decided as it was: the reason, the policies that decided and where they stand."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

from broker.audit.record import Record, ScopeFact
from broker.audit.telling.recalled import recalled, unrecorded
from broker.audit.telling.sentence import LIMITS, reason_clause
from broker.audit.telling.words import duration, value
from broker.interfaces import Registry
from broker.model import NearestMiss, PolicyQuery, PolicyReference, ScopeExplanation, Verdict

_VERDICTS: Final = {
    Verdict.PERMIT: "permitted",
    Verdict.NO_PERMIT: "no policy permits it",
    Verdict.FORBIDDEN: "forbidden",
    Verdict.ERROR: "a policy could not be evaluated, which denies",
}
_OTHER_SET: Final = (
    "Another policy set than the one in force now has decided this. Files and lines are those of now, and "
    "what came nearest cannot be told."
)
_NOT_AGAIN: Final = (
    "What is recorded does not lead to the same decision again, so what came nearest "
    "cannot be told."
)
_UNRECORDED: Final = (
    "Some policies depend on what is not recorded, such as the user's login, so whether they came near "
    "cannot be told."
)


class PoliciesInForce(Protocol):
    """The policy set that decides now."""

    @property
    def digest(self) -> str:
        """The SHA-256 of the set in hex."""
        ...

    def place(self, policy_id: str) -> PolicyReference | None:
        """Where a policy stands, if there is one of this name."""
        ...

    def explain(self, query: PolicyQuery) -> Sequence[ScopeExplanation]:
        """What the set says to a question, and why."""
        ...


@dataclass(frozen=True, slots=True)
class ScopeGrounds:
    """
    What policy said to one scope, by which policies and why not otherwise.

    ``verdict`` is as recorded, ``in_words`` the same for people. A policy that the set in force does not
    have has no file and the line 0. ``nearest`` are the permits that came nearest, the nearest first.
    """

    scope: str
    verdict: str
    in_words: str
    policies: tuple[PolicyReference, ...] = ()
    errors: tuple[str, ...] = ()
    nearest: tuple[NearestMiss, ...] = ()


@dataclass(frozen=True, slots=True)
class Grounds:
    """
    Why a request was decided as it was.

    ``reason`` is a clause for people, and empty for what was permitted. ``lifetime`` is a clause about what
    limits the token. ``policy_digest`` names the set that decided, and ``is_in_force`` tells whether that is
    the one of now; it is ``None`` where that cannot be known. ``remarks`` are sentences about what cannot
    be told.
    """

    reason: str = ""
    scopes: tuple[ScopeGrounds, ...] = ()
    lifetime: str = ""
    policy_digest: str = ""
    is_in_force: bool | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Present:
    """The policies that are in force now, and what is registered now; either may be unknown."""

    policies: PoliciesInForce | None = None
    registry: Registry | None = None


_NOTHING_KNOWN: Final = Present()
_NOBODY: Final[Mapping[str, Record]] = MappingProxyType({})


def why(
    record: Record, present: Present = _NOTHING_KNOWN, ancestors: Mapping[str, Record] = _NOBODY
) -> Grounds:
    """
    The grounds of a decision.

    Without what is present nothing is told of files and lines, or of what came nearest. ``ancestors`` are as
    for ``chain_of``, and tell what the tokens carried that were presented. Values are as in the record.
    """
    policies = present.policies
    remarks: list[str] = []
    is_same = None
    if policies is not None and record.policy_digest:
        is_same = policies.digest == record.policy_digest
        if not is_same:
            remarks.append(_OTHER_SET)
    explained = {}
    if is_same:
        explained = _explained(record, present, ancestors, remarks)
    scopes = [
        _grounds(one, policies, explained.get(one.scope)) for one in record.scope_decisions or []
    ]
    return Grounds(
        reason=reason_clause(record) if record.decision == "deny" else "",
        scopes=tuple(scopes),
        lifetime=_lifetime(record),
        policy_digest=record.policy_digest or "",
        is_in_force=is_same,
        remarks=tuple(remarks),
    )


def _grounds(
    fact: ScopeFact, policies: PoliciesInForce | None, explained: ScopeExplanation | None
) -> ScopeGrounds:
    known = next((one for one in Verdict if one == fact.verdict), None)
    return ScopeGrounds(
        scope=fact.scope,
        verdict=fact.verdict,
        in_words=_VERDICTS[known] if known else value(fact.verdict),
        policies=tuple(_place(policy_id, policies) for policy_id in fact.policy_ids),
        errors=tuple(fact.errors),
        nearest=() if explained is None else explained.nearest_misses,
    )


def _place(policy_id: str, policies: PoliciesInForce | None) -> PolicyReference:
    found = None if policies is None else policies.place(policy_id)
    return found or PolicyReference(policy_id, "", 0)


def _explained(
    record: Record, present: Present, ancestors: Mapping[str, Record], remarks: list[str]
) -> dict[str, ScopeExplanation]:
    """What came nearest for each scope that was denied, where the recorded facts suffice to tell."""
    denied = [one for one in record.scope_decisions or [] if one.verdict != Verdict.PERMIT]
    if not denied or present.policies is None or present.registry is None:
        return {}
    query = recalled(record, present.registry, ancestors)
    if query is None:
        return {}
    again = {one.scope: one for one in present.policies.explain(query)}
    if not all(_is_same(one, again.get(one.scope)) for one in record.scope_decisions or []):
        remarks.append(_NOT_AGAIN)
        return {}
    unknown = unrecorded(record, ancestors)
    found = {one.scope: _told(again[one.scope], unknown) for one in denied}
    if any(len(found[name].nearest_misses) < len(again[name].nearest_misses) for name in found):
        remarks.append(_UNRECORDED)
    return found


def _is_same(fact: ScopeFact, again: ScopeExplanation | None) -> bool:
    return (
        again is not None
        and fact.verdict == again.verdict
        and sorted(fact.policy_ids) == sorted(one.policy_id for one in again.policies)
    )


def _told(explained: ScopeExplanation, unknown: frozenset[str]) -> ScopeExplanation:
    """The explanation without policies that depend on what is not recorded."""
    names = re.compile(rf"\b(?:{'|'.join(sorted(unknown))})\b")
    nearest = [
        one for one in explained.nearest_misses if not any(map(names.search, one.failed_conditions))
    ]
    return ScopeExplanation(explained.scope, explained.verdict, nearest_misses=tuple(nearest))


def _lifetime(record: Record) -> str:
    if record.lifetime is None:
        return ""
    limit = record.lifetime_limit or ""
    by = f", limited by {LIMITS.get(limit) or value(limit)}" if limit else ""
    return f"it lives {duration(record.lifetime)}{by}"
