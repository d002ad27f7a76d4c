"""Fixtures of the client library's tests: a broker that runs, and hands that hold the library."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from broker.client.credentials import Credential
from tests.client.hands import WAYS, Hand, hand_of
from tests.client.whole_broker import whole_broker
from tests.e2e.running import RunningBroker

Holding = Callable[..., Hand]


@pytest.fixture(scope="session")
def running_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """A ready broker that tests share who leave it as it is."""
    with whole_broker(tmp_path_factory.mktemp("client-broker")) as broker:
        yield broker


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Each way to hold the library in turn."""
    return str(request.param)


@pytest.fixture
def holding(way: str, running_broker: RunningBroker) -> Iterator[Holding]:
    """Holds the library in this way, with a credential, against the broker that runs."""
    with ExitStack() as closing:

        def hold(credential: Credential, **options: object) -> Hand:
            held = hand_of(way, running_broker.setting, credential, **options)
            closing.callback(held.close)
            return held

        yield hold
