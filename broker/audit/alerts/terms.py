"""What an operator says about alerts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class RuleTerms:
    """One rule: whether it is on, and what holds in place of what is usual."""

    is_on: bool = True
    threshold: int | None = None
    within: timedelta | None = None


@dataclass(frozen=True, slots=True)
class AlertTerms:
    """All rules by name, where anything is said about them, and how long the same is not told again."""

    cool_down: timedelta = timedelta(hours=1)
    rules: Mapping[str, RuleTerms] = field(default_factory=dict)
