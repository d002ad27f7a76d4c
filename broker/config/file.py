"""What may stand in ``broker.yaml``: the sections about the broker itself."""

from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from broker.config.declarations import ClientEntry, IssuerEntry, ResourceEntry
from broker.config.kinds import (
    ClaimName,
    Duration,
    FileName,
    ListenAddress,
    Network,
    OwnIssuer,
    ResourceUri,
    Size,
    SubjectName,
    Url,
    VaultName,
    VaultPath,
    between,
    holding,
    lasting,
)
from broker.config.section import Section
from broker.config.settings import Address

SERVICE_ACCOUNT_TOKEN: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"
SigningAlgorithm = Literal["ES256", "RS256"]


class ListenSection(Section):
    """Where the faces listen: an IP address (or `localhost`) and a port. `null` turns a face off."""

    http: ListenAddress | None = Field(
        Address("127.0.0.1", 8080),
        description="The OAuth face. Off loopback it needs `http.tls` or `http.is_behind_proxy`.",
    )
    grpc: ListenAddress | None = Field(
        Address("127.0.0.1", 8443), description="The gRPC face. Off loopback it needs `grpc.tls`."
    )
    admin: ListenAddress = Field(
        Address("127.0.0.1", 9443),
        description="Health, metrics and audit pages. Nobody logs in there, so it stays on loopback.",
    )


class TlsSection(Section):
    """A certificate chain and its key, in PEM files."""

    cert_file: FileName = Field(description="The chain, the face's own certificate first.")
    key_file: FileName = Field(description="The key. Others on the machine may not read it.")


class MutualTlsSection(TlsSection):
    """A certificate chain, its key, and whose client certificates are accepted."""

    client_ca_file: FileName | None = Field(
        None, description="Authorities of client certificates; with it, clients must present one."
    )


class HttpSection(Section):
    """The OAuth face over HTTP."""

    tls: TlsSection | None = Field(None, description="The face's own TLS.")
    is_behind_proxy: bool = Field(
        False, description="A proxy in front terminates TLS; it must be in `trusted_proxies`."
    )
    trusted_proxies: Annotated[list[Network], holding(0, 64)] = Field(
        [], description="Addresses or networks of the proxies whose headers are believed."
    )
    max_body_bytes: Annotated[Size, between(1024, 1_048_576)] = Field(
        65_536, description="The largest request body."
    )
    threads: Annotated[int, between(1, 256)] = Field(16, description="Threads of each process.")


class GrpcSection(Section):
    """The gRPC face."""

    tls: MutualTlsSection | None = Field(None, description="The face's own TLS.")
    max_message_bytes: Annotated[Size, between(1024, 1_048_576)] = Field(
        65_536, description="The largest message accepted."
    )
    max_concurrent: Annotated[int, between(1, 4096)] = Field(
        64, description="Calls in flight per process beyond which new ones are turned away."
    )
    threads: Annotated[int, between(1, 256)] = Field(16, description="Threads of each process.")


class WorkersSection(Section):
    """How many processes serve each face."""

    http: Annotated[int, between(1, 64)] = Field(1, description="Processes of the HTTP face.")
    grpc: Annotated[int, between(1, 64)] = Field(1, description="Processes of the gRPC face.")


class DevKeysSection(Section):
    """The embedded key store, for one machine."""

    directory: FileName | None = Field(
        None, description="Where the keys live; `keys` in `data_dir` when not set."
    )


class AppRoleSection(Section):
    """Login by AppRole."""

    method: Literal["approle"] = Field(description="`approle`.")
    mount: VaultPath = Field("approle", description="Where the method is mounted.")
    role_id_file: FileName = Field(description="A file with the role id.")
    secret_id_file: FileName = Field(description="A file with the secret id.")


class KubernetesSection(Section):
    """Login by a Kubernetes service account."""

    method: Literal["kubernetes"] = Field(description="`kubernetes`.")
    mount: VaultPath = Field("kubernetes", description="Where the method is mounted.")
    role: VaultName = Field(description="The role to log in as.")
    jwt_file: FileName = Field(
        SERVICE_ACCOUNT_TOKEN, description="The service account's token, as the kubelet mounts it."
    )


class TokenFileSection(Section):
    """A Vault token that somebody else keeps fresh in a file, such as an agent."""

    method: Literal["token_file"] = Field(description="`token_file`.")
    token_file: FileName = Field(description="The file with the token.")


class VaultKeysSection(Section):
    """The transit key for each signing algorithm."""

    ES256: VaultName | None = Field(None, description="A key of type `ecdsa-p256`.")
    RS256: VaultName | None = Field(None, description="A key of type `rsa-2048` or larger.")


