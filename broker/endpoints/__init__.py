"""The endpoints that both faces serve, together."""

from dataclasses import dataclass

from broker.endpoints.discovery import DiscoveryEndpoint
from broker.endpoints.explain import ExplainEndpoint
from broker.endpoints.token import TokenEndpoint


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What a face translates for; it calls these and decides nothing itself."""

    token: TokenEndpoint
    discovery: DiscoveryEndpoint
    explain: ExplainEndpoint
