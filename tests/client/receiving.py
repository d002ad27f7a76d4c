"""A resource that receives tokens: the tokens, and both verifiers behind one way of asking."""

import asyncio
import base64
import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

from broker.client.verify import (
    Delegation,
    Login,
    Person,
    Proof,
    SyncTokenVerifier,
    TokenVerifier,
)
from broker.oauth import TYP_ACCESS_TOKEN
from tests.client.key_server import KeyServer
from tests.idp import Signer, signer
from tests.proofs import HOLDER, good_proof_claims, signed_proof, thumbprint
from tests.world import without_none

NOW = 1_795_262_400
RESOURCE = "https://tickets.mcp.example/mcp"
BROKER_KEY = signer("broker-at")
STRANGER = signer("stranger")
KINDS = ("async", "sync")


class Receiver(Protocol):
    """Verifies a token."""

    def verify(
        self, token: str, *, proof: Proof | None = None, scopes: tuple[str, ...] | None = None
    ) -> Delegation: ...


@dataclass(frozen=True)
class InAnEventLoop:
    """The verifier of event loops, for tests that have none."""

    verifier: TokenVerifier

    def verify(
        self, token: str, *, proof: Proof | None = None, scopes: tuple[str, ...] | None = None
    ) -> Delegation:
        return asyncio.run(self.verifier.verify(token, proof=proof, scopes=scopes))


def receiver(kind: str, server: KeyServer, /, **settings: Any) -> Receiver:
    """A verifier for the resource, async or sync, whose clock stands still."""
    settings = {"clock": lambda: NOW, **settings}
    issuer, resource = settings.pop("issuer", server.issuer), settings.pop("resource", RESOURCE)
    if kind == "sync":
        return SyncTokenVerifier(issuer, resource, **settings)
    return InAnEventLoop(TokenVerifier(issuer, resource, **settings))


def good_claims(issuer: str, /, **changes: Any) -> dict[str, Any]:
    """The claims of a good token; a claim given as ``None`` is left out."""
    claims = {
        "iss": issuer,
        "sub": "ann",
        "aud": RESOURCE,
        "client_id": "mcp-desk",
        "act": {
            "iss": issuer,
            "sub": "mcp-desk",
            "act": {"iss": issuer, "sub": "agent", "sub_profile": "ai_agent"},
        },
        f"{issuer}/claims/mcp": {
            "client": "agent",
            "server": "https://desk.mcp.example/mcp",
            "resource": RESOURCE,
            "subject_issuer": "https://idp.example",
            "tenant": "acme",
        },
        "scope": "tickets:read tickets:comment",
        "auth_time": NOW - 600,
        "acr": "phr",
        "amr": ["hwk", "user"],
        "iat": NOW - 10,
        "exp": NOW + 300,
        "jti": "T-1",
        **changes,
    }
    return without_none(claims)


def good_token(issuer: str, /, *, key: Signer = BROKER_KEY, **changes: Any) -> str:
    """A good token with changes to its claims."""
    return key.sign(good_claims(issuer, **changes), typ=TYP_ACCESS_TOKEN)


def about(issuer: str, statements: Any) -> dict[str, Any]:
    """A change to what the broker states about client and server."""
    return {f"{issuer}/claims/mcp": statements}


def bound(server: KeyServer) -> str:
    """A token that is bound to the holder's key."""
    return good_token(server.issuer, cnf={"jkt": thumbprint(HOLDER)})


def hash_of(token: str) -> str:
    """The ``ath`` of a token (RFC 9449 4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).decode().rstrip("=")


def claims_for(token: str, /, **changes: Any) -> dict[str, Any]:
    """The claims of a good proof for a token at the resource."""
    return good_proof_claims(RESOURCE, **{"ath": hash_of(token), **changes})


def proof_for(token: str, /, *, key: Signer = HOLDER, **changes: Any) -> str:
    """A good proof for a token at the resource, with changes to its claims."""
    return signed_proof(claims_for(token, **changes), key=key)


def a_delegation(**changes: Any) -> Delegation:
    """What a token for an API says, with changes."""
    members: dict[str, Any] = {
        "subject": "ann",
        "person": Person("ann", "https://idp.example"),
        "mcp_client": "agent",
        "mcp_server": "https://tickets.mcp.example/mcp",
        "resource": "https://api.crm.example/v2",
        "client_id": "mcp-tickets",
        "actors": (),
        "scopes": frozenset({"crm:read"}),
        "expires_at": NOW + 300,
        "login": Login("phr", ("hwk",), NOW - 600),
        "token_id": "T-1",
        "tenant": None,
        "key": None,
        "token": "the-token-itself",
        "claims": {},
        **changes,
    }
    return Delegation(**members)
