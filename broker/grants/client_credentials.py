"""Client credentials (RFC 6749 4.4): a client asks for a token for itself."""

from dataclasses import dataclass
from typing import ClassVar

from broker.errors import InvalidRequest, OAuthError
from broker.grants._grant import GrantTools
from broker.grants._own import act_for_itself
from broker.model import AuthenticatedClient, Delegation, TokenRequest
from broker.oauth import GRANT_CLIENT_CREDENTIALS


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """
    Gives an agent a machine token, as the MCP extension OAuth Client Credentials has it.

    The client is the subject too, so the token names no actor.
    """

    grant_type: ClassVar[str] = GRANT_CLIENT_CREDENTIALS
    parameters: ClassVar[frozenset[str]] = frozenset({"resource", "audience", "scope"})
    refusal: ClassVar[type[OAuthError]] = InvalidRequest

    tools: GrantTools

    def prove(self, _request: TokenRequest, authenticated: AuthenticatedClient) -> Delegation:
        """That the client is itself; there is nothing else to prove."""
        return act_for_itself(self.tools, authenticated)
