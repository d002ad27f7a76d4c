"""The cast of the attack catalogue: issuers, clients and resources, and good requests to mutate."""

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from typing import Any

from broker.model import (
    Client,
    ClientDocumentTerms,
    KeySource,
    Purpose,
    Resource,
    ResourceAuthorizationServer,
    Scope,
    SecretHash,
    TrustedIssuer,
    WorkloadRule,
)
from broker.oauth import (
    AUTH_PRIVATE_KEY_JWT,
    AUTH_SECRET_BASIC,
    AUTH_SECRET_POST,
    CLIENT_ASSERTION_JWT_BEARER,
    CLIENT_ASSERTION_JWT_SPIFFE,
    GRANT_CLIENT_CREDENTIALS,
    GRANT_JWT_BEARER,
    GRANT_TOKEN_EXCHANGE,
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_JAG,
    TOKEN_TYPE_ID_TOKEN,
    TYP_ACCESS_TOKEN,
    TYP_ID_JAG,
)
from tests.idp import signer

ISS = "https://sts.test"
IDP_A = "https://idp-a.test"
IDP_B = "https://idp-b.test"
IDP_OFF = "https://idp-off.test"
TRUST_DOMAIN = "spiffe://td.test"
RAS = "https://ras.test"
WIKI = "https://wiki.test/mcp"
RES_1 = "https://mcp1.test/mcp"
RES_2 = "https://mcp2.test/mcp"
API = "https://api.test/v1"
DEEP = "https://deep.test/v1"
CLOSED = "https://closed.test/v1"
OFF = "https://off.test/v1"
MCP_CLAIM = ISS + "/claims/mcp"

ALL_GRANTS = frozenset({GRANT_TOKEN_EXCHANGE, GRANT_CLIENT_CREDENTIALS, GRANT_JWT_BEARER})
AGENTS = frozenset({"agents"})
SERVERS = frozenset({"servers"})

NOW = 1_795_262_400
"""The moment that the clock of every test stands at: 2026-11-21T12:00:00Z."""

WEB_SECRET = "bks_" + "S" * 43
WEB_SECRET_HASH = "sha256:" + hashlib.sha256(WEB_SECRET.encode()).hexdigest()


def _scopes(*names: str, **derived: tuple[str, ...]) -> Mapping[str, Scope]:
    plain = {name: Scope(name, frozenset({name})) for name in names}
    return plain | {name: Scope(name, frozenset(sources)) for name, sources in derived.items()}


def jwt_client(client_id: str, **changes: Any) -> Client:
    """A client that authenticates with its own key, whose id is the client's id."""
    client = Client(
        client_id,
        frozenset({AUTH_PRIVATE_KEY_JWT}),
        ALL_GRANTS,
        keys=KeySource(jwks=signer(client_id).jwks),
    )
    return replace(client, **changes)


@cache
def _clients() -> tuple[Client, ...]:
    return (
        jwt_client("agent-x", profile="ai_agent", groups=AGENTS),
        jwt_client("agent-n", profile="ai_agent", groups=AGENTS),
        jwt_client("agent-s", profile="ai_agent"),
        jwt_client("impersonator"),
        jwt_client("mcp1-srv", groups=SERVERS),
        jwt_client("mcp2-srv", groups=SERVERS),
        jwt_client("mcp-t1", groups=SERVERS, tenant="t1"),
        jwt_client("off-srv", groups=SERVERS, is_disabled=True),
        jwt_client("picky-srv", groups=SERVERS, issuers=frozenset({IDP_A})),
        jwt_client("rsa-srv", keys=KeySource(jwks=signer("rsa-srv", "RS256").jwks)),
        jwt_client("auditor", is_explainer=True),
        jwt_client("operator", grants=frozenset(), is_administrator=True),
        jwt_client("gateway", grants=frozenset(), introspects=frozenset({RES_1})),
        jwt_client("no-grants", grants=frozenset()),
        Client(
            "web-s",
            frozenset({AUTH_SECRET_BASIC, AUTH_SECRET_POST}),
            ALL_GRANTS,
            secrets=(SecretHash(WEB_SECRET_HASH),),
            groups=SERVERS,
        ),
        Client("worker", frozenset(), frozenset({GRANT_JWT_BEARER}), groups=AGENTS),
        Client("svid-agent", frozenset(), ALL_GRANTS, groups=AGENTS),
    )


