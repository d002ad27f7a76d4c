"""Destinations that are closed after their test."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from broker.audit.sinks.destination import Destination

_Opened = TypeVar("_Opened", bound=Destination)
Open = Callable[[_Opened], _Opened]


@pytest.fixture
def use() -> Iterator[Callable[[Destination], Destination]]:
    """Gives a destination back, and closes it when the test is over."""
    opened: list[Destination] = []

    def remember(destination: Destination) -> Destination:
        opened.append(destination)
        return destination

    yield remember
    for one in opened:
        one.close()
