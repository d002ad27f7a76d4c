"""What may stand in ``broker.yaml`` about the store of spent ids and revoked tokens."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from broker.config.kinds import (
    Duration,
    FileName,
    Identifier,
    KeyPrefix,
    ServerPlace,
    between,
    holding,
    lasting,
)
from broker.config.section import Section


class ValkeyTlsSection(Section):
    """TLS to the servers."""

    ca_file: FileName | None = Field(
        default=None,
        description="Authorities of their certificates; the system's when not set.",
    )
    cert_file: FileName | None = Field(
        default=None, description="The broker's own certificate, for servers that ask for one."
    )
    key_file: FileName | None = Field(
        default=None, description="Its key. Others on the machine may not read it."
    )


class SentinelSection(Section):
    """Sentinels, which tell where the primary is."""

    service: Identifier = Field(description="The name under which they know the primary.")
    hosts: Annotated[list[ServerPlace], holding(1, 16)] = Field(
        description="All of them: more than half must answer."
    )
    username: Identifier | None = Field(default=None, description="The user's name there.")
    password_file: FileName | None = Field(
        default=None, description="A file with the password there."
    )


class ValkeySection(Section):
    """Valkey or Redis, version 7 or newer: exactly one of `host`, `sentinel` and `cluster`."""

    host: ServerPlace | None = Field(default=None, description="The one server.")
    sentinel: SentinelSection | None = Field(
        default=None, description="Sentinels, which tell where the primary is."
    )
    cluster: Annotated[list[ServerPlace], holding(1, 64)] = Field(
        default=[], description="Some nodes of a cluster."
    )
    tls: ValkeyTlsSection | None = Field(
        default=None, description="TLS to the servers; `{}` believes the system's authorities."
    )
    username: Identifier | None = Field(
        default=None, description="The user's name; the default user when not set."
    )
    password_file: FileName | None = Field(
        default=None, description="A file with the password, read for every connection."
    )
    database: Annotated[int, between(0, 1023)] = Field(
        default=0, description="The number of the database; a cluster has one."
    )
    prefix: KeyPrefix = Field(
        default="broker", description="How all keys begin. Each deployment needs its own."
    )
    replicas: Annotated[int, between(0, 5)] | None = Field(
        default=None,
        description="How many replicas must have what is acknowledged; 1 with `sentinel` or "
        "`cluster` when not set, else none.",
    )
    deadline: Annotated[
        Duration, lasting("20ms", "2s", reason="whoever waits for the store waits for a token")
    ] = Field(default=timedelta(milliseconds=500), description="How long a call may take.")
    connections: Annotated[int, between(1, 256)] = Field(
        default=16, description="The most connections of each process."
    )


class StateSection(Section):
    """What must be remembered: spent one-time ids and revoked tokens."""

    store: Literal["sqlite", "memory", "valkey"] = Field(
        default="sqlite",
        description="`sqlite` serves one machine, `valkey` several; `memory` forgets on restart and "
        "serves a single process alone.",
    )
    directory: FileName | None = Field(
        default=None, description="A directory on a local disk; `state` in `data_dir` when not set."
    )
    valkey: ValkeySection | None = Field(default=None, description="For `store: valkey`.")
