"""FastMCP (4.x): verification, tokens for what tools call, and refusals that the model can read."""

from typing import Any, cast

from fastmcp.dependencies import Dependency
from fastmcp.exceptions import AuthorizationError, FastMCPError
from fastmcp.server.auth import AccessToken, RemoteAuthProvider
from fastmcp.server.auth import TokenVerifier as FastMCPTokenVerifier
from fastmcp.server.dependencies import get_access_token
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from pydantic import AnyHttpUrl, Field, InstanceOf

from broker.client import in_progress
from broker.client._access_token import verified_members
from broker.client.broker import Broker
from broker.client.current import subject_token
from broker.client.delegation import Delegation
from broker.client.failures import BrokerError
from broker.client.refusals import NotServed
from broker.client.resource import ResourceMetadata, origin_of
from broker.client.verify import TokenVerifier

__all__ = ["BrokerAuthProvider", "DownstreamToken", "TellRefusals", "delegation"]


class VerifiedAccessToken(AccessToken):
    """FastMCP's access token, together with what was verified of it."""

    delegation: InstanceOf[Delegation] = Field(exclude=True, repr=False)


class _Verifier(FastMCPTokenVerifier):
    def __init__(self, verifier: TokenVerifier) -> None:
        super().__init__(required_scopes=sorted(verifier.required_scopes))
        self._verifier = verifier

    async def verify_token(self, token: str) -> AccessToken | None:
        members = await verified_members(self._verifier, token)
        return None if members is None else VerifiedAccessToken(**members)


class BrokerAuthProvider(RemoteAuthProvider):
    """
    The ``auth`` of a FastMCP server: it verifies tokens, and serves the metadata of the resource.

    The server must be at the verifier's resource, which ``base_url`` and the path that it is served at make
    up; ``base_url`` is the resource's origin if not told. Raises ``ValueError`` for a server elsewhere.
    """

    def __init__(
        self,
        verifier: TokenVerifier,
        *,
        metadata: ResourceMetadata | None = None,
        base_url: str | None = None,
    ) -> None:
        told = metadata or verifier.metadata()
        page = None if told.documentation is None else AnyHttpUrl(told.documentation)
        super().__init__(
            _Verifier(verifier),
            [AnyHttpUrl(server) for server in told.authorization_servers],
            base_url or origin_of(verifier.resource),
            scopes_supported=list(told.scopes),
            resource_name=told.name,
            resource_documentation=page,
        )
        self._resource = verifier.resource

    def set_mcp_path(self, mcp_path: str | None) -> None:
        super().set_mcp_path(mcp_path)
        served_at = str(self._resource_url).rstrip("/")
        if served_at != self._resource.rstrip("/"):
            raise ValueError(
                f"The server is at {served_at}, and its tokens are for {self._resource}."
            )


def DownstreamToken(broker: Broker, resource: str, *scopes: str) -> str:  # noqa: N802 - FastMCP names dependencies so.
    """
    The default of a tool's parameter that is to be a token for the resource, in the caller's name.

    The model never sees the parameter. A refusal reaches it as the broker's own sentence.
    """
    return cast(str, _DownstreamToken(broker, resource, scopes))


class _DownstreamToken(Dependency[str]):
    def __init__(self, broker: Broker, resource: str, scopes: tuple[str, ...]) -> None:
        self._broker = broker
        self._resource = resource
        self._scopes = scopes

    async def __aenter__(self) -> str:
        try:
            token = await self._broker.token_for(
                subject_token(), resource=self._resource, scopes=self._scopes
            )
        except BrokerError as failure:
            # Of any other exception FastMCP tells no more than that a dependency failed.
            raise AuthorizationError(str(failure)) from failure
        return token.access_token


class TellRefusals(Middleware):
    """
    Has the model read why something was refused, by the broker or by ``delegation().require_scopes``.

    It does so for tools and resources, even where FastMCP masks the details of errors. Those of prompts
    FastMCP never masks.
    """

    async def on_call_tool(
        self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]
    ) -> Any:
        return await _telling(call_next, context)

    async def on_read_resource(
        self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]
    ) -> Any:
        return await _telling(call_next, context)


async def _telling(call_next: CallNext[Any, Any], context: MiddlewareContext[Any]) -> Any:
    try:
        return await call_next(context)
    except FastMCPError as error:
        cause = error.__cause__
        if isinstance(cause, BrokerError | NotServed):
            raise type(error)(str(cause)) from cause
        raise


def delegation() -> Delegation:
    """What was verified of the request in progress, here or by ASGI middleware; raises ``NoSubjectToken``."""
    token = get_access_token()
    return token.delegation if isinstance(token, VerifiedAccessToken) else in_progress.delegation()
