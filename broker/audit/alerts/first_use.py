"""The first token of a client for a resource."""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import ClassVar, Final

from broker.audit.alerts.known import Known, Learning
from broker.audit.alerts.rule import Finding, Rule, Terms, is_issue
from broker.audit.record import Record

_MOST_PAIRS: Final = 65_536


class FirstUse(Rule):
    """
    A client got a token for a resource that it never had one for.

    ``within`` is how long a new log only learns. The threshold has no meaning.
    """

    name: ClassVar = "first_use"
    usual_within: ClassVar = timedelta(days=1)

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._learning = Learning(terms.within)
        self._pairs: Known[bool] = Known(_MOST_PAIRS)

    def see(self, record: Record, at: float) -> Iterator[Finding]:
        if not is_issue(record) or not record.client_id or not record.resource:
            return
        is_over = self._learning.is_over(at)
        pair = f"{record.client_id}\0{record.resource}"
        digest = hashlib.sha256(pair.encode()).hexdigest()[:32]
        if self._pairs.get(digest) is None:
            self._pairs.put(digest, value=True)
            if is_over:
                yield Finding(pair, record)

    def memory(self) -> Sequence[str]:
        return [self._learning.memory(), *(digest for digest, _ in self._pairs.items())]

    def recall(self, lines: Sequence[str]) -> None:
        for line in lines[:1]:
            self._learning.recall(line)
        for line in lines[1 : _MOST_PAIRS + 1]:
            self._pairs.put(line[:32], value=True)
