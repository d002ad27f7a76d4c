"""The endpoints that both faces serve, together."""

from dataclasses import dataclass, field

from broker.endpoints.discovery import DiscoveryEndpoint
from broker.endpoints.explain import ExplainEndpoint
from broker.endpoints.introspection import IntrospectionEndpoint
from broker.endpoints.limits import Limits, no_limits
from broker.endpoints.revocation import RevocationEndpoint
from broker.endpoints.token import TokenEndpoint
from broker.endpoints.withdrawal import WithdrawalEndpoint


@dataclass(frozen=True, slots=True)
class Endpoints:
    """
    What a face translates for; it calls these and decides nothing itself.

    Whoever wants something that needs a proof enters through ``limits`` first.
    """

    token: TokenEndpoint
    introspection: IntrospectionEndpoint
    revocation: RevocationEndpoint
    withdrawal: WithdrawalEndpoint
    discovery: DiscoveryEndpoint
    explain: ExplainEndpoint
    limits: Limits = field(default_factory=no_limits)
