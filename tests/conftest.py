"""Fixtures that any test may use, and the order in which tests are begun."""

import gc
from collections.abc import Generator
from functools import cache
from pathlib import Path
from typing import Final

import pytest
import structlog
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.openbao", "tests.stagehands", "tests.valkey"]

# How long an example takes tells how busy the machine is.
settings.register_profile(
    "patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")

_ROOT: Final = Path(__file__).parent
_SLOW: Final = (
    "docs",
    "deploy",
    "e2e",
    "keys",
    "web",
    "verify_kit",
    "state",
    "interop",
    "client",
    "attacks",
    "cli",
    "supervisor",
)
"""The folders with files whose tests take long, the slowest first."""


def pytest_configure() -> None:
    """
    Write the tracebacks of what is logged as Python does.

    Where the log is not set up, each one would be drawn with the locals of all frames, the test runner's
    too, which takes a tenth of a second.
    """
    *others, _ = structlog.get_config()["processors"]
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*others, plain])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Begin with the slow ones.

    Several processes take one file after the other; none is left with a slow one when the others have nothing
    to do any more.
    """
    items.sort(key=lambda item: _place(item.path))


@cache
def _place(file: Path) -> int:
    folder = file.relative_to(_ROOT).parts[0]
    return _SLOW.index(folder) if folder in _SLOW else len(_SLOW)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """
    Let the collector of garbage pass over what stays until the end.

    These are sixteen thousand tests, and all that is imported for them; it would go through them again and
    again, in each process.
    """
    del session
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()
