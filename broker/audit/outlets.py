"""What leaves the record of itself, put together: the shipper to second sinks, and the watch for alerts."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from broker.audit.alerts.alerts import Alerts
from broker.audit.alerts.rule import Status
from broker.audit.alerts.table import RULE_NAMES
from broker.audit.alerts.terms import AlertTerms
from broker.audit.alerts.watch import AlertWatch
from broker.audit.sinks.shipper import Shipper
from broker.audit.sinks.terms import SinkTerms, open_shipped


class Outlets:
    """
    Ships the files of a directory and looks at them for alerts, from ``begin`` to ``close``.

    For one process of a broker. ``damaged`` tells what else is known to be wrong with the record, by the
    name of its part, and ``unverified`` why it is not known whether it is whole. Raises ``OSError`` for
    certificates that cannot be read.
    """

    def __init__(
        self,
        directory: Path,
        *,
        sinks: Sequence[SinkTerms],
        alerts: AlertTerms,
        damaged: Callable[[], Mapping[str, str]] = dict,
        unverified: Callable[[], str] = str,
    ) -> None:
        self._damaged = damaged
        self._unverified = unverified
        self._counts: Counter[str] = Counter(dict.fromkeys(RULE_NAMES, 0))
        self._shipper = Shipper(directory, [open_shipped(one, directory) for one in sinks])
        self._watch = AlertWatch(
            directory, Alerts(alerts, count=self._count, now=time.time), status=self._status
        )

    def begin(self) -> None:
        """Start; to be called after any fork."""
        self._shipper.begin()
        self._watch.begin()

    def check(self) -> None:
        """Raise ``TemporarilyUnavailable`` when a thread has ended; a sink may be away."""
        self._shipper.check()
        self._watch.check()

    def ask_to_end(self) -> None:
        """Have the last look begun, so that others can end at the same time."""
        self._shipper.ask_to_end()
        self._watch.ask_to_end()

    def close(self, *, within: float = 10.0) -> None:
        """
        Ship and look at what there is, and stop, in so many seconds.

        Other processes should have closed their chains.
        """
        self.ask_to_end()
        until = time.monotonic() + within
        self._shipper.close(within=within)
        self._watch.close(within=max(until - time.monotonic(), 0))

    def backlogs(self) -> Mapping[str, int]:
        """How many records each sink has not taken yet, by its name."""
        return self._shipper.backlogs()

    def alerts(self) -> Mapping[str, int]:
        """How many alerts there were of each rule, since this process began."""
        return dict(self._counts)

    def _count(self, rule: str) -> None:
        self._counts[rule] += 1

    def _status(self) -> Status:
        return Status(time.time(), self._damaged(), self._shipper.backlogs(), self._unverified())
