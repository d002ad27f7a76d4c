"""A record that no longer verifies."""

import re
from collections.abc import Iterator
from typing import ClassVar, Final

from broker.audit.alerts.rule import Finding, Rule, Status

_PLACE: Final = re.compile(r"[^:]+(?::[0-9]+|\.jsonl)")


class Damage(Rule):
    """
    The record does not fit what it was. Neither the threshold nor ``within`` has a meaning.

    A place in a file is told once, whoever finds it and in whatever words; a chain once for each thing that
    is wrong with it.
    """

    name: ClassVar = "damage"
    is_grave: ClassVar = True

    def look(self, status: Status) -> Iterator[Finding]:
        for part, wrong in status.damaged.items():
            if _PLACE.fullmatch(part):
                yield Finding(part, None, {"place": part, "wrong": wrong})
            else:
                yield Finding(f"{part}\0{wrong}", None, {"chain": part, "wrong": wrong})
