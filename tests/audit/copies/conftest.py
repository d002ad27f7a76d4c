"""A sealed log of a real run, for tests that compare it with what somebody else received."""

from pathlib import Path

import pytest

from broker.audit.log_id import read_log_id
from tests.audit.copies.received import LOG_ID
from tests.audit.seal.sealed_logs import SealedLog, real_run
from tests.audit.seal.signers import KeysInMemory, signer_of


@pytest.fixture(scope="session")
def keys() -> KeysInMemory:
    """The operator's keys."""
    return KeysInMemory()


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory, keys: KeysInMemory) -> SealedLog:
    directory = tmp_path_factory.mktemp("compared") / "audit"
    directory.mkdir(mode=0o700)
    (directory / "log.id").write_text(f"{LOG_ID}\n")
    real_run(directory, keys)
    assert read_log_id(directory) == LOG_ID
    return SealedLog(directory, signer_of(keys).keys()[0])


@pytest.fixture
def log(sound: SealedLog, tmp_path: Path) -> SealedLog:
    """A copy of it that a test may spoil."""
    return sound.copy(tmp_path / "audit")
