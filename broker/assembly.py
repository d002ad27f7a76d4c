"""The core put together: adapters in, endpoints out, by plain constructor calls."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from broker.client_auth import ClientAuthenticator, ProofVerifier, SecretVerifier
from broker.client_auth.assertion import AssertionVerifier
from broker.client_auth.known_clients import KnownClients
from broker.client_auth.workload import WorkloadVerifier
from broker.endpoints import Endpoints
from broker.endpoints.decision import Gate
from broker.endpoints.discovery import DiscoveryEndpoint, token_endpoint_of
from broker.endpoints.explain import ExplainEndpoint
from broker.endpoints.inquiry import Callers
from broker.endpoints.introspection import IntrospectionEndpoint
from broker.endpoints.issuing import Issuing
from broker.endpoints.limits import ChargingAuditLog, Limits, no_limits
from broker.endpoints.revocation import RevocationEndpoint
from broker.endpoints.token import TokenEndpoint
from broker.endpoints.watching import WatchEndpoint
from broker.endpoints.withdrawal import WithdrawalEndpoint
from broker.grants import GRANTS, GrantTools
from broker.interfaces import (
    AuditLog,
    ClientDocuments,
    KeyRing,
    KeyStore,
    Now,
    PolicyEngine,
    Registry,
    ReplayGuard,
    RevocationList,
)
from broker.tokens.minter import Lifetimes, Minter
from broker.tokens.own_keys import OwnKeys
from broker.tokens.pseudonyms import Pseudonyms
from broker.tokens.standing import Standing
from broker.tokens.verifier import TokenVerifier


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What an operator decides about tokens; the names are those of the settings."""

    issuer: str
    mcp_claim: str
    algorithm: str = "ES256"
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    leeway: timedelta = timedelta(seconds=30)
    max_actors: int = 5
    max_token_bytes: int = 8192
    jwks_max_age: timedelta = timedelta(minutes=5)
    default_resource: str | None = None
    pairwise_key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class CallerParts:
    """The adapters that it takes to know who is asking, and to keep a record of it."""

    registry: Registry
    key_ring: KeyRing
    client_documents: ClientDocuments
    replay: ReplayGuard
    audit: AuditLog
    now: Now
    most_chosen_secrets: Callable[[], int]
    limits: Limits = field(default_factory=no_limits, kw_only=True)


@dataclass(frozen=True, slots=True)
class Parts(CallerParts):
    """The adapters that the core works with, one for each seam."""

    key_store: KeyStore
    policy: PolicyEngine
    revocations: RevocationList


def assemble(rules: TokenRules, parts: Parts) -> Endpoints:
    """The endpoints of one broker, as both faces serve them."""
    discovery = DiscoveryEndpoint(
        rules.issuer,
        parts.registry,
        parts.key_store,
        tuple(GRANTS),
        rules.jwks_max_age,
    )
    audit = ChargingAuditLog(parts.audit, parts.limits, parts.replay)
    callers = _callers(rules.issuer, parts, leeway=rules.leeway)
    standing = Standing(rules.issuer, parts.registry, parts.revocations, rules.mcp_claim)
    tools = GrantTools(
        issuer=rules.issuer,
        registry=parts.registry,
        tokens=TokenVerifier(
            rules.issuer,
            parts.registry,
            parts.key_ring,
            OwnKeys(parts.key_store),
            standing,
            parts.now,
            rules.leeway,
        ),
        assertions=callers.authenticator.assertions,
        mcp_claim=rules.mcp_claim,
        max_actors=rules.max_actors,
        leeway=rules.leeway,
        pseudonyms=None if rules.pairwise_key is None else Pseudonyms(rules.pairwise_key),
    )
    issuing = Issuing(
        registry=parts.registry,
        authenticator=callers.authenticator,
        proofs=ProofVerifier(parts.now, rules.leeway),
        grants={grant_type: grant(tools) for grant_type, grant in GRANTS.items()},
        gate=Gate(parts.policy, parts.now),
        minter=_minter(rules, parts),
        default_resource=rules.default_resource,
        limits=parts.limits,
    )
    return Endpoints(
        token=TokenEndpoint(issuing, parts.replay, audit),
        introspection=IntrospectionEndpoint(callers, parts.registry, tools.tokens, audit),
        revocation=RevocationEndpoint(callers, tools.tokens, parts.revocations, audit),
        withdrawal=WithdrawalEndpoint(
            callers,
            parts.registry,
            parts.revocations,
            audit,
            parts.now,
            rules.leeway,
        ),
        discovery=discovery,
        explain=ExplainEndpoint(issuing, parts.policy, parts.replay, audit),
        limits=parts.limits,
    )


def assemble_watch(issuer: str, parts: CallerParts, *, leeway: timedelta) -> WatchEndpoint:
    """The endpoint of a process that tells what is withdrawn, and can issue nothing."""
    return WatchEndpoint(
        _callers(issuer, parts, leeway=leeway),
        registry=parts.registry,
        audit=ChargingAuditLog(parts.audit, parts.limits, parts.replay),
    )


def _callers(issuer: str, parts: CallerParts, *, leeway: timedelta) -> Callers:
    clients = KnownClients(parts.registry, parts.key_ring, parts.client_documents)
    endpoint = token_endpoint_of(issuer)
    authenticator = ClientAuthenticator(
        clients,
        AssertionVerifier(issuer, endpoint, clients, parts.now, leeway),
        SecretVerifier(most_chosen=parts.most_chosen_secrets, now=parts.now),
        WorkloadVerifier(issuer, endpoint, parts.registry, parts.key_ring, parts.now, leeway),
    )
    return Callers(authenticator, parts.replay, parts.limits)


def _minter(rules: TokenRules, parts: Parts) -> Minter:
    return Minter(
        issuer=rules.issuer,
        key_store=parts.key_store,
        now=parts.now,
        lifetimes=rules.lifetimes,
        algorithm=rules.algorithm,
        mcp_claim=rules.mcp_claim,
        max_token_bytes=rules.max_token_bytes,
    )
