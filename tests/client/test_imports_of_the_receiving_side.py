"""Whoever verifies tokens loads what verifying needs, and of the frameworks only its own."""

import subprocess
import sys

import pytest

from tests.docs.markdown import ROOT

_FRAMEWORKS = {"grpc", "starlette", "mcp", "fastmcp", "fastapi", "requests", "httpx"}
_NOT_THERE = {"broker.model", "broker.tokens", "broker.config", "pydantic_settings"}


@pytest.mark.parametrize(
    ("module", "own"),
    [
        ("broker.client.resource", set()),
        ("broker.client.refusals", set()),
        ("broker.client.verify", set()),
        ("broker.client.asgi", set()),
        ("broker.client.starlette", {"starlette"}),
        ("broker.client.grpc_server", {"grpc"}),
        ("broker.client.mcp", {"mcp", "starlette"}),
    ],
)
def test_a_module_loads_its_own_framework_alone(module: str, own: set[str]) -> None:
    watched = sorted(_FRAMEWORKS | _NOT_THERE)
    program = f"import sys, {module}; print(*[one for one in {watched!r} if one in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert set(done.stdout.split()) == own
