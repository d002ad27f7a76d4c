"""Fixtures that run whole brokers, and leave none behind."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.reloading import Operator, both_faces, is_granted, reloadable
from tests.e2e.running import RunningBroker
from tests.e2e.setting import Setting, new_setting
from tests.e2e.vault import Vault, running_vault
from tests.e2e.wires import Wire, wire

# Processes are looked at as Linux shows them.
collect_ignore_glob = [] if Path("/proc/self/stat").exists() else ["test_*.py"]

Starting = Callable[..., RunningBroker]


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[Starting]:
    """Starts brokers of one's own; ``is_awaited`` waits until one is ready."""
    with ExitStack() as closing:

        def begin(setting: Setting | None = None, *, is_awaited: bool = True) -> RunningBroker:
            broker = RunningBroker(setting or new_setting(tmp_path))
            closing.callback(broker.close)
            if is_awaited:
                broker.wait_until_ready()
            return broker

        yield begin


@pytest.fixture(scope="session")
def _shared() -> Iterator[list[RunningBroker]]:
    running: list[RunningBroker] = []
    yield running
    for broker in running:
        broker.close()


@pytest.fixture
def broker(_shared: list[RunningBroker], tmp_path_factory: pytest.TempPathFactory) -> RunningBroker:
    """A ready broker that tests share who leave it as it is, or at least able to recover."""
    if not (_shared and _shared[-1].is_running and _shared[-1].is_ready()):
        _shared.append(RunningBroker(new_setting(tmp_path_factory.mktemp("broker"))))
        _shared[-1].wait_until_ready()
    return _shared[-1]


@pytest.fixture(params=["http", "grpc"])
def face(request: pytest.FixtureRequest, broker: RunningBroker) -> Iterator[Wire]:
    """A connection to each face of the shared broker in turn."""
    with wire(request.param, broker.setting) as one:
        yield one


@pytest.fixture(scope="session")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """An OpenBao for these tests, which whoever seals it unseals again."""
    with running_vault(tmp_path_factory.mktemp("vault")) as one:
        yield one


@pytest.fixture(scope="session")
def _reloadable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    with reloadable(tmp_path_factory.mktemp("reloadable")) as broker:
        yield broker


@pytest.fixture
def operator(_reloadable: RunningBroker) -> Iterator[Operator]:
    """Whoever may change the files of a running broker; what was changed is undone afterwards."""
    operator = Operator(_reloadable)
    yield operator
    operator.restore()


@pytest.fixture
def faces(operator: Operator) -> Iterator[tuple[Wire, Wire]]:
    """Connections to both faces of the operator's broker, on which an exchange works now."""
    with both_faces(operator.setting) as faces:
        for face in faces:
            assert is_granted(face, operator.setting)
        yield faces
