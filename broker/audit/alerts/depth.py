"""Longer chains of actors than a resource has seen."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import ClassVar, Final

from broker.audit.alerts.known import Known, Learning
from broker.audit.alerts.rule import Finding, Rule, Terms, is_issue
from broker.audit.record import Record

_MOST_RESOURCES: Final = 16_384


class Depth(Rule):
    """
    A token has more actors than any before for its resource, and ``threshold`` at least.

    ``within`` is how long a new log only learns.
    """

    name: ClassVar = "depth"
    usual_threshold: ClassVar = 3
    usual_within: ClassVar = timedelta(days=1)

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._learning = Learning(terms.within)
        self._deepest: Known[int] = Known(_MOST_RESOURCES)

    def see(self, record: Record, at: float) -> Iterator[Finding]:
        depth = record.chain_depth
        if not is_issue(record) or depth is None:
            return
        is_over = self._learning.is_over(at)
        resource = record.resource or ""
        usual = self._deepest.get(resource) or 0
        if depth <= usual:
            return
        self._deepest.put(resource, depth)
        if is_over and depth >= self._terms.threshold:
            yield Finding(
                f"{depth}\0{resource}", record, {"chain_depth": depth, "usual_depth": usual}
            )

    def memory(self) -> Sequence[str]:
        deepest = [f"{depth} {resource}" for resource, depth in self._deepest.items()]
        return [self._learning.memory(), *deepest]

    def recall(self, lines: Sequence[str]) -> None:
        for line in lines[:1]:
            self._learning.recall(line)
        for line in lines[1 : _MOST_RESOURCES + 1]:
            depth, space, resource = line.partition(" ")
            if space and depth.isascii() and depth.isdigit() and len(depth) < 4:
                self._deepest.put(resource, int(depth))
