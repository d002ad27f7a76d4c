"""A second sink that falls behind."""

from collections.abc import Iterator
from typing import ClassVar

from broker.audit.alerts.rule import Finding, Rule, Status


class Backlog(Rule):
    """More than ``threshold`` records wait for a second sink. ``within`` has no meaning."""

    name: ClassVar = "backlog"
    usual_threshold: ClassVar = 10_000

    def look(self, status: Status) -> Iterator[Finding]:
        for sink, count in status.backlogs.items():
            if count > self._terms.threshold:
                yield Finding(sink, None, {"sink": sink, "backlog": count})
