"""Counts kept in memory: adding to one costs a lock and an addition, and no label is ever unbounded."""

import threading
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from prometheus_client.mmap_dict import mmap_key

BUCKETS: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
)
"""Upper bounds in seconds, from a local signature to a request that waited for everything."""

OTHER: Final = "other"
"""Stands for a label value that is not on its list."""

Labels = tuple[str, ...]
Series = tuple[str, float]
"""A key as Prometheus' client writes it (name, labels, help), and the value."""


class Family:
    """
    A measure's name and, for each label, the closed list of its values.

    So only so many series can ever exist, whatever requests contain.
    """

    file = ""

    def __init__(self, name: str, text: str, labels: Mapping[str, Collection[str]]) -> None:
        self.name = name
        self._text = text
        self._labels = {label: frozenset(values) for label, values in labels.items()}
        self._lock = threading.Lock()
        self._keys: dict[tuple[str, Labels, str | None], str] = {}

    def series(self) -> Iterator[Series]:
        """All series that have a value."""
        raise NotImplementedError

    def _bounded(self, labels: Labels) -> Labels:
        pairs = zip(labels, self._labels.values(), strict=True)
        return tuple(value if value in allowed else OTHER for value, allowed in pairs)

    def _key(self, suffix: str, labels: Labels, bound: str | None = None) -> str:
        what = suffix, labels, bound
        if what not in self._keys:
            names, values = [*self._labels], [*labels]
            if bound is not None:
                names.append("le")
                values.append(bound)
            self._keys[what] = mmap_key(self.name, self.name + suffix, names, values, self._text)
        return self._keys[what]


class Counter(Family):
    """How often something happened. ``name`` comes without the suffix ``_total``."""

    file = "counter"

    def __init__(self, name: str, text: str, labels: Mapping[str, Collection[str]]) -> None:
        super().__init__(name, text, labels)
        self._counts: dict[Labels, int] = {}

    def count(self, *labels: str, number: int = 1) -> None:
        """Count one, or as many as it was meanwhile."""
        with self._lock:
            try:
                self._counts[labels] += number
            except KeyError:
                bounded = self._bounded(labels)
                self._counts[bounded] = self._counts.get(bounded, 0) + number

    def series(self) -> Iterator[Series]:
        with self._lock:
            counts = list(self._counts.items())
        for labels, count in counts:
            yield self._key("_total", labels), count


class Histogram(Family):
    """How long something took."""

    file = "histogram"

    def __init__(self, name: str, text: str, labels: Mapping[str, Collection[str]]) -> None:
        super().__init__(name, text, labels)
        self._rows: dict[Labels, list[float]] = {}

    def observe(self, seconds: float, *labels: str) -> None:
        """Count one that took ``seconds``."""
        index = bisect_left(BUCKETS, seconds)
        with self._lock:
            row = self._rows.get(labels) or self._row(labels)
            row[index] += 1
            row[-1] += seconds

    def _row(self, labels: Labels) -> list[float]:
        # One count for each bucket, one for what is longer than all of them, and the sum.
        return self._rows.setdefault(self._bounded(labels), [0] * len(BUCKETS) + [0, 0.0])

    def series(self) -> Iterator[Series]:
        with self._lock:
            rows = [(labels, list(row)) for labels, row in self._rows.items()]
        for labels, row in rows:
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), row[:-1], strict=True):
                yield self._key("_bucket", labels, bound), count
            yield self._key("_sum", labels), row[-1]


class Gauge(Family):
    """How something stands; over several workers the greatest of their values is shown."""

    file = "gauge_livemax"

    def __init__(self, name: str, text: str, labels: Mapping[str, Collection[str]]) -> None:
        super().__init__(name, text, labels)
        self._values: dict[Labels, float] = {}

    def put(self, values: Mapping[Labels, float]) -> None:
        """Take these values in place of all that were before; labels off the list are left out."""
        known = {
            labels: value for labels, value in values.items() if labels == self._bounded(labels)
        }
        with self._lock:
            self._values = known

    def series(self) -> Iterator[Series]:
        with self._lock:
            values = list(self._values.items())
        for labels, value in values:
            yield self._key("", labels), value