def _cluster() -> TrustedIssuer:
    """IDP-B is what gives the workloads of a cluster their tokens."""
    worker = WorkloadRule(
        "worker", {"sub": "system:serviceaccount:prod:worker", "/kubernetes.io/namespace": "prod"}
    )
    return TrustedIssuer(
        IDP_B,
        frozenset({Purpose.WORKLOAD}),
        frozenset({"RS256"}),
        KeySource(jwks=signer("b1", "RS256").jwks),
        workloads=(worker,),
    )


def _trust_domain() -> TrustedIssuer:
    """A SPIFFE trust domain with its bundle: a key of certificates, and one of JWT-SVIDs."""
    certificates = {**signer("x509").jwk, "use": "x509-svid"}
    bundle = {"keys": [certificates, {**signer("svid").jwk, "use": "jwt-svid"}]}
    return TrustedIssuer(
        TRUST_DOMAIN,
        frozenset({Purpose.WORKLOAD}),
        frozenset({"ES256"}),
        KeySource(jwks=bundle, is_spiffe_bundle=True),
        workloads=(WorkloadRule("svid-agent", {"sub": f"{TRUST_DOMAIN}/agent"}),),
    )


@cache
def _issuers() -> tuple[TrustedIssuer, ...]:
    a = signer("a1")
    user = frozenset({Purpose.USER, Purpose.ACCESS_TOKEN, Purpose.ID_JAG})
    es256 = frozenset({"ES256"})
    return (
        TrustedIssuer(IDP_A, user, es256, KeySource(jwks=a.jwks)),
        _cluster(),
        _trust_domain(),
        TrustedIssuer(IDP_OFF, user, es256, KeySource(jwks=signer("o1").jwks), is_disabled=True),
        TrustedIssuer(
            "https://idp-t2.test",
            user,
            es256,
            KeySource(jwks=signer("t2").jwks),
            subject_prefix="t2|",
            tenant="t2",
        ),
    )


@cache
def _resources() -> tuple[Resource, ...]:
    inbound = _scopes("a:read", "b:read", "b:admin")
    return (
        Resource(RES_1, inbound, owner="mcp1-srv", audiences=frozenset({"mcp-one"})),
        Resource(RES_2, inbound, owner="mcp2-srv"),
        Resource(
            API,
            _scopes("a:read", "b:read", "b:admin", **{"b:write": ("b:read",)}),
            audiences=frozenset({"the-api"}),
        ),
        Resource("https://web.test/mcp", inbound, owner="web-s"),
        Resource("https://picky.test/mcp", inbound, owner="picky-srv"),
        Resource("https://t1.test/mcp", inbound, owner="mcp-t1"),
        Resource(CLOSED, inbound),
        Resource(OFF, inbound, is_disabled=True),
    )


@cache
def _authorization_servers() -> tuple[ResourceAuthorizationServer, ...]:
    wiki = Resource(WIKI, _scopes("pages.read", "pages.write"), authorization_server=RAS)
    return (ResourceAuthorizationServer(RAS, {"agent-x": "agent-x-at-ras"}, (wiki,)),)


@dataclass(frozen=True)
class Cast:
    """
    Everything registered in the world; a test replaces what it needs to be otherwise.

    Whoever is in it by default is made once and never changes.
    """

    clients: tuple[Client, ...] = field(default_factory=_clients)
    issuers: tuple[TrustedIssuer, ...] = field(default_factory=_issuers)
    authorization_servers: tuple[ResourceAuthorizationServer, ...] = field(
        default_factory=_authorization_servers
    )
    resources: tuple[Resource, ...] = field(default_factory=_resources)
    disabled_subjects: frozenset[str] = frozenset()
    client_documents: ClientDocumentTerms | None = None
    lifetime: timedelta = timedelta(minutes=5)
    machine_lifetime: timedelta = timedelta(minutes=5)
    id_jag_lifetime: timedelta = timedelta(minutes=5)
    max_token_bytes: int = 8192
    default_resource: str | None = None

    def with_client(self, client: Client) -> "Cast":
        """The same with one client added or replaced."""
        others = tuple(one for one in self.clients if one.client_id != client.client_id)
        return replace(self, clients=(*others, client))

    def with_issuer(self, issuer: TrustedIssuer) -> "Cast":
        """The same with one issuer added or replaced."""
        others = tuple(one for one in self.issuers if one.issuer != issuer.issuer)
        return replace(self, issuers=(*others, issuer))

    def with_server(self, server: ResourceAuthorizationServer) -> "Cast":
        """The same with one authorization server added or replaced."""
        others = tuple(one for one in self.authorization_servers if one.issuer != server.issuer)
        return replace(self, authorization_servers=(*others, server))

    def with_resource(self, resource: Resource) -> "Cast":
        """The same with one resource added or replaced."""
        others = tuple(one for one in self.resources if one.resource != resource.resource)
        return replace(self, resources=(*others, resource))

    def client(self, client_id: str) -> Client:
        """The client of that id."""
        return next(one for one in self.clients if one.client_id == client_id)

    def issuer(self, issuer: str) -> TrustedIssuer:
        """The issuer of that name."""
        return next(one for one in self.issuers if one.issuer == issuer)

    def server(self, issuer: str) -> ResourceAuthorizationServer:
        """The authorization server of that issuer."""
        return next(one for one in self.authorization_servers if one.issuer == issuer)

    def resource(self, resource: str) -> Resource:
        """The resource of that name."""
        return next(one for one in self.resources if one.resource == resource)


