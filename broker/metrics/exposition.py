"""The counts of all workers as one page for Prometheus."""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from broker import __version__
from broker.metrics.files import SUFFIX
from broker.metrics.tally import Gauge

Beside = Callable[[], Iterable[Metric]]
"""What a process measures in its own memory."""


def prepare_directory(directory: Path) -> None:
    """
    Make the directory for the workers' counts, empty; called before any worker runs.

    Counts begin with the broker: those of an earlier run would look like a rate.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in (*directory.glob(f"*{SUFFIX}"), *directory.glob("*.new")):
        left.unlink()


class Exposition:
    """
    The page, made from the files of all workers.

    ``render`` takes whether each expected worker is up, and whether each check of readiness passes,
    by the worker that it is of (empty where it is nobody's) and its name. What a worker that is not up
    last told about itself is left out, while what it counted stays. ``beside`` gives what this process
    measures itself.
    """

    def __init__(self, directory: Path, *, beside: Beside = tuple) -> None:
        self._directory = directory
        self._beside = beside

    def render(self, workers: Mapping[str, bool], checks: Mapping[tuple[str, str], bool]) -> bytes:
        """The page in Prometheus' text format, UTF-8."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(self._directory, workers, checks))
        registry.register(_Own(self._beside))
        return generate_latest(registry)


class _Own(Collector):
    def __init__(self, beside: Beside) -> None:
        self._beside = beside

    def collect(self) -> Iterable[Metric]:
        return self._beside()


class _Collector(Collector):
    def __init__(
        self,
        directory: Path,
        workers: Mapping[str, bool],
        checks: Mapping[tuple[str, str], bool],
    ) -> None:
        self._directory = directory
        self._workers = workers
        self._checks = checks

    def collect(self) -> Iterator[Metric]:
        yield from MultiProcessCollector.merge(self._files())  # type: ignore[no-untyped-call]
        up = GaugeMetricFamily(
            "broker_worker_up", "Whether a worker reported lately.", labels=["worker"]
        )
        for worker, is_up in sorted(self._workers.items()):
            up.add_metric([worker], float(is_up))
        yield up
        ready = GaugeMetricFamily("broker_ready", "Whether the broker is ready for requests.")
        ready.add_metric([], float(all(self._workers.values()) and all(self._checks.values())))
        yield ready
        passed = GaugeMetricFamily(
            "broker_check_passed",
            "Whether a check of readiness passes.",
            labels=["worker", "check"],
        )
        for (worker, check), has_passed in sorted(self._checks.items()):
            passed.add_metric([worker, check], float(has_passed))
        yield passed
        build = GaugeMetricFamily(
            "broker_build_info", "What is running; always 1.", labels=["version", "python"]
        )
        build.add_metric([__version__, platform.python_version()], 1)
        yield build

    def _files(self) -> list[str]:
        down = {
            f"{Gauge.file}_{name}{SUFFIX}" for name, is_up in self._workers.items() if not is_up
        }
        found = sorted(self._directory.glob(f"*{SUFFIX}"))
        return [str(file) for file in found if file.name not in down]