class VaultSection(Section):
    """Vault or OpenBao with the transit engine."""

    url: Url = Field(description="Its address.")
    mount: VaultPath = Field("transit", description="Where the transit engine is mounted.")
    keys: VaultKeysSection = Field(description="The names of the keys.")
    namespace: VaultPath | None = Field(None, description="The namespace, where there are any.")
    ca_file: FileName | None = Field(
        None, description="Authorities of its certificate; the system's when not set."
    )
    auth: AppRoleSection | KubernetesSection | TokenFileSection = Field(
        discriminator="method", description="How to log in."
    )


class KeysSection(Section):
    """Our signing keys."""

    store: Literal["dev", "vault-transit"] = Field(
        "dev",
        description="`dev` embeds the keys and serves a loopback issuer alone; with "
        "`vault-transit` they never leave Vault.",
    )
    algorithm: SigningAlgorithm = Field("ES256", description="What tokens are signed with.")
    also: Annotated[list[SigningAlgorithm], holding(0, 2)] = Field(
        ["RS256"], description="Further algorithms, which a resource may ask for."
    )
    dev: DevKeysSection = Field(DevKeysSection(directory=None), description="For `store: dev`.")
    vault: VaultSection | None = Field(None, description="For `store: vault-transit`.")


class StateSection(Section):
    """What must be remembered: spent one-time ids and revoked tokens."""

    store: Literal["sqlite", "memory"] = Field(
        "sqlite", description="`memory` forgets on restart and serves a single process alone."
    )
    directory: FileName | None = Field(
        None, description="A directory on a local disk; `state` in `data_dir` when not set."
    )


class AuditSection(Section):
    """The audit record. No token is issued without it."""

    directory: FileName | None = Field(
        None, description="Where the segments are written; `audit` in `data_dir` when not set."
    )
    segment_size: Annotated[Size, between(65_536, 4_294_967_296)] = Field(
        67_108_864, description="The size at which a new segment is begun."
    )
    write_timeout: Annotated[Duration, lasting("10ms", "30s")] = Field(
        timedelta(seconds=2), description="How long a record may take to be on disk."
    )


class TokensSection(Section):
    """The tokens that are issued."""

    lifetime: Annotated[
        Duration, lasting("10s", "10m", reason="a token that leaks must soon be worthless")
    ] = Field(timedelta(minutes=5), description="The longest lifetime of a token, at most 10m.")
    leeway: Annotated[
        Duration, lasting("0s", "30s", reason="more would revive tokens that have expired")
    ] = Field(timedelta(seconds=30), description="How far clocks may differ, at most 30s.")
    max_actors: Annotated[int, between(1, 5)] = Field(
        5, description="The longest chain of actors; a longer one is refused."
    )
    mcp_claim: ClaimName | None = Field(
        None,
        description="The claim that names client, MCP server and resource; "
        "`<issuer>/claims/mcp` when not set.",
    )
    max_token_bytes: Annotated[Size, between(1024, 16_384)] = Field(
        8192, description="The largest token to issue."
    )
    jwks_max_age: Annotated[Duration, lasting("1m", "24h")] = Field(
        timedelta(minutes=5), description="How long verifiers may keep our key set."
    )


class LogSection(Section):
    """The operational log, on standard error."""

    format: Literal["json", "console"] = Field("json", description="`console` is for people.")
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severity that is written."
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
        ".broker", description="The base directory of keys, state and audit files."
    )
    listen: ListenSection = Field(ListenSection(), description="Where the faces listen.")
    http: HttpSection = Field(HttpSection(), description="The OAuth face over HTTP.")
    grpc: GrpcSection = Field(GrpcSection(), description="The gRPC face.")
    workers: WorkersSection = Field(WorkersSection(), description="Processes of each face.")
    keys: KeysSection = Field(KeysSection(), description="Our signing keys.")
    state: StateSection = Field(StateSection(), description="What must be remembered.")
    audit: AuditSection = Field(AuditSection(), description="The audit record.")
    tokens: TokensSection = Field(TokensSection(), description="The tokens that are issued.")
    policies: FileName | None = Field(
        None, description="The directory of Cedar policies; the ones delivered when not set."
    )
    default_resource: ResourceUri | None = Field(
        None, description="The resource of requests that name none; it must be registered below."
    )
    clients: Annotated[list[ClientEntry], holding(0, 10_000)] = Field(
        [], description="Who may authenticate here."
    )
    resources: Annotated[list[ResourceEntry], holding(0, 10_000)] = Field(
        [], description="What a token can be for."
    )
    issuers: Annotated[list[IssuerEntry], holding(0, 256)] = Field(
        [], description="Whose tokens are accepted."
    )
    disabled_subjects: Annotated[list[SubjectName], holding(0, 100_000)] = Field(
        [], description="Subjects, as minted here, for whom nothing is issued any more."
    )
    log: LogSection = Field(LogSection(), description="The operational log.")
