import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from tests.fetch.servers import Script, Server, running


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trust") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="session")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "idp.test").configure_cert(context)
    return context


@pytest.fixture
def serve(server_tls: ssl.SSLContext) -> Iterator[Callable[[Script], Server]]:
    """Start https servers that stop with the test."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(running(script, server_tls))


@pytest.fixture
def serve_plain() -> Iterator[Callable[[Script], Server]]:
    """Start http servers that stop with the test."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(running(script, None))