def deep_cast() -> Cast:
    """A cast in which the API is a server too, behind which something lies deeper."""
    behind = Resource(DEEP, _scopes("a:read", "b:read"))
    api = replace(Cast().resource(API), owner="mcp2-srv")
    return Cast().with_resource(api).with_resource(behind)


_serial = itertools.count(1)


def fresh_jti() -> str:
    """An id that no other token of this test run has."""
    return f"jti-{next(_serial)}"


def good_assertion_claims(client_id: str, **changes: Any) -> dict[str, Any]:
    """The claims of a good client assertion; a claim given as ``None`` is left out."""
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": ISS,
        "iat": NOW,
        "exp": NOW + 60,
        "jti": fresh_jti(),
        **changes,
    }
    return without_none(claims)


def good_assertion(client_id: str, **changes: Any) -> str:
    """A good client assertion."""
    return signer(client_id).sign(good_assertion_claims(client_id, **changes))


def good_access_token_claims(**changes: Any) -> dict[str, Any]:
    """The claims of GOOD-AT as a foreign issuer would make them for RES-1."""
    claims = {
        "iss": IDP_A,
        "sub": "u1",
        "aud": RES_1,
        "client_id": "agent-x",
        "scope": "a:read b:read",
        "iat": NOW,
        "exp": NOW + 300,
        "jti": fresh_jti(),
        **changes,
    }
    return without_none(claims)


def good_access_token(**changes: Any) -> str:
    """An access token of IDP-A for RES-1."""
    return signer("a1").sign(good_access_token_claims(**changes), typ=TYP_ACCESS_TOKEN)


def good_id_token_claims(**changes: Any) -> dict[str, Any]:
    """The claims of GOOD-IDT."""
    claims = {
        "iss": IDP_A,
        "sub": "u1",
        "aud": "agent-x",
        "iat": NOW,
        "exp": NOW + 300,
        "auth_time": NOW - 60,
        "acr": "phr",
        "amr": ["hwk"],
        **changes,
    }
    return without_none(claims)


def good_id_token(**changes: Any) -> str:
    """An ID token of IDP-A for agent-x."""
    return signer("a1").sign(good_id_token_claims(**changes))


def without_none(members: Mapping[str, Any]) -> dict[str, Any]:
    """The members that are not ``None``."""
    return {name: value for name, value in members.items() if value is not None}


Parameters = dict[str, str | list[str]]


def exchange_parameters(subject_token: str, /, **changes: str | list[str] | None) -> Parameters:
    """The parameters of GOOD-TX without the client's: RES-1's server wants ``b:read`` at the API."""
    parameters = {
        "grant_type": GRANT_TOKEN_EXCHANGE,
        "subject_token": subject_token,
        "subject_token_type": TOKEN_TYPE_ACCESS_TOKEN,
        "resource": API,
        "scope": "b:read",
        **changes,
    }
    return {name: value for name, value in parameters.items() if value is not None}


def by_assertion(client_id: str, **changes: Any) -> Parameters:
    """The parameters that authenticate a client by a fresh assertion."""
    return {
        "client_assertion_type": CLIENT_ASSERTION_JWT_BEARER,
        "client_assertion": good_assertion(client_id, **changes),
    }


