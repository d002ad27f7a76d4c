"""What long runs share: the report, and brokers that are ended whatever happens."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.reporting import MINUTES, Report, tell
from tests.chaos.stands import Stand, stand

_REPORT = pytest.StashKey[Report]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin the report of this run."""
    named = os.environ.get("CHAOS_REPORT", "")
    config.stash[_REPORT] = Report(Path(named) if named else None)
    tell(f"chaos: about {MINUTES:g} minutes; CHAOS_MINUTES sets how many")


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
