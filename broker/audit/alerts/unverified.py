"""A record of which it is not known whether it is whole."""

from collections.abc import Iterator
from typing import ClassVar

from broker.audit.alerts.rule import Finding, Rule, Status


class Unverified(Rule):
    """
    The whole record was to be verified and could not be.

    Neither the threshold nor ``within`` has a meaning.
    """

    name: ClassVar = "unverified"

    def look(self, status: Status) -> Iterator[Finding]:
        if status.unverified:
            yield Finding(status.unverified, None, {"why": status.unverified})
