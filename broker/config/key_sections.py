"""What may stand in ``broker.yaml`` about our signing keys and about Vault."""

from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import Field

from broker.config.kinds import (
    Duration,
    FileName,
    Url,
    VaultName,
    VaultPath,
    holding,
    lasting,
)
from broker.config.section import Section

_SERVICE_ACCOUNT_TOKEN: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"
SigningAlgorithm = Literal["ES256", "RS256"]


class DevKeysSection(Section):
    """The embedded key store, for one machine."""

    directory: FileName | None = Field(
        default=None, description="Where the keys live; `keys` in `data_dir` when not set."
    )


class AppRoleSection(Section):
    """Login by AppRole."""

    method: Literal["approle"] = Field(description="Its name.")
    mount: VaultPath = Field(default="approle", description="Where the method is mounted.")
    role_id_file: FileName = Field(description="A file with the role id.")
    secret_id_file: FileName = Field(description="A file with the secret id.")


class KubernetesSection(Section):
    """Login by a Kubernetes service account."""

    method: Literal["kubernetes"] = Field(description="Its name.")
    mount: VaultPath = Field(default="kubernetes", description="Where the method is mounted.")
    role: VaultName = Field(description="The role to log in as.")
    jwt_file: FileName = Field(
        default=_SERVICE_ACCOUNT_TOKEN,
        description="The service account's token, as the kubelet mounts it.",
    )


class TokenFileSection(Section):
    """A Vault token that somebody else keeps fresh in a file, such as an agent."""

    method: Literal["token_file"] = Field(description="Its name.")
    token_file: FileName = Field(description="The file with the token.")


class VaultKeysSection(Section):
    """The transit key for each signing algorithm."""

    ES256: VaultName | None = Field(default=None, description="A key of type `ecdsa-p256`.")
    RS256: VaultName | None = Field(default=None, description="A key of type `rsa-2048` or larger.")


class RecordSection(Section):
    """The record of the keys' lives, in a key-value engine of version 2."""

    mount: VaultPath = Field(default="kv", description="Where the engine is mounted.")
    path: VaultPath = Field(
        default="broker/keys", description="The folder of the record; one for each issuer."
    )


class EphemeralSection(Section):
    """Keys that live in the memory of one process, certified by a key in Vault."""

    certifier: VaultName = Field(
        description="The key of type `ecdsa-p256` that certifies them and signs nothing else."
    )
    lifetime: Annotated[
        Duration, lasting("10s", "24h", reason="a key in memory must soon be worthless")
    ] = Field(default=timedelta(hours=12), description="How long such a key signs, at most 24h.")


class VaultSection(Section):
    """Vault or OpenBao with the transit engine."""

    url: Url = Field(description="Its address.")
    mount: VaultPath = Field(default="transit", description="Where the transit engine is mounted.")
    keys: VaultKeysSection = Field(description="The names of the keys.")
    audit_key: VaultName = Field(
        default="broker-audit",
        description="The key of type `ed25519` that seals the audit record and signs nothing else.",
    )
    namespace: VaultPath | None = Field(
        default=None, description="The namespace, where there are any."
    )
    ca_file: FileName | None = Field(
        default=None, description="Authorities of its certificate; the system's when not set."
    )
    auth: AppRoleSection | KubernetesSection | TokenFileSection = Field(
        discriminator="method", description="How to log in."
    )
    record: RecordSection | None = Field(
        default=None,
        description="Where the lives of the keys are on record; `broker keys rotate` needs it. When not "
        "set, the age of a version alone decides when it signs.",
    )
    rotator: AppRoleSection | KubernetesSection | TokenFileSection | None = Field(
        default=None,
        discriminator="method",
        description="How to log in to rotate keys, which signing has no right to; with it the broker "
        "looks after the record by itself.",
    )
    ephemeral: EphemeralSection | None = Field(
        default=None, description="For `store: vault-ephemeral`."
    )
    outage: Annotated[
        Duration, lasting("0s", "1h", reason="a key that was revoked meanwhile would sign on")
    ] = Field(
        default=timedelta(minutes=10),
        description="How long keys in memory go on signing while Vault is away; for `vault-ephemeral` "
        "and `vault-export`.",
    )


class KeysSection(Section):
    """Our signing keys."""

    store: Literal["dev", "vault-transit", "vault-ephemeral", "vault-export"] = Field(
        default="dev",
        description="`dev` embeds the keys and serves a loopback issuer alone; with "
        "`vault-transit` they never leave Vault; with `vault-ephemeral` each process signs with a "
        "short-lived key of its own, which Vault certifies; `vault-export` takes the keys out of Vault "
        "and warns of it at every start.",
    )
    algorithm: SigningAlgorithm = Field(default="ES256", description="What tokens are signed with.")
    also: Annotated[list[SigningAlgorithm], holding(0, 2)] = Field(
        default=["RS256"], description="Further algorithms, which a resource may ask for."
    )
    publish_ahead: Annotated[Duration, lasting("1s", "30d")] | None = Field(
        default=None,
        description="How long a key is published before it signs: `tokens.jwks_max_age`, three times "
        "`poll` and `clock_difference` when not set, and never less.",
    )
    keep_published: Annotated[Duration, lasting("1s", "30d")] | None = Field(
        default=None,
        description="How long a key stays published after its successor began to sign: 20m when not "
        "set, and never less than the longest lifetime of a token, `tokens.leeway`, three times `poll` "
        "and `clock_difference`.",
    )
    rotate_every: Annotated[Duration, lasting("1s", "3650d")] | None = Field(
        default=None,
        description="The age at which a key is replaced by itself; never when not set.",
    )
    spare: bool = Field(
        default=True,
        description="A further key is always published, so that it can sign at once in an emergency. "
        "It is made by whoever rotates.",
    )
    poll: Annotated[Duration, lasting("1s", "1m")] = Field(
        default=timedelta(seconds=5), description="How often the keys in Vault are looked at."
    )
    clock_difference: Annotated[Duration, lasting("0s", "5m")] = Field(
        default=timedelta(seconds=30),
        description="How far the clocks of replicas and of Vault may differ.",
    )
    dev: DevKeysSection = Field(default_factory=DevKeysSection, description="For `store: dev`.")
    vault: VaultSection | None = Field(default=None, description="For the stores in Vault.")
