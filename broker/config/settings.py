"""The settings in force, frozen: everything that the parts of the broker are built from."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from broker.audit.alerts.terms import AlertTerms
from broker.audit.sinks.terms import SinkTerms
from broker.config.durations import write_duration
from broker.model import (
    Client,
    ClientDocumentTerms,
    Quota,
    Resource,
    ResourceAuthorizationServer,
    SecretHash,
    TlsFiles,
    TrustedIssuer,
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a face listens: an IP address and a port, 0 for any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return ipaddress.ip_address(self.host).is_loopback


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server of somebody else is: a name or an IP address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine, as an address or as ``localhost``."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """The addresses of the faces; ``None`` turns a face off, or the streams."""

    http: Address | None
    grpc: Address | None
    admin: Address
    streams: Address | None = None


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """
    The OAuth face over HTTP.

    ``trusted_proxies`` are networks in CIDR form, and ``caller_header`` is where these name the caller.
    """

    tls: TlsFiles | None
    is_behind_proxy: bool
    trusted_proxies: tuple[str, ...]
    caller_header: str
    max_body_bytes: int
    threads: int


@dataclass(frozen=True, slots=True)
class GrpcSettings:
    """
    The gRPC face.

    ``max_concurrent`` is the number of calls beyond which new ones are refused. ``has_reflection``
    lets clients read the services from the server itself.
    """

    tls: TlsFiles | None
    max_message_bytes: int
    max_concurrent: int
    threads: int
    has_reflection: bool


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How many processes serve each face, and whether each shall have a core of its own."""

    http: int
    grpc: int
    is_pinned: bool


@dataclass(frozen=True, slots=True)
class VaultAuthSettings:
    """
    How the broker logs in to Vault: ``method`` is ``approle``, ``kubernetes`` or ``token_file``.

    Only the fields of the method are set.
    """

    method: str
    mount: str = ""
    role: str = ""
    role_id_file: Path | None = None
    secret_id_file: Path | None = None
    jwt_file: Path | None = None
    token_file: Path | None = None


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """Where the lives of the keys are on record: a key-value engine, and a folder in it."""

    mount: str
    path: str


@dataclass(frozen=True, slots=True)
class EphemeralSettings:
    """Keys in memory: which key certifies them, and how long each signs."""

    certifier: str
    lifetime: timedelta


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """
    The transit engine; ``keys`` gives the name of its key for each signing algorithm.

    ``rotator`` is the login of who rotates the keys, ``auth`` that of who signs. ``audit_key`` is the key
    that seals the audit record.
    """

    url: str
    mount: str
    keys: Mapping[str, str]
    auth: VaultAuthSettings
    audit_key: str = "broker-audit"
    namespace: str | None = None
    ca_file: Path | None = None
    record: RecordSettings | None = None
    rotator: VaultAuthSettings | None = None
    ephemeral: EphemeralSettings | None = None


@dataclass(frozen=True, slots=True)
class KeyTimes:
    """
    How the lives of keys follow each other.

    A key is published ``publish_ahead`` before it signs and ``keep_published`` after its successor
    began to. ``rotate_every`` is the age at which it is replaced by itself, if ever. ``outage`` is how
    long keys in memory go on signing while Vault is away.
    """

    publish_ahead: timedelta
    keep_published: timedelta
    rotate_every: timedelta | None
    poll: timedelta
    clock_difference: timedelta
    has_spare: bool
    outage: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class KeySettings:
    """
    Our signing keys: ``store`` is ``dev``, ``vault-transit``, ``vault-ephemeral`` or ``vault-export``.

    ``algorithm`` signs by default, ``also`` are the others that a resource may ask for.
    ``directory`` is where the embedded keys live. ``vault`` is set for the stores in Vault.
    """

    store: str
    algorithm: str
    also: tuple[str, ...]
    directory: Path
    times: KeyTimes
    vault: VaultSettings | None = None

    @property
    def algorithms(self) -> tuple[str, ...]:
        """All algorithms signed with, the default first."""
        return (self.algorithm, *self.also)


@dataclass(frozen=True, slots=True)
class ValkeyTlsSettings:
    """TLS to the state's servers; without ``ca_file`` the system's authorities are believed."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class SentinelSettings:
    """Who tells where the primary is, which they know as ``service``."""

    service: str
    hosts: tuple[ServerAddress, ...]
    username: str | None = None
    password_file: Path | None = None


@dataclass(frozen=True, slots=True)
class ValkeySettings:
    """
    Valkey or Redis as the state's store; one of ``host``, ``sentinel`` and ``cluster`` is set.

    ``replicas`` is how many must have what is acknowledged, besides the primary.
    """

    host: ServerAddress | None
    sentinel: SentinelSettings | None
    cluster: tuple[ServerAddress, ...]
    tls: ValkeyTlsSettings | None
    username: str | None
    password_file: Path | None
    database: int
    prefix: str
    replicas: int
    deadline: timedelta
    connections: int

    @property
    def where(self) -> str:
        """Where it is asked, or who is asked where it is, for logs."""
        if self.sentinel is not None:
            named = ",".join(map(str, self.sentinel.hosts))
            return f"{self.sentinel.service} of sentinels {named}"
        return ",".join(map(str, self.cluster or (self.host,)))


@dataclass(frozen=True, slots=True)
class StateSettings:
    """
    What remembers spent ids and revocations: ``store`` is ``sqlite``, ``memory`` or ``valkey``.

    ``valkey`` is set for the last.
    """

    store: str
    directory: Path
    valkey: ValkeySettings | None = None


@dataclass(frozen=True, slots=True)
class ReviewOidcSettings:
    """
    Where auditors log in, and who of those is one: by ``subjects``, or by a value of a claim.

    ``client_secret_file`` is ``None`` for a public client. ``hosts`` are those besides the issuer's own.
    """

    issuer: str
    client_id: str
    client_secret_file: Path | None
    algorithms: tuple[str, ...]
    scopes: tuple[str, ...]
    hosts: frozenset[str]
    subjects: frozenset[str]
    claim: str | None
    values: frozenset[str]
    name_claim: str


@dataclass(frozen=True, slots=True)
class ReviewSettings:
    """The auditor's pages: ``url`` is the origin at which browsers find them."""

    url: str
    session_lifetime: timedelta
    idle_timeout: timedelta
    oidc: ReviewOidcSettings | None = None


