"""A record that no longer verifies."""

from collections.abc import Iterator
from typing import ClassVar

from broker.audit.alerts.rule import Finding, Rule, Status


class Damage(Rule):
    """The record does not fit what it was. Neither the threshold nor ``within`` has a meaning."""

    name: ClassVar = "damage"

    def look(self, status: Status) -> Iterator[Finding]:
        for part, wrong in status.damaged.items():
            yield Finding(f"{part}\0{wrong}", None, {"chain": part, "wrong": wrong})