def client_parameters(
    client_id: str = "agent-x", /, **changes: str | list[str] | None
) -> Parameters:
    """The parameters of GOOD-CC: an agent wants a token for itself."""
    parameters = {
        "grant_type": GRANT_CLIENT_CREDENTIALS,
        "resource": RES_1,
        "scope": "a:read",
        **by_assertion(client_id),
        **changes,
    }
    return {name: value for name, value in parameters.items() if value is not None}


def assertion_request(**changes: str | list[str] | None) -> Parameters:
    """The parameters of GOOD-JREQ: an agent wants its user's ID-JAG for the wiki's server."""
    parameters = {
        "grant_type": GRANT_TOKEN_EXCHANGE,
        "requested_token_type": TOKEN_TYPE_ID_JAG,
        "subject_token": good_id_token(),
        "subject_token_type": TOKEN_TYPE_ID_TOKEN,
        "audience": RAS,
        "resource": WIKI,
        "scope": "pages.read",
        **by_assertion("agent-x"),
        **changes,
    }
    return {name: value for name, value in parameters.items() if value is not None}


def good_id_jag_claims(**changes: Any) -> dict[str, Any]:
    """The claims of GOOD-JAG: IDP-A asserts its user to agent-x, for RES-1 here."""
    claims = {
        "iss": IDP_A,
        "sub": "u1",
        "aud": ISS,
        "client_id": "agent-x",
        "resource": RES_1,
        "scope": "a:read b:read",
        "iat": NOW,
        "exp": NOW + 300,
        "jti": fresh_jti(),
        "auth_time": NOW - 60,
        "acr": "phr",
        **changes,
    }
    return without_none(claims)


def good_id_jag(**changes: Any) -> str:
    """An ID-JAG of IDP-A that agent-x may redeem here."""
    return signer("a1").sign(good_id_jag_claims(**changes), typ=TYP_ID_JAG)


def redeem_parameters(assertion: str = "", /, **changes: str | list[str] | None) -> Parameters:
    """The parameters that redeem GOOD-JAG, or another assertion."""
    parameters = {
        "grant_type": GRANT_JWT_BEARER,
        "assertion": assertion or good_id_jag(),
        **by_assertion("agent-x"),
        **changes,
    }
    return {name: value for name, value in parameters.items() if value is not None}


def good_workload_claims(**changes: Any) -> dict[str, Any]:
    """The claims of GOOD-WL: IDP-B says of a process that it is a worker, as a cluster would."""
    claims = {
        "iss": IDP_B,
        "sub": "system:serviceaccount:prod:worker",
        "aud": [ISS],
        "iat": NOW,
        "nbf": changes.get("iat", NOW),
        "exp": NOW + 600,
        "jti": fresh_jti(),
        "kubernetes.io": {
            "namespace": "prod",
            "pod": {"name": "worker-5d9c", "uid": "6a3a1d0e-1f5a-4e36-9d3e-0b5a0f6d2c11"},
            "serviceaccount": {"name": "worker", "uid": "0d5f1c0b-62a1-4b53-8f2f-6f0f8ad7e3b2"},
        },
        **changes,
    }
    return without_none(claims)


def good_workload_token(**changes: Any) -> str:
    """The token of a worker in the cluster."""
    return signer("b1", "RS256").sign(good_workload_claims(**changes), typ=None)


def workload_parameters(assertion: str = "", /, **changes: str | list[str] | None) -> Parameters:
    """The parameters of a workload that has nothing but its token, or another assertion."""
    parameters = {
        "grant_type": GRANT_JWT_BEARER,
        "assertion": assertion or good_workload_token(),
        "resource": RES_1,
        "scope": "a:read",
        **changes,
    }
    return {name: value for name, value in parameters.items() if value is not None}


def good_svid_claims(**changes: Any) -> dict[str, Any]:
    """The claims of a JWT-SVID of the trust domain's agent: no issuer, no id."""
    claims = {
        "sub": f"{TRUST_DOMAIN}/agent",
        "aud": [ISS],
        "iat": NOW,
        "exp": NOW + 300,
        **changes,
    }
    return without_none(claims)


def by_svid(**changes: Any) -> Parameters:
    """The parameters that authenticate the trust domain's agent by its JWT-SVID."""
    return {
        "client_assertion_type": CLIENT_ASSERTION_JWT_SPIFFE,
        "client_assertion": signer("svid").sign(good_svid_claims(**changes)),
    }
