"""What may stand in ``broker.yaml``: the clients, the resources and the trusted issuers."""

from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from broker.config.kinds import (
    Algorithm,
    ClientId,
    Duration,
    FileName,
    HostName,
    Identifier,
    Moment,
    ResourceUri,
    Scope,
    SecretHashText,
    SubjectPrefix,
    Url,
    holding,
    lasting,
)
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
    algorithms: Annotated[list[Algorithm], holding(1, 6)] = Field(
        default=["ES256", "RS256"], description="The algorithms of its assertions."
    )


class ClientEntry(Section):
    """An OAuth client: an agent, an MCP server, an operator's tool."""

    id: ClientId = Field(description="Its client id, compared byte for byte.")
    auth: ClientAuthSection = Field(description="How it authenticates.")
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
    explain: bool = Field(
        default=False, description="It may ask why a request would be decided so."
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


class IssuerEntry(Section):
    """Somebody else's issuer whose tokens are accepted."""

    issuer: Url = Field(description="Its `iss`, compared byte for byte.")
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
    foreign_actors: Literal["keep", "drop", "refuse"] = Field(
        default="keep", description="What happens to a chain of actors that its token carries."
    )
    max_token_lifetime: Annotated[Duration, lasting("1m", "31d")] = Field(
        default=timedelta(hours=24), description="The longest lifetime of its tokens."
    )
    disabled: bool = Field(default=False, description="Its tokens are not accepted any more.")


PURPOSES: Final = {purpose.value: purpose for purpose in Purpose}
"""The purposes of an issuer by the names that the file uses for them."""
