"""ASGI middleware that lets only requests with a good token through to an application."""

import sys
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any, Final
from urllib.parse import unquote

from broker.client._http_answer import HttpAnswer, answer_metadata, answer_refusal
from broker.client._incoming import incoming_over_asgi
from broker.client.delegation import Delegation
from broker.client.in_progress import delegation, request_of
from broker.client.refusals import NotServed
from broker.client.resource import ResourceMetadata, metadata_path, origin_of
from broker.client.verify import TokenVerifier

__all__ = ["Verified", "delegation"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_POLICY_VIOLATION: Final = 1008
_SDK: Final = "mcp.server.streamable_http_manager"
_DENIAL: Final = "websocket.http.response"


class Verified:
    """
    Verifies the token of every request, and serves the metadata of the resource (RFC 9728).

    The application finds what was verified by ``delegation()``, and in the scope as ``delegation`` of its
    ``state``; calls that it makes meanwhile are made in the name of that request. An MCP server behind it
    keeps each session to whoever opened it. ``public`` are paths that need no token. A ``NotServed`` that
    the application raises before it answers is answered as well. Put it inside of what answers CORS
    preflights, since those have no token.
    """

    def __init__(
        self,
        app: Application,
        verifier: TokenVerifier,
        *,
        metadata: ResourceMetadata | None = None,
        public: Collection[str] = (),
    ) -> None:
        self._app = app
        self._verifier = verifier
        self._metadata = metadata or verifier.metadata()
        path, _, self._query = metadata_path(verifier.resource).partition("?")
        self._path = unquote(path)
        self._origin = origin_of(verifier.resource)
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI 3 has it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] not in {"http", "websocket"}:
            # What is not understood is not let through unseen.
            raise ValueError("There is no way to verify a connection of this type.")
        elif self._is_for_metadata(scope):
            await _send(send, answer_metadata(self._metadata, scope["method"]), scope)
        elif scope["path"] in self._public:
            with request_of(None):
                await self._app(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def sending(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            incoming = incoming_over_asgi(scope, origin=self._origin)
            verified = await self._verifier.verify_request(incoming)
            with request_of(verified):
                await self._app(_with_state(scope, verified), receive, sending)
        except NotServed as refused:
            if has_begun:
                raise
            await _send(send, answer_refusal(refused), scope)

    def _is_for_metadata(self, scope: Scope) -> bool:
        query = scope.get("query_string", b"").decode("latin-1")
        is_path = scope["type"] == "http" and scope["path"] == self._path
        return is_path and self._query in ("", query)


def _with_state(scope: Scope, verified: Delegation) -> Scope:
    told = {**scope, "state": {**scope.get("state", {}), "delegation": verified}}
    if _SDK in sys.modules:
        # An MCP server keeps each session to the one who opened it, whom it finds here.
        from broker.client.mcp import user_of  # noqa: PLC0415 - whoever serves no MCP need not have it.

        told["user"] = user_of(verified)
    return told


async def _send(send: Send, answer: HttpAnswer, scope: Scope) -> None:
    if scope["type"] == "http":
        prefix = "http.response"
    elif _DENIAL in scope.get("extensions", {}):
        prefix = _DENIAL
    else:
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        return
    await send({"type": f"{prefix}.start", "status": answer.status, "headers": answer.raw_headers})
    await send(
        {"type": f"{prefix}.body", "body": b"" if scope.get("method") == "HEAD" else answer.body}
    )
