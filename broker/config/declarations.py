"""What may stand in ``broker.yaml``: the clients, the resources and the trusted issuers."""

from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag

from broker.config.kinds import (
    Algorithm,
    ClientId,
    Duration,
    FileName,
    ForeignIssuer,
    HostName,
    Identifier,
    Moment,
    ResourceUri,
    Scope,
    SecretHashText,
    SubjectName,
    SubjectPrefix,
    Url,
    holding,
    lasting,
)
from broker.config.limit_sections import QuotaSection
from broker.config.section import Section
from broker.model import Purpose
from broker.oauth import GRANT_CLIENT_CREDENTIALS, GRANT_JWT_BEARER, GRANT_TOKEN_EXCHANGE

GRANTS: Final = {
    "token_exchange": GRANT_TOKEN_EXCHANGE,
    "client_credentials": GRANT_CLIENT_CREDENTIALS,
    "jwt_bearer": GRANT_JWT_BEARER,
}
"""The grant types by the names that the file uses for them."""

AuthMethod = Literal["client_secret_basic", "client_secret_post", "private_key_jwt"]
PurposeName = Literal["user", "workload", "access_token", "id_jag"]
GrantName = Literal["token_exchange", "client_credentials", "jwt_bearer"]


ClaimText = Annotated[str, Field(min_length=1, max_length=1024)]
AccountTable = Annotated[dict[str, SubjectName], holding(1, 100_000)]
Accounts = Annotated[
    Annotated[SubjectName, Tag("subject")] | Annotated[AccountTable, Tag("table")],
    Discriminator(lambda value: "table" if isinstance(value, dict) else "subject"),
]


class SecretEntry(Section):
    """A client secret, by its hash alone."""

    hash: SecretHashText = Field(description="What `broker client secret` prints.")
    expires_at: Moment | None = Field(default=None, description="When it stops working.")


class ClientAuthSection(Section):
    """How a client authenticates. A list in `methods`, or one in `method`."""

    method: AuthMethod | None = Field(default=None, description="The one method it may use.")
    methods: Annotated[list[AuthMethod], holding(1, 3)] | None = Field(
        default=None, description="The methods it may use."
    )
    secrets: Annotated[list[SecretEntry], holding(0, 4)] = Field(
        default=[], description="Its secrets; two while one replaces the other."
    )
    jwks: dict[str, Any] | None = Field(default=None, description="Its public keys (RFC 7517).")
    jwks_file: FileName | None = Field(default=None, description="A file with its public keys.")
    jwks_uri: Url | None = Field(default=None, description="Where it publishes its keys.")
    document: bool = Field(
        default=False,
        description="Its id is the https URL of its metadata document, in which its keys are.",
    )
    algorithms: Annotated[list[Algorithm], holding(1, 6)] = Field(
        default=["ES256", "RS256"], description="The algorithms of its assertions."
    )


class ClientEntry(Section):
    """An OAuth client: an agent, an MCP server, an operator's tool."""

    id: ClientId = Field(description="Its client id, compared byte for byte.")
    auth: ClientAuthSection = Field(
        default_factory=ClientAuthSection,
        description="How it authenticates. Left out for one that only a rule in some issuer's "
        "`workloads` speaks for.",
    )
    grants: Annotated[list[GrantName], holding(0, 3)] = Field(
        default=["token_exchange"], description="The grants it may use."
    )
    issuers: Annotated[list[str], holding(1, 256)] | None = Field(
        default=None, description="The issuers whose tokens it may present; all when not set."
    )
    issuer_client_ids: Annotated[dict[str, Identifier], holding(0, 256)] = Field(
        default={}, description="Its client id at other issuers, where that differs."
    )
    groups: Annotated[list[Identifier], holding(0, 64)] = Field(
        default=[], description="Groups that policies may speak of."
    )
    profile: Identifier = Field(default="service", description="Its `sub_profile` as an actor.")
    tenant: Identifier | None = Field(default=None, description="The tenant it belongs to.")
    accepts_token_endpoint_audience: bool = Field(
        default=False, description="Accept client assertions addressed to the token endpoint."
    )
    introspect: Annotated[list[ResourceUri], holding(0, 64)] = Field(
        default=[],
        description="Resources whose tokens it may introspect, besides those that it owns.",
    )
    dpop_bound_access_tokens: bool = Field(
        default=False, description="It gets tokens bound to a key of its own, or none (RFC 9449)."
    )
    max_assertion_lifetime: Annotated[
        Duration, lasting("10s", "1h", reason="a stolen assertion must soon be worthless")
    ] = Field(
        default=timedelta(minutes=5),
        description="The longest lifetime of its assertions; some libraries make them for an hour.",
    )
    limit: QuotaSection | None = Field(
        default=None, description="How often it may ask, in place of `limits.per_client`."
    )
    explain: bool = Field(
        default=False, description="It may ask why a request would be decided so."
    )
    administer: bool = Field(default=False, description="It may revoke what was issued for others.")
    read_audit: bool = Field(
        default=False, description="It may read the audit record over gRPC, at `listen.streams`."
    )
    disabled: bool = Field(default=False, description="It may do nothing any more.")


