"""Audit directories for the tests of the index."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.audit.index.lives import Life


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    """An audit directory of its own for one test."""
    life = Life(tmp_path / "audit")
    life.directory.mkdir(mode=0o700)
    yield life
    life.close()
