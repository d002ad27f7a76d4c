"""Where the agents keep their tokens: in memory, for as long as they run."""

from mcp.client.auth import TokenStorage
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken


class InMemory(TokenStorage):
    """What the SDK asks an application to keep."""

    def __init__(self) -> None:
        self._tokens: OAuthToken | None = None
        self._client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        """The token there is."""
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keep a token."""
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """What the SDK knows of the client."""
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Keep what the SDK knows of the client."""
        self._client = client_info
