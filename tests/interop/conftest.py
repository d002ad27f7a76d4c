"""One run of the examples for all tests of a process."""

from collections.abc import Iterator

import pytest

from tests.interop.stage_of_examples import Examples, running_examples


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Examples]:
    """The brokers and the MCP server of the examples, running."""
    with running_examples(tmp_path_factory.mktemp("examples")) as running:
        yield running
