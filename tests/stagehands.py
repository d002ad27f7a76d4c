"""Fixtures that set up a stage on each face."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from broker.endpoints.limits import Limits
from broker.fetch import Fetcher
from broker.interfaces import PolicyEngine
from tests.harness import Broker, GrpcBatchFace, GrpcFace, HttpFace
from tests.stage import Stage
from tests.world import Cast
from tests.world_policy import load_world_policy

Staging = Callable[..., Stage]

EVERY_FACE = ["http", "grpc"]
EVERY_EXCHANGE = [*EVERY_FACE, "grpc-batch"]
"""The faces, and the batch of one token: each way of asking for an exchange."""


@pytest.fixture(scope="session")
def policy() -> PolicyEngine:
    """The Cedar policies of the world, loaded once."""
    return load_world_policy()


@pytest.fixture(params=EVERY_FACE)
def face_name(request: pytest.FixtureRequest) -> str:
    """Each test that asks for a stage runs on both faces."""
    return str(request.param)


@pytest.fixture(params=EVERY_EXCHANGE)
def every_exchange(request: pytest.FixtureRequest) -> str:
    """What a module about exchanges calls ``face_name``, so that its stages are played as batches too."""
    return str(request.param)


@pytest.fixture
def quick_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """
    A directory in memory where the system has one, else on disk.

    These tests look at what is recorded; that records survive on a disk is shown elsewhere.
    """
    memory = Path("/dev/shm")  # noqa: S108 - a private directory is made in it.
    if not os.access(memory, os.W_OK):
        yield tmp_path_factory.mktemp("broker")
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="broker-test-") as name:
        yield Path(name)


@pytest.fixture
def staging(quick_path: Path, face_name: str, policy: PolicyEngine) -> Iterator[Staging]:
    """Builds a stage with a cast of one's own, and with other parts where they are given."""
    with ExitStack() as closing:
        numbers = iter(range(100))

        def build(
            cast: Cast,
            *,
            engine: PolicyEngine = policy,
            fetcher: Fetcher | None = None,
            limits: Limits | None = None,
        ) -> Stage:
            directory = quick_path / str(next(numbers))
            broker = Broker(directory, cast=cast, policy=engine, fetcher=fetcher, limits=limits)
            closing.callback(broker.close)
            if face_name == "http":
                return Stage(broker, HttpFace(broker))
            face = (GrpcBatchFace if face_name == "grpc-batch" else GrpcFace)(broker)
            closing.callback(face.close)
            return Stage(broker, face)

        yield build


@pytest.fixture
def stage(staging: Staging) -> Stage:
    """A stage with the standing cast."""
    return staging(Cast())
