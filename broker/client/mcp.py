"""Verification for MCP servers of the official SDK (``mcp`` 2.x)."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypedDict, TypeVar, cast

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import AnyHttpUrl, Field, InstanceOf

from broker.client import in_progress
from broker.client._access_token import members_of, verified_members
from broker.client.delegation import Delegation
from broker.client.failures import BrokerError
from broker.client.refusals import NotServed
from broker.client.verify import TokenVerifier

__all__ = ["BrokerTokenVerifier", "auth_settings", "delegation", "protected", "tell_refusals"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


class VerifiedAccessToken(AccessToken):
    """The SDK's access token, together with what was verified of it."""

    delegation: InstanceOf[Delegation] = Field(exclude=True, repr=False)


class BrokerTokenVerifier:
    """
    The ``token_verifier`` of an ``MCPServer``.

    The SDK itself checks expiry and required scopes alone, and knows bearer tokens only, so that a
    token that is bound to a key is refused. While keys or revocations cannot be had it raises
    ``Unverifiable``, and the SDK answers 500: a 401 would send every client to log in again. A server
    without ``auth`` behind the middleware of ``broker.client.asgi`` takes bound tokens, and answers 503.
    """

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier

    async def verify_token(self, token: str) -> AccessToken | None:
        """What the token says, or ``None`` when it is not good here."""
        members = await verified_members(self._verifier, token)
        return None if members is None else VerifiedAccessToken(**members)


class Protection(TypedDict):
    """The arguments of ``MCPServer`` that have to do with tokens."""

    token_verifier: BrokerTokenVerifier
    auth: AuthSettings


def protected(verifier: TokenVerifier) -> Protection:
    """All that an ``MCPServer`` needs: ``MCPServer("tickets", **protected(verifier))``."""
    return Protection(token_verifier=BrokerTokenVerifier(verifier), auth=auth_settings(verifier))


def auth_settings(verifier: TokenVerifier) -> AuthSettings:
    """The settings by which the SDK serves the metadata of the resource, and has tokens for it alone."""
    return AuthSettings(
        issuer_url=AnyHttpUrl(verifier.issuer),
        resource_server_url=AnyHttpUrl(verifier.resource),
        required_scopes=sorted(verifier.required_scopes),
        validate_token_resource=True,
    )


def user_of(verified: Delegation) -> AuthenticatedUser:
    """Whom the SDK takes a request to come from; by that it keeps sessions apart."""
    return AuthenticatedUser(VerifiedAccessToken(**members_of(verified)))


def delegation() -> Delegation:
    """What was verified of the request in progress, here or by ASGI middleware; raises ``NoSubjectToken``."""
    token = get_access_token()
    return token.delegation if isinstance(token, VerifiedAccessToken) else in_progress.delegation()


def tell_refusals(tool: Callable[_P, _R]) -> Callable[_P, _R]:
    """
    A tool whose refusals the model can read, and act upon: those of the broker, and its own.

    Put it below ``@server.tool()``. Of other failures the SDK tells the model nothing but that there was one.
    """
    if inspect.iscoroutinefunction(tool):

        @wraps(tool)
        async def asynchronous(*arguments: _P.args, **named: _P.kwargs) -> Any:
            with _told():
                return await tool(*arguments, **named)

        return cast("Callable[_P, _R]", asynchronous)

    @wraps(tool)
    def synchronous(*arguments: _P.args, **named: _P.kwargs) -> _R:
        with _told():
            return tool(*arguments, **named)

    return synchronous


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (BrokerError, NotServed) as refused:
        raise ToolError(str(refused)) from refused
