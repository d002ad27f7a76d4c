"""The JWT bearer grant (RFC 7523 2.1): redeems identity assertions, and admits workloads."""

from dataclasses import dataclass
from typing import ClassVar

from broker.errors import InvalidGrant, InvalidRequest, OAuthError, Reason
from broker.grants._grant import GrantTools
from broker.grants._own import act_for_itself
from broker.grants._redeemed import redeem
from broker.model import AuthenticatedClient, Delegation, TokenRequest
from broker.oauth import GRANT_JWT_BEARER


@dataclass(frozen=True, slots=True)
class JwtBearer:
    """
    Redeems an ID-JAG that another issuer made for a client of ours (ID-JAG 4.4).

    A caller without any client authentication may be a workload that presents its own token; then
    that token has authenticated it as a client already, and it gets a token for itself.
    """

    grant_type: ClassVar[str] = GRANT_JWT_BEARER
    parameters: ClassVar[frozenset[str]] = frozenset({"assertion", "resource", "audience", "scope"})
    refusal: ClassVar[type[OAuthError]] = InvalidGrant

    tools: GrantTools

    def prove(self, request: TokenRequest, authenticated: AuthenticatedClient) -> Delegation:
        """Whom the assertion is about, and that it was made for this client."""
        if authenticated.is_by_assertion:
            return act_for_itself(self.tools, authenticated)
        assertion = (request.assertion or "").strip()
        if not assertion:
            raise InvalidRequest(Reason.PARAM_MISSING, parameter="assertion")
        return redeem(self.tools, assertion, authenticated=authenticated)