class ScopeSection(Section):
    """A scope of a resource."""

    from_: Annotated[list[Scope], holding(1, 64, reason="it could never be granted")] | None = (
        Field(
            default=None,
            alias="from",
            description="The inbound scopes it derives from; by default itself.",
        )
    )
    groups: Annotated[list[Identifier], holding(0, 64)] = Field(
        default=[], description="Groups that policies may speak of."
    )


class ResourceEntry(Section):
    """Something a token can be for: an API, or an MCP server towards its agents."""

    resource: ResourceUri = Field(description="Its URI, which becomes the token's audience.")
    owner: str | None = Field(
        default=None,
        description="The client that is this MCP server and receives tokens addressed to it.",
    )
    scopes: Annotated[dict[Scope, ScopeSection], holding(0, 100)] = Field(
        default={}, description="Its scopes."
    )
    audiences: Annotated[list[Identifier], holding(0, 16)] = Field(
        default=[], description="Logical names that requests may use for it."
    )
    signing_algorithm: Literal["ES256", "RS256"] | None = Field(
        default=None, description="The algorithm of its tokens; `keys.algorithm` when not set."
    )
    max_lifetime: (
        Annotated[
            Duration, lasting("10s", "10m", reason="a token that leaks must soon be worthless")
        ]
        | None
    ) = Field(default=None, description="The longest lifetime of its tokens.")
    tenant: Identifier | None = Field(default=None, description="The tenant it belongs to.")
    disabled: bool = Field(default=False, description="No token is issued for it any more.")


class WorkloadEntry(Section):
    """A rule that tells which workload is which client."""

    client: str = Field(description="The client that the workload is.")
    claims: Annotated[
        dict[str, ClaimText], holding(1, 16, reason="every workload would be this client")
    ] = Field(
        description="Claims of the workload's token that must be exactly so. A name that begins with "
        "`/` is a JSON pointer, such as `/kubernetes.io/namespace`."
    )


class ServerResourceEntry(Section):
    """A resource of another authorization server."""

    resource: ResourceUri = Field(description="Its URI, such as that of an MCP server.")
    scopes: Annotated[list[Scope], holding(0, 100)] = Field(default=[], description="Its scopes.")
    disabled: bool = Field(default=False, description="Nothing is issued for it any more.")


class AuthorizationServerEntry(Section):
    """Somebody else's authorization server that redeems our identity assertions."""

    issuer: Url = Field(description="Its issuer, which assertions for it are addressed to.")
    names: Annotated[list[Identifier], holding(0, 16)] = Field(
        default=[], description="Logical names that requests may use for it."
    )
    client_ids: Annotated[dict[str, Identifier], holding(0, 10_000)] = Field(
        default={}, description="By client here, the client's id there; others get no assertion."
    )
    resources: Annotated[list[ServerResourceEntry], holding(1, 100)] = Field(
        description="What it protects."
    )
    subject: Literal["same", "pairwise", "mapped"] = Field(
        default="same",
        description="What it is told as `sub`: the subject as minted here, a pseudonym for it alone "
        "(`tokens.pairwise_key_file`), or the one in `subjects`.",
    )
    subjects: Annotated[dict[SubjectName, SubjectName], holding(0, 100_000)] = Field(
        default={}, description="Its users by subject as minted here; others get no assertion."
    )
    email: bool = Field(default=False, description="It is told the user's `email`.")
    tenant: Identifier | None = Field(
        default=None, description="Our users' tenant there (`aud_tenant`)."
    )
    disabled: bool = Field(default=False, description="No assertion is issued for it any more.")


