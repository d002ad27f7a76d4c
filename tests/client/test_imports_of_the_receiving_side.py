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


_VERSION_1 = """
import asyncio, sys
import mcp.server.streamable_http_manager
for name in [one for one in sys.modules if one.startswith("mcp.server.mcpserver")]:
    sys.modules[name] = None
from tests.client.test_asgi_middleware import *
with running_key_server() as running:
    running.publish(BROKER_KEY.jwk)
    print(ask(protected(running), headers=bearer(good_token(running.issuer))).status_code)
try:
    import broker.client.mcp
except ImportError:
    print("not there")
"""


def test_the_middleware_serves_an_sdk_that_has_no_mcpserver() -> None:
    """Version 1 of the SDK has none, and keeps sessions apart by the same user."""
    done = subprocess.run(
        [sys.executable, "-c", _VERSION_1], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.split("\n") == ["200", "not there", ""]
