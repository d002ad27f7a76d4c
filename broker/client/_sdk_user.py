"""Whom the MCP SDK takes a request to come from, in its version 1 and 2 alike."""

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken

from broker.client._access_token import members_of
from broker.client.delegation import Delegation


def user_of(verified: Delegation) -> AuthenticatedUser:
    """The user of a request, by whom the SDK keeps sessions apart."""
    return AuthenticatedUser(AccessToken(**members_of(verified)))
