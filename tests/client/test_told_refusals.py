"""What the model reads when a tool, a resource or a prompt is refused something, and what it does not."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastmcp import Client, FastMCP
from fastmcp.exceptions import ToolError
from mcp import Client as SdkClient
from mcp.server import MCPServer

from broker.client.failures import Refused, StepUp, StepUpRequired
from broker.client.fastmcp import TellRefusals
from broker.client.mcp import tell_refusals
from tests.client.receiving import a_delegation

REFUSED = Refused("invalid_target", "The target is unknown.", decision_id="D-1")
STEP_UP = StepUpRequired(
    "insufficient_user_authentication", "Log in again.", decision_id="D-2", step_up=StepUp("phr")
)


def refuse() -> str:
    raise REFUSED


def demand() -> str:
    a_delegation().require_scopes("crm:write")
    return "done"


def crash() -> str:
    raise KeyError("the secret of the vault")


def fastmcp_server(*, is_telling: bool = True) -> FastMCP:
    server: FastMCP = FastMCP("crm", mask_error_details=True)
    if is_telling:
        server.add_middleware(TellRefusals())
    for behaviour in (refuse, demand, crash):
        server.tool(behaviour)
        server.resource(f"crm://{behaviour.__name__}")(behaviour)
        server.prompt(behaviour)
    return server


def ask(server: FastMCP, asking: Callable[[Any], Any]) -> str:
    """The failure that a client of the server is told."""

    async def run() -> None:
        async with Client(server) as client:
            await asking(client)

    with pytest.raises(Exception, match=r".") as failure:
        asyncio.run(run())
    return str(failure.value)


ASKS: dict[str, Callable[[Any, str], Any]] = {
    "tool": lambda client, name: client.call_tool(name, {}),
    "resource": lambda client, name: client.read_resource(f"crm://{name}"),
    "prompt": lambda client, name: client.get_prompt(name),
}


@pytest.mark.parametrize("kind", ASKS)
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("refuse", "invalid_target: The target is unknown. (decision D-1)"),
        ("demand", "insufficient_scope: The token does not have the scopes that this needs."),
    ],
)
def test_the_middleware_tells_refusals_even_where_details_are_masked(
    kind: str, name: str, sentence: str
) -> None:
    def asking(client: Any) -> Any:
        return ASKS[kind](client, name)

    assert sentence in ask(fastmcp_server(), asking)
    if kind != "prompt":
        assert sentence not in ask(fastmcp_server(is_telling=False), asking)


@pytest.mark.parametrize("kind", ["tool", "resource"])
def test_the_middleware_tells_nothing_of_other_failures(kind: str) -> None:
    assert "vault" not in ask(fastmcp_server(), lambda client: ASKS[kind](client, "crash"))


def test_the_middleware_leaves_other_errors_of_tools_alone() -> None:
    server: FastMCP = FastMCP("crm", middleware=[TellRefusals()])

    @server.tool
    def fail() -> str:
        raise ToolError("No such ticket.")

    assert ask(server, lambda client: client.call_tool("fail", {})) == "No such ticket."


def sdk_answer(name: str) -> tuple[str, bool]:
    """What a tool of the SDK answers, below the decorator."""
    server: MCPServer[Any] = MCPServer("crm")

    async def step_up() -> str:
        raise STEP_UP

    for behaviour in (refuse, demand, crash, step_up):
        server.tool()(tell_refusals(behaviour))

    async def run() -> tuple[str, bool]:
        async with SdkClient(server) as client:
            result = await client.call_tool(name, {})
            return "".join(part.text for part in result.content), bool(result.is_error)  # type: ignore[union-attr]

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("refuse", "invalid_target: The target is unknown. (decision D-1)"),
        ("demand", "insufficient_scope: The token does not have the scopes that this needs."),
        ("step_up", "insufficient_user_authentication: Log in again. (decision D-2)"),
    ],
)
def test_the_decorator_tells_refusals(name: str, sentence: str) -> None:
    text, is_error = sdk_answer(name)

    assert is_error
    assert text.endswith(sentence)


def test_the_decorator_tells_nothing_of_other_failures() -> None:
    text, is_error = sdk_answer("crash")

    assert is_error
    assert "vault" not in text


def test_the_decorator_leaves_a_tool_what_it_was() -> None:
    @tell_refusals
    async def whoami(name: str, limit: int = 3) -> str:
        """Tell who calls."""
        return f"{name} {limit}"

    server: MCPServer[Any] = MCPServer("crm")
    server.tool()(whoami)

    async def run() -> Any:
        async with SdkClient(server) as client:
            return (await client.list_tools()).tools[0]

    tool = asyncio.run(run())

    assert (tool.name, tool.description) == ("whoami", "Tell who calls.")
    assert set(tool.input_schema["properties"]) == {"name", "limit"}
