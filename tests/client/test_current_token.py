"""Where the token of the request in progress is found, and that it is nobody else's."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from fastmcp import FastMCP
from fastmcp.server.auth import AccessToken as FastMCPAccessToken
from fastmcp.server.auth import TokenVerifier as FastMCPVerifier
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings

from broker.client import NoSubjectToken
from broker.client.current import reset_current, set_current, subject_token
from tests.client.served_mcp import Caller, serving
from tests.e2e.setting import ROOT

URL: Any = "http://127.0.0.1"


def test_without_a_request_in_progress_there_is_no_token() -> None:
    with pytest.raises(NoSubjectToken):
        subject_token()


def test_what_was_made_current_is_the_token_until_that_ends() -> None:
    handle = set_current("of the request")

    assert subject_token() == "of the request"
    reset_current(handle)
    with pytest.raises(NoSubjectToken):
        subject_token()


def test_requests_that_go_on_at_once_have_their_own() -> None:
    async def serve(token: str) -> str:
        set_current(token)
        await asyncio.sleep(0)
        return await asyncio.to_thread(subject_token)

    async def run() -> list[str]:
        return await asyncio.gather(*(serve(f"token-{number}") for number in range(20)))

    assert asyncio.run(run()) == [f"token-{number}" for number in range(20)]


def test_what_the_sdk_holds_for_the_request_is_found() -> None:
    user = AuthenticatedUser(AccessToken(token="of the SDK", client_id="a", scopes=[]))
    before = auth_context_var.set(user)

    found = subject_token()
    handle = set_current("of ours")
    nearer = subject_token()

    reset_current(handle)
    auth_context_var.reset(before)
    assert (found, nearer) == ("of the SDK", "of ours")


def test_no_framework_is_loaded_to_look_into() -> None:
    program = (
        "import sys\n"
        "from broker.client import NoSubjectToken\n"
        "from broker.client.current import subject_token\n"
        "try: subject_token()\n"
        "except NoSubjectToken: print(*{'mcp', 'fastmcp'} & {m.split('.')[0] for m in sys.modules})"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert not done.stdout.strip()


class Anybody(TokenVerifier):
    """Believes every token, which is nobody's business here."""

    async def verify_token(self, token: str) -> AccessToken:
        return AccessToken(token=token, client_id="agent", scopes=[], subject="ann")


class AnybodyToo(FastMCPVerifier):
    """The same for FastMCP."""

    async def verify_token(self, token: str) -> FastMCPAccessToken:
        return FastMCPAccessToken(token=token, client_id="agent", scopes=[], subject="ann")


def by_sdk() -> Any:
    """A server of the official SDK whose tools tell the current token."""
    settings = AuthSettings(issuer_url=URL, resource_server_url=URL, validate_token_resource=False)
    server: MCPServer[Any] = MCPServer("tickets", token_verifier=Anybody(), auth=settings)
    server.tool()(current)
    server.tool()(current_in_a_loop)
    open_to_all = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    return server.streamable_http_app(transport_security=open_to_all)


def by_fastmcp() -> Any:
    """The same of FastMCP."""
    server: FastMCP = FastMCP("tickets", auth=AnybodyToo())
    server.tool(current)
    server.tool(current_in_a_loop)
    return server.http_app(path="/mcp", host_origin_protection=False)


def current() -> str:
    """Tell the current token, from a thread."""
    return subject_token()


async def current_in_a_loop() -> str:
    """Tell the current token, from the event loop."""
    return subject_token()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("build", [by_sdk, by_fastmcp])
def test_each_message_of_a_session_has_the_token_that_it_came_with(
    build: Callable[[], Any], mode: str
) -> None:
    numbers = iter(range(1000))
    sent: list[str] = []

    def another() -> str:
        sent.append(f"token-{next(numbers)}")
        return sent[-1]

    with serving(build()) as address:
        caller = Caller(address, another, mode)
        tools = ["current", "current_in_a_loop"] * 2
        said = [text for text, _ in caller.call_all(*((tool, {}) for tool in tools))]

    assert len(set(said)) == 4
    assert said == sorted(said, key=sent.index)
    assert set(said) <= set(sent)
