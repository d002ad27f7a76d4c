"""The settings in force, frozen: everything that the parts of the broker are built from."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from broker.model import Client, Resource, TrustedIssuer


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
class ListenSettings:
    """The addresses of the faces; ``None`` turns a face off."""

    http: Address | None
    grpc: Address | None
    admin: Address


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """A face's certificate chain and key in PEM, and the authorities of client certificates."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """The OAuth face over HTTP. ``trusted_proxies`` are networks in CIDR form."""

    tls: TlsSettings | None
    is_behind_proxy: bool
    trusted_proxies: tuple[str, ...]
    max_body_bytes: int
    threads: int


@dataclass(frozen=True, slots=True)
class GrpcSettings:
    """The gRPC face. ``max_concurrent`` is the number of calls beyond which new ones are refused."""

    tls: TlsSettings | None
    max_message_bytes: int
    max_concurrent: int
    threads: int


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How many processes serve each face."""

    http: int
    grpc: int


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
class VaultSettings:
    """The transit engine; ``keys`` gives the name of its key for each signing algorithm."""

    url: str
    mount: str
    keys: Mapping[str, str]
    auth: VaultAuthSettings
    namespace: str | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class KeySettings:
    """
    Our signing keys: ``store`` is ``dev`` or ``vault-transit``.

    ``algorithm`` signs by default, ``also`` are the others that a resource may ask for.
    ``directory`` is where the embedded keys live. ``vault`` is set for ``vault-transit``.
    """

    store: str
    algorithm: str
    also: tuple[str, ...]
    directory: Path
    vault: VaultSettings | None = None

    @property
    def algorithms(self) -> tuple[str, ...]:
        """All algorithms signed with, the default first."""
        return (self.algorithm, *self.also)


@dataclass(frozen=True, slots=True)
class StateSettings:
    """What remembers spent ids and revocations: ``store`` is ``sqlite`` or ``memory``."""

    store: str
    directory: Path


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """The audit files. ``segment_size`` is in bytes; past ``write_timeout`` a write has failed."""

    directory: Path
    segment_size: int
    write_timeout: timedelta


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """The tokens issued, and the leeway in accepting others."""

    lifetime: timedelta
    leeway: timedelta
    max_actors: int
    mcp_claim: str
    max_token_bytes: int
    jwks_max_age: timedelta


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The operational log: ``format`` is ``json`` or ``console``, ``level`` a level's name."""

    format: str
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
    tokens: TokenSettings
    log: LogSettings
    policies: Path
    default_resource: str | None = None
    clients: tuple[Client, ...] = ()
    resources: tuple[Resource, ...] = ()
    issuers: tuple[TrustedIssuer, ...] = ()
    disabled_subjects: frozenset[str] = field(default_factory=frozenset)