class ClientDocumentsSection(Section):
    """Clients that are known by a metadata document at an https URL, which is their client id."""

    hosts: Annotated[list[HostName], holding(1, 256)] = Field(
        description="The only hosts whose documents are fetched, with a port where that is not 443."
    )
    grants: Annotated[list[GrantName], holding(0, 3)] = Field(
        default=["token_exchange"], description="The grants that such clients may use."
    )
    groups: Annotated[list[Identifier], holding(0, 64)] = Field(
        default=[], description="Groups that policies may speak of."
    )
    profile: Identifier = Field(default="ai_agent", description="Their `sub_profile` as actors.")


class IssuerEntry(Section):
    """Somebody else's issuer whose tokens are accepted."""

    issuer: ForeignIssuer = Field(
        description="Its `iss`, compared byte for byte; or a SPIFFE trust domain such as "
        "`spiffe://example.org`, whose JWT-SVIDs are recognised by `sub`."
    )
    purposes: Annotated[
        list[PurposeName], holding(1, 4, reason="its tokens would be good for nothing")
    ] = Field(description="What its tokens may be used for.")
    algorithms: Annotated[
        list[Algorithm], holding(1, 6, reason="without a pin any signature might do")
    ] = Field(description="The only algorithms its tokens may be signed with.")
    jwks: dict[str, Any] | None = Field(default=None, description="Its public keys (RFC 7517).")
    jwks_file: FileName | None = Field(default=None, description="A file with its public keys.")
    jwks_uri: Url | None = Field(default=None, description="Where it publishes its keys.")
    discovery: bool | None = Field(
        default=None,
        description="Find its keys through its metadata; so unless keys are given otherwise.",
    )
    key_hosts: Annotated[list[HostName], holding(1, 16)] | None = Field(
        default=None,
        description="Hosts besides its own that its metadata may name for its keys, with a port "
        "where that is not 443.",
    )
    subject_prefix: SubjectPrefix = Field(
        default="",
        description="Put before its subjects; needed with more than one issuer of users.",
    )
    tenant: Identifier | None = Field(
        default=None, description="The tenant its subjects belong to."
    )
    multi_tenant: bool = Field(
        default=False,
        description="Its tokens name a `tenant`, which is part of who the subject is.",
    )
    tenants: Annotated[list[Identifier], holding(1, 10_000)] | None = Field(
        default=None,
        description="With `multi_tenant`: the only tenants that it may name. Needed where clients, "
        "resources or other issuers have a `tenant`, which it could name too.",
    )
    accounts: Annotated[dict[str, Accounts], holding(0, 100_000)] | None = Field(
        default=None,
        description="The subjects here of its identity assertions' subjects, by `sub`; with "
        "`multi_tenant` by tenant and then `sub`. Whoever is not named is refused. Without it every "
        "subject has an account, named by `subject_prefix`, tenant and `sub`.",
    )
    single_use: bool | None = Field(
        default=None,
        description="Whether its tokens are accepted once only; identity assertions are by default, "
        "tokens of workloads are not.",
    )
    workloads: Annotated[list[WorkloadEntry], holding(0, 256)] = Field(
        default=[], description="Which of its workloads is which client."
    )
    foreign_actors: Literal["keep", "drop", "refuse"] = Field(
        default="keep", description="What happens to a chain of actors that its token carries."
    )
    max_token_lifetime: Annotated[Duration, lasting("1m", "31d")] = Field(
        default=timedelta(hours=24), description="The longest lifetime of its tokens."
    )
    disabled: bool = Field(default=False, description="Its tokens are not accepted any more.")


PURPOSES: Final = {purpose.value: purpose for purpose in Purpose}
"""The purposes of an issuer by the names that the file uses for them."""
