"""What is loaded with the library, and what is not before it is used."""

import subprocess
import sys

import pytest

from tests.e2e.setting import ROOT

PROGRAM = """
import sys
before = set(sys.modules)
import {module}
loaded = {{name for name in set(sys.modules) - before}}
foreign = {{name.partition(".")[0] for name in loaded}} - set(sys.stdlib_module_names) - {{"broker"}}
print(*sorted(foreign))
print(*sorted(name for name in loaded if name.startswith("broker.") and "client" not in name))
"""


def loaded_with(module: str) -> tuple[set[str], set[str]]:
    """The packages of others, and the other parts of the broker, that a fresh process loads with it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    foreign, ours = done.stdout.splitlines()
    return set(foreign.split()), set(ours.split())


def test_the_library_loads_nothing_but_the_standard_library() -> None:
    assert loaded_with("broker.client") == (set(), {"broker.oauth"})


@pytest.mark.parametrize(
    ("module", "wanted", "unwanted"),
    [
        ("broker.client._http", "httpx2", {"grpc", "jwt", "httpx", "requests", "cryptography"}),
        ("broker.client._grpc", "grpc", {"httpx2", "jwt", "httpx", "requests", "cryptography"}),
        ("broker.client.httpx2", "httpx2", {"grpc", "jwt", "httpx", "requests"}),
        ("broker.client.httpx", "httpx", {"grpc", "jwt", "httpx2", "requests"}),
        ("broker.client.requests", "requests", {"grpc", "jwt", "httpx2", "httpx"}),
        ("broker.client.grpc", "grpc", {"jwt", "httpx2", "httpx", "requests"}),
        (
            "broker.client.revocations",
            "grpc",
            {"jwt", "httpx2", "httpx", "requests", "cryptography"},
        ),
        ("broker.client.current", "", {"mcp", "fastmcp", "grpc", "httpx2"}),
    ],
)
def test_an_adapter_loads_its_own_framework_alone(
    module: str, wanted: str, unwanted: set[str]
) -> None:
    foreign, _ = loaded_with(module)

    assert not wanted or wanted in foreign
    assert not foreign & unwanted
