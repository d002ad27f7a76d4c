"""What long runs share: the report, and brokers that are ended whatever happens."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.ending import end_in_order
from tests.chaos.reporting import MINUTES, Report, minutes_left, next_case, tell
from tests.chaos.stands import Stand, stand

_REPORT = pytest.StashKey[Report]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin the report of this run."""
    named = os.environ.get("CHAOS_REPORT", "")
    config.stash[_REPORT] = Report(Path(named) if named else None)
    end_in_order()
    tell(f"chaos: {MINUTES:g} minutes; CHAOS_MINUTES sets how many")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what wants most of the time; what there is no time for comes last."""
    items.sort(key=share_of, reverse=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tell how far the run is, and what the case may take of the time that is left."""
    items = item.session.items
    at = items.index(item)
    next_case([weight(one) for one in items[at:]])
    if minutes_left() <= 0:
        tell(f"skipped, the time is over: {item.name}")
        pytest.skip("the time is over")
    tell(f"case {at + 1} of {len(items)}, {minutes_left():.1f} minutes left: {item.name}")


def weight(item: pytest.Item) -> float:
    """The share of its file in percent, divided among the cases in it."""
    beside = sum(one.path == item.path for one in item.session.items)
    return share_of(item) / beside


def share_of(item: pytest.Item) -> float:
    """The share of its file."""
    return float(getattr(getattr(item, "module", None), "SHARE", 1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show all figures at the end."""
    report = terminalreporter.config.stash[_REPORT]
    terminalreporter.section("measured")
    terminalreporter.write_line(report.summary())
    if report.file is not None:
        terminalreporter.write_line(f"\nWritten to {report.file}")


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """The figures of this run."""
    return request.config.stash[_REPORT]


@pytest.fixture
def full_stand(tmp_path: Path) -> Iterator[Stand]:
    """A broker with its keys in OpenBao and its state in Valkey, each behind a proxy."""
    with stand(tmp_path) as one:
        yield one
