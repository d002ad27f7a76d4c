"""An access token as the MCP SDKs describe one, which agree on its members."""

from typing import Any

from broker.client.delegation import Delegation
from broker.client.refusals import NotServed, Unverifiable
from broker.client.verify import TokenVerifier


async def verified_members(verifier: TokenVerifier, token: str) -> dict[str, Any] | None:
    """
    The members of an ``AccessToken`` for a token that is good here, its ``delegation`` included.

    They are ``None`` for one that is not. Raises ``Unverifiable`` while that cannot be known.
    """
    try:
        # The SDKs ask for the required scopes themselves, since a token that lacks them is a 403.
        found = await verifier.verify(token, scopes=())
    except Unverifiable:
        raise
    except NotServed:
        return None
    return members_of(found)


def members_of(found: Delegation) -> dict[str, Any]:
    """The members of an ``AccessToken`` for what was verified."""
    return {
        "token": found.token,
        "client_id": found.client_id,
        "scopes": sorted(found.scopes),
        "expires_at": found.expires_at,
        "resource": found.resource,
        "subject": found.subject,
        "claims": dict(found.claims),
        "delegation": found,
    }
