"""What a grant is, and the tools it may use: none of them can sign."""

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Protocol

from broker.client_auth.assertion import AssertionVerifier
from broker.errors import OAuthError
from broker.interfaces import Registry
from broker.model import AuthenticatedClient, Delegation, TokenRequest
from broker.tokens.pseudonyms import Pseudonyms
from broker.tokens.verifier import TokenVerifier


@dataclass(frozen=True, slots=True)
class GrantTools:
    """What a grant proves with."""

    issuer: str
    registry: Registry
    tokens: TokenVerifier
    assertions: AssertionVerifier
    mcp_claim: str
    max_actors: int
    leeway: timedelta
    pseudonyms: Pseudonyms | None = None


class Grant(Protocol):
    """
    A way of proving a delegation.

    A grant states its type, the parameters it takes besides those of the client, and the error that a
    bad token of its becomes; ``prove`` is all it does. Policy, one-time ids, minting and the audit
    record belong to the endpoint, so that no grant can forget them.
    """

    grant_type: ClassVar[str]
    parameters: ClassVar[frozenset[str]]
    refusal: ClassVar[type[OAuthError]]

    def __init__(self, tools: GrantTools) -> None: ...

    def prove(self, request: TokenRequest, authenticated: AuthenticatedClient) -> Delegation:
        """
        What the request's tokens prove.

        Raises ``TokenRejected``, which the endpoint turns into ``refusal``, or an ``OAuthError``.
        """
        ...
