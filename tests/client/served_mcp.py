"""MCP servers of the official SDK and of FastMCP with our adapters, and somebody who calls them."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import uvicorn
from fastmcp import FastMCP
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from broker.client import asgi
from broker.client import fastmcp as for_fastmcp
from broker.client import mcp as for_sdk
from broker.client.broker import Broker
from broker.client.httpx2 import BrokerAuth
from broker.client.verify import TokenVerifier
from tests.e2e.patience import until

Application = Any
_SECONDS = 60.0
"""How long a call may take on a machine that does much else; what is shown is not how fast it is."""

_ANY_HOST = TransportSecuritySettings(enable_dns_rebinding_protection=False)


@dataclass(frozen=True)
class Downstream:
    """What the tools of a server call: a resource at the other end of a transport."""

    broker: Broker
    resource: str
    scope: str
    transport: httpx2.AsyncBaseTransport

    def client(self, **settings: Any) -> httpx2.AsyncClient:
        """A client for it."""
        return httpx2.AsyncClient(
            transport=self.transport,
            base_url=self.resource,
            trust_env=False,
            **{"timeout": _SECONDS, **settings},
        )


def by_sdk(verifier: TokenVerifier, downstream: Downstream | None = None) -> Application:
    """A server of the official SDK."""
    server: MCPServer[Any] = MCPServer("tickets", **for_sdk.protected(verifier))
    return _with_tools(server, downstream)


def behind_middleware(verifier: TokenVerifier, downstream: Downstream | None = None) -> Application:
    """A server of the official SDK that leaves tokens to the middleware in front of it."""
    return asgi.Verified(_with_tools(MCPServer("tickets"), downstream), verifier)


def by_fastmcp_behind_middleware(verifier: TokenVerifier) -> Application:
    """A server of FastMCP that leaves tokens to the middleware in front of it."""
    server: FastMCP = FastMCP("tickets")
    return asgi.Verified(server.http_app(path="/mcp", host_origin_protection=False), verifier)


def _with_tools(server: MCPServer[Any], downstream: Downstream | None) -> Application:
    @server.tool()
    def whoami() -> str:
        return _told(for_sdk.delegation())

    @server.tool()
    @for_sdk.tell_refusals
    def close() -> str:
        for_sdk.delegation().require_scopes("tickets:close")
        return "closed"

    if downstream is not None:
        there = downstream

        @server.tool()
        @for_sdk.tell_refusals
        async def contacts() -> str:
            return await _read(there, there.scope)

        @server.tool()
        @for_sdk.tell_refusals
        async def contacts_with(scope: str) -> str:
            return await _read(there, scope)

    return server.streamable_http_app(transport_security=_ANY_HOST)


def by_fastmcp(verifier: TokenVerifier, downstream: Downstream | None = None) -> Application:
    """A server of FastMCP, which masks the details of errors."""
    server: FastMCP = FastMCP(
        "tickets", auth=for_fastmcp.BrokerAuthProvider(verifier), mask_error_details=True
    )
    server.add_middleware(for_fastmcp.TellRefusals())

    @server.tool
    def whoami() -> str:
        return _told(for_fastmcp.delegation())

    @server.tool
    def close() -> str:
        for_fastmcp.delegation().require_scopes("tickets:close")
        return "closed"

    if downstream is not None:
        there = downstream
        own = for_fastmcp.DownstreamToken(there.broker, there.resource, there.scope)

        @server.tool
        async def contacts(token: str = own) -> str:
            async with there.client(headers={"Authorization": f"Bearer {token}"}) as client:
                return (await client.get("")).text

        @server.tool
        async def contacts_with(scope: str) -> str:
            return await _read(there, scope)

        refused = for_fastmcp.DownstreamToken(there.broker, there.resource, "crm.unknown")

        @server.tool
        async def forbidden(token: str = refused) -> str:
            return token

    return server.http_app(path="/mcp", host_origin_protection=False)


async def _read(downstream: Downstream, scope: str) -> str:
    auth = BrokerAuth(downstream.broker, downstream.resource, scopes=[scope])
    async with downstream.client(auth=auth) as client:
        return (await client.get("")).text


class ServedAt(httpx2.AsyncBaseTransport):
    """Asks the server at ``address``, whatever host a request is for, as a private name server would."""

    def __init__(self, address: str) -> None:
        self._address = httpx2.URL(address)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it there, over the network."""
        there = {part: getattr(self._address, part) for part in ("scheme", "host", "port")}
        sent = httpx2.Request(
            request.method,
            request.url.copy_with(**there),
            headers=request.headers,
            stream=request.stream,
            extensions=request.extensions,
        )
        async with httpx2.AsyncHTTPTransport(trust_env=False) as transport:
            answer = await transport.handle_async_request(sent)
            await answer.aread()
            return answer


def closing(app: Application, downstream: Downstream) -> Application:
    """The same application, which ends what its tools held when it ends itself."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "lifespan.shutdown.complete":
                await downstream.broker.aclose()
            await send(message)

        await app(scope, receive, sending)

    return wrapped


def _told(found: Any) -> str:
    return f"{found.subject} by {found.mcp_client} at {found.client_id}, token {found.token_id}"


@contextmanager
def serving(app: Application) -> Iterator[str]:
    """The address at which an application is served, until the end of the block."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        until(lambda: server.started, seconds=60, what="the server has started")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()


@dataclass(frozen=True)
class Caller:
    """Calls the tools of a server with whatever token ``token`` returns when a request begins."""

    address: str
    token: Callable[[], str]
    mode: Any = "auto"

    def call(self, tool: str, **arguments: Any) -> tuple[str, bool]:
        """What a tool says, and whether it says that it failed."""
        return self.call_all((tool, arguments))[0]

    def call_all(self, *calls: tuple[str, dict[str, Any]]) -> list[tuple[str, bool]]:
        """The same for several calls, one after the other, in one session."""
        return asyncio.run(self._call(*calls))

    def tools(self) -> dict[str, Any]:
        """The parameters of every tool, as the model sees them."""

        async def listing() -> dict[str, Any]:
            async with self._connected() as client:
                found = await client.list_tools()
                return {tool.name: tool.input_schema for tool in found.tools}

        return asyncio.run(listing())

    def call_at_once(self, tool: str, *, times: int) -> list[tuple[str, bool]]:
        """The same call so many times in one session, without waiting for any of them."""

        async def calling() -> list[tuple[str, bool]]:
            async with self._connected() as client:
                calls = (client.call_tool(tool, {}) for _ in range(times))
                results = await asyncio.gather(*calls)
            return [(_text(result), bool(result.is_error)) for result in results]

        return asyncio.run(calling())

    async def _call(self, *calls: tuple[str, dict[str, Any]]) -> list[tuple[str, bool]]:
        async with self._connected() as client:
            results = [await client.call_tool(tool, arguments) for tool, arguments in calls]
        return [(_text(result), bool(result.is_error)) for result in results]

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        async def bear(request: httpx2.Request) -> None:
            request.headers["Authorization"] = f"Bearer {self.token()}"

        hooks = {"request": [bear]}
        async with (
            httpx2.AsyncClient(event_hooks=hooks, trust_env=False, timeout=_SECONDS) as http,
            Client(
                streamable_http_client(f"{self.address}/mcp", http_client=http), mode=self.mode
            ) as client,
        ):
            yield client


def _text(result: Any) -> str:
    return "".join(part.text for part in result.content)