@dataclass(frozen=True, slots=True)
class TimeStampSettings:
    """Who time-stamps checkpoints (RFC 3161), and the roots that this has to lead to."""

    url: str
    ca_file: Path


@dataclass(frozen=True, slots=True)
class SealSettings:
    """How often the audit record is sealed, and who is to witness that and how often, if anybody."""

    every: timedelta = timedelta(seconds=5)
    timestamp_every: timedelta = timedelta(hours=1)
    time_stamps: TimeStampSettings | None = None


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """How often the whole audit record is verified, and how long that may take."""

    every: timedelta = timedelta(days=1)
    within: timedelta = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class PeopleSettings:
    """
    How people are named in the audit record, and how long a key of their pseudonyms is used.

    The keys are files in ``directory`` where they are not in Vault.
    """

    names: Literal["pseudonym", "clear"]
    period: Literal["month", "quarter", "year"]
    directory: Path


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """
    The audit files. ``segment_size`` is in bytes; past ``write_timeout`` a write has failed.

    ``review`` is ``None`` where there are no pages, and ``verify`` where the whole is verified by hand alone.
    """

    directory: Path
    segment_size: int
    write_timeout: timedelta
    people: PeopleSettings
    sinks: tuple[SinkTerms, ...] = ()
    alerts: AlertTerms = field(default_factory=AlertTerms)
    review: ReviewSettings | None = None
    seal: SealSettings = field(default_factory=SealSettings)
    verify: VerifySettings | None = field(default_factory=VerifySettings)


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """
    How other people's keys are fetched.

    ``private_networks`` are ranges in CIDR form that may be reached although they are private.
    ``key_hosts`` gives, by issuer, the hosts besides its own that its metadata may name.
    """

    ca_file: Path | None
    private_networks: tuple[str, ...]
    key_hosts: Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """
    The tokens issued, and the leeway in accepting others.

    ``pairwise_key_file`` holds the secret that pairwise subjects are made with.
    """

    lifetime: timedelta
    machine_lifetime: timedelta
    id_jag_lifetime: timedelta
    leeway: timedelta
    max_actors: int
    mcp_claim: str
    max_token_bytes: int
    jwks_max_age: timedelta
    pairwise_key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """How often a client may ask, and how often a source without proof; ``None`` is no limit."""

    per_client: Quota | None
    per_source: Quota | None


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The operational log; ``level`` is the name of the least severity that is written."""

    format: Literal["json", "console"]
    level: str


@dataclass(frozen=True, slots=True)
class Settings:
    """
    Everything an operator set, checked together.

    ``source`` is the file it came from, to be read again on reload. All paths are absolute.
    """

    source: Path
    issuer: str
    listen: ListenSettings
    http: HttpSettings
    grpc: GrpcSettings
    workers: WorkerSettings
    keys: KeySettings
    state: StateSettings
    audit: AuditSettings
    fetch: FetchSettings
    tokens: TokenSettings
    limits: LimitSettings
    log: LogSettings
    drain_delay: timedelta
    policies: Path
    default_resource: str | None = None
    clients: tuple[Client, ...] = ()
    resources: tuple[Resource, ...] = ()
    issuers: tuple[TrustedIssuer, ...] = ()
    authorization_servers: tuple[ResourceAuthorizationServer, ...] = ()
    disabled_subjects: frozenset[str] = field(default_factory=frozenset)
    disabled_policies: frozenset[str] = field(default_factory=frozenset)
    client_documents: ClientDocumentTerms | None = None

    def masked(self) -> dict[str, Any]:
        """
        The settings as plain values, for people to read.

        Nothing in it helps to authenticate: of a secret's hash only the scheme is shown.
        """
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}


def _plain(value: Any) -> Any:
    if isinstance(value, SecretHash):
        scheme = "argon2id" if value.encoded.startswith("$argon2id$") else "sha256"
        return {"hash": f"{scheme}:…", "not_after": value.not_after}
    if is_dataclass(value) and not isinstance(value, Address | ServerAddress):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, frozenset | tuple | list):
        listed = [_plain(inner) for inner in value]
        return sorted(listed) if isinstance(value, frozenset) else listed
    if isinstance(value, timedelta):
        return write_duration(value)
    return str(value) if isinstance(value, Address | ServerAddress | Path | StrEnum) else value
