"""What may stand in ``broker.yaml``: the sections about the broker itself."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from broker.config.audit_sections import AuditSection
from broker.config.declarations import (
    AuthorizationServerEntry,
    ClientDocumentsSection,
    ClientEntry,
    IssuerEntry,
    ResourceEntry,
)
from broker.config.key_sections import KeysSection
from broker.config.kinds import (
    ClaimName,
    Duration,
    FileName,
    HeaderName,
    Identifier,
    ListenAddress,
    Network,
    OwnIssuer,
    ResourceUri,
    Size,
    SubjectName,
    between,
    holding,
    lasting,
    sized,
)
from broker.config.limit_sections import LimitsSection
from broker.config.section import Section
from broker.config.settings import Address
from broker.config.state_sections import StateSection
from broker.web.peers import FORWARDED_HEADER


class ListenSection(Section):
    """Where the faces listen: an IP address (or `localhost`) and a port. `null` turns a face off."""

    http: ListenAddress | None = Field(
        default=Address("127.0.0.1", 8080),
        description="The OAuth face. Off loopback it needs `http.tls` or `http.is_behind_proxy`.",
    )
    grpc: ListenAddress | None = Field(
        default=Address("127.0.0.1", 8443),
        description="The gRPC face. Off loopback it needs `grpc.tls`.",
    )
    admin: ListenAddress = Field(
        default=Address("127.0.0.1", 9443),
        description="Health and metrics. Nobody logs in there, so it stays on loopback.",
    )
    streams: ListenAddress | None = Field(
        default=None,
        description="Streams over gRPC that tell verifiers what is revoked; off when not set. Off "
        "loopback it needs `grpc.tls`.",
    )


class TlsSection(Section):
    """A certificate chain and its key, in PEM files."""

    cert_file: FileName = Field(description="The chain, the face's own certificate first.")
    key_file: FileName = Field(description="The key. Others on the machine may not read it.")


class MutualTlsSection(TlsSection):
    """A certificate chain, its key, and whose client certificates are accepted."""

    client_ca_file: FileName | None = Field(
        default=None,
        description="Authorities of client certificates; with it, clients must present one.",
    )


class HttpSection(Section):
    """The OAuth face over HTTP."""

    tls: TlsSection | None = Field(default=None, description="The face's own TLS.")
    is_behind_proxy: bool = Field(
        default=False,
        description="A proxy in front terminates TLS; it must be in `trusted_proxies`.",
    )
    trusted_proxies: Annotated[list[Network], holding(0, 64)] = Field(
        default=[],
        description="Addresses or networks of the proxies whose `caller_header` is believed. They must"
        " set it themselves, and drop `X_Forwarded_For`, or have a `caller_header` without a dash.",
    )
    caller_header: HeaderName = Field(
        default=FORWARDED_HEADER,
        description="Where these name the caller. One of letters and digits alone cannot be forged by"
        " a look-alike with underscores that a proxy lets pass.",
    )
    max_body_bytes: Annotated[Size, sized("1KiB", "1MiB")] = Field(
        default=65_536, description="The largest request body."
    )
    threads: Annotated[int, between(1, 256)] = Field(
        default=16, description="Threads of each process."
    )


class GrpcSection(Section):
    """The gRPC face."""

    tls: MutualTlsSection | None = Field(default=None, description="The face's own TLS.")
    max_message_bytes: Annotated[Size, sized("1KiB", "1MiB")] = Field(
        default=65_536, description="The largest message accepted."
    )
    max_concurrent: Annotated[int, between(1, 4096)] = Field(
        default=64, description="Calls in flight per process beyond which new ones are turned away."
    )
    threads: Annotated[int, between(1, 256)] = Field(
        default=16, description="Threads of each process."
    )
    reflection: bool = Field(
        default=False,
        description="Clients may read the services from the server itself, as `buf curl` does.",
    )


class WorkersSection(Section):
    """How many processes serve each face, and where they run."""

    http: Annotated[int, between(1, 64)] = Field(
        default=1, description="Processes of the HTTP face."
    )
    grpc: Annotated[int, between(1, 64)] = Field(
        default=1, description="Processes of the gRPC face."
    )
    pin: Literal["auto", "never"] = Field(
        default="auto",
        description="`auto` gives each worker a core of its own where that does no harm: on Linux, with "
        "no fewer cores than workers, and without a quota of processor time. Use `never` on a machine "
        "that others keep busy.",
    )


class TokensSection(Section):
    """The tokens that are issued."""

    lifetime: Annotated[
        Duration, lasting("10s", "10m", reason="a token that leaks must soon be worthless")
    ] = Field(
        default=timedelta(minutes=5), description="The longest lifetime of a token, at most 10m."
    )
    machine_lifetime: Annotated[
        Duration, lasting("10s", "15m", reason="a token that leaks must soon be worthless")
    ] = Field(
        default=timedelta(minutes=5),
        description="The longest lifetime of a client's own token, at most 15m.",
    )
    id_jag_lifetime: Annotated[
        Duration, lasting("10s", "5m", reason="it is redeemed at once or not at all")
    ] = Field(
        default=timedelta(minutes=5),
        description="The longest lifetime of an identity assertion, at most 5m.",
    )
    pairwise_key_file: FileName | None = Field(
        default=None,
        description="A secret of at least 32 bytes, of which pairwise subjects are made. Their "
        "holders become strangers when it changes.",
    )
    leeway: Annotated[
        Duration, lasting("0s", "30s", reason="more would revive tokens that have expired")
    ] = Field(default=timedelta(seconds=30), description="How far clocks may differ, at most 30s.")
    max_actors: Annotated[int, between(1, 5)] = Field(
        default=5, description="The longest chain of actors; a longer one is refused."
    )
    mcp_claim: ClaimName | None = Field(
        default=None,
        description="The claim that names client, MCP server and resource; "
        "`<issuer>/claims/mcp` when not set.",
    )
    max_token_bytes: Annotated[Size, sized("1KiB", "16KiB")] = Field(
        default=8192, description="The largest token to issue."
    )
    jwks_max_age: Annotated[Duration, lasting("1s", "24h")] = Field(
        default=timedelta(minutes=5), description="How long verifiers may keep our key set."
    )


class FetchSection(Section):
    """How the keys of issuers and clients are fetched."""

    ca_file: FileName | None = Field(
        default=None,
        description="The authorities believed, in PEM; those of the operating system when not set.",
    )
    private_networks: Annotated[list[Network], holding(0, 64)] = Field(
        default=[],
        description="Private networks that may be reached, such as that of an issuer in the cluster.",
    )


class LogSection(Section):
    """The operational log, on standard error."""

    format: Literal["json", "console"] = Field(
        default="json", description="`console` is for people."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severity that is written."
    )


class BrokerFile(BaseModel):
    """The settings of a token exchange and delegation broker."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, title="broker.yaml"
    )

    issuer: OwnIssuer = Field(
        description="The broker's own issuer: the `iss` of every token, and where it is reached."
    )
    data_dir: FileName = Field(
        default=".broker", description="The base directory of keys, state and audit files."
    )
    listen: ListenSection = Field(
        default_factory=ListenSection, description="Where the faces listen."
    )
    http: HttpSection = Field(default_factory=HttpSection, description="The OAuth face over HTTP.")
    grpc: GrpcSection = Field(default_factory=GrpcSection, description="The gRPC face.")
    workers: WorkersSection = Field(
        default_factory=WorkersSection, description="Processes of each face."
    )
    keys: KeysSection = Field(default_factory=KeysSection, description="Our signing keys.")
    state: StateSection = Field(
        default_factory=StateSection, description="What must be remembered."
    )
    audit: AuditSection = Field(default_factory=AuditSection, description="The audit record.")
    fetch: FetchSection = Field(
        default_factory=FetchSection, description="How other people's keys are fetched."
    )
    tokens: TokensSection = Field(
        default_factory=TokensSection, description="The tokens that are issued."
    )
    limits: LimitsSection = Field(
        default_factory=LimitsSection, description="How often anybody may ask."
    )
    drain_delay: Annotated[Duration, lasting("0s", "5m")] = Field(
        default=timedelta(0),
        description="How long to go on after readiness went down, so that load balancers notice.",
    )
    policies: FileName | None = Field(
        default=None,
        description="The directory of Cedar policies; the ones delivered when not set.",
    )
    default_resource: ResourceUri | None = Field(
        default=None,
        description="The resource of requests that name none; it must be registered below.",
    )
    clients: Annotated[list[ClientEntry], holding(0, 10_000)] = Field(
        default=[], description="Who may authenticate here."
    )
    resources: Annotated[list[ResourceEntry], holding(0, 10_000)] = Field(
        default=[], description="What a token can be for."
    )
    issuers: Annotated[list[IssuerEntry], holding(0, 256)] = Field(
        default=[], description="Whose tokens are accepted."
    )
    authorization_servers: Annotated[list[AuthorizationServerEntry], holding(0, 256)] = Field(
        default=[], description="Who redeems our identity assertions (ID-JAG)."
    )
    client_documents: ClientDocumentsSection | None = Field(
        default=None, description="Clients known by a metadata document; none when not set."
    )
    disabled_policies: Annotated[list[Identifier], holding(0, 1000)] = Field(
        default=[],
        description="Permits, by `@id`, that are as if they were not there, with their `@max_ttl`.",
    )
    disabled_subjects: Annotated[list[SubjectName], holding(0, 100_000)] = Field(
        default=[], description="Subjects, as minted here, for whom nothing is issued any more."
    )
    log: LogSection = Field(default_factory=LogSection, description="The operational log.")
