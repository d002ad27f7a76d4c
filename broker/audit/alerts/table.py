"""All rules. To add one: a file with a class of its own, and its line here."""

from typing import Final

from broker.audit.alerts.backlog import Backlog
from broker.audit.alerts.changes import Changes
from broker.audit.alerts.damage import Damage
from broker.audit.alerts.denials import ClientDenials, Denials
from broker.audit.alerts.depth import Depth
from broker.audit.alerts.first_use import FirstUse
from broker.audit.alerts.key_times import KeyTimes
from broker.audit.alerts.replays import Replays
from broker.audit.alerts.rule import Rule
from broker.audit.alerts.unverified import Unverified

RULES: Final[tuple[type[Rule], ...]] = (
    FirstUse,
    ClientDenials,
    Denials,
    Replays,
    Depth,
    KeyTimes,
    Changes,
    Damage,
    Unverified,
    Backlog,
)
RULE_NAMES: Final = tuple(rule.name for rule in RULES)
"""The closed list of rules, as measures, settings and log events name them."""
