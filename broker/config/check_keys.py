"""Settings of the signing keys that cannot be, or would leave a token that nobody can verify."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from broker.config.durations import write_duration
from broker.config.file import BrokerFile
from broker.config.findings import Finding, Scene
from broker.config.values import is_loopback_url

_LONGEST_AHEAD: Final = timedelta(days=7)
_KEPT_WHEN_UNSET: Final = timedelta(minutes=20)


def notice_of(file: BrokerFile) -> timedelta:
    """The time within which every replica that may sign has read what is on record."""
    return 3 * file.keys.poll + file.keys.clock_difference


def outage_of(file: BrokerFile) -> timedelta:
    """How long a replica goes on signing while Vault is away."""
    is_in_memory = file.keys.store in ("vault-ephemeral", "vault-export")
    return file.keys.vault.outage if is_in_memory and file.keys.vault is not None else timedelta(0)


def publish_ahead_of(file: BrokerFile) -> timedelta:
    """How long a key is published before it signs."""
    return file.keys.publish_ahead or _least_ahead(file)


def keep_published_of(file: BrokerFile) -> timedelta:
    """How long a key stays published after its successor began to sign."""
    return file.keys.keep_published or max(_KEPT_WHEN_UNSET, _least_kept(file))


def _least_ahead(file: BrokerFile) -> timedelta:
    return file.tokens.jwks_max_age + notice_of(file)


def _least_kept(file: BrokerFile) -> timedelta:
    tokens = file.tokens
    longest = max(tokens.lifetime, tokens.machine_lifetime, tokens.id_jag_lifetime)
    follow = max(3 * file.keys.poll, outage_of(file)) + file.keys.clock_difference
    return longest + tokens.leeway + follow


def check_key_times(scene: Scene) -> Iterator[Finding]:
    """No key signs before verifiers can know it, and none leaves while a token of it may live."""
    file = scene.file
    keys, ahead = file.keys, publish_ahead_of(file)
    if ahead < _least_ahead(file):
        yield Finding(
            ("keys", "publish_ahead"),
            f"must be at least {write_duration(_least_ahead(file))}: verifiers keep the key set for"
            " tokens.jwks_max_age, and replicas need three times keys.poll and keys.clock_difference",
        )
    if keep_published_of(file) < _least_kept(file):
        yield Finding(
            ("keys", "keep_published"),
            f"must be at least {write_duration(_least_kept(file))}: that is how long a token may live"
            " that was signed with a key whose successor has just begun",
        )
    if keys.rotate_every is not None and keys.rotate_every < ahead + notice_of(file):
        yield Finding(
            ("keys", "rotate_every"),
            f"must be at least {write_duration(ahead + notice_of(file))}: a key takes that long to"
            " begin to sign",
        )


def check_embedded_keys(scene: Scene) -> Iterator[Finding]:
    """The embedded keys are for one machine: tokens that others are to trust need a real store."""
    if scene.file.keys.store != "dev":
        return
    if not is_loopback_url(scene.file.issuer):
        yield Finding(
            ("keys", "store"),
            "embedded keys serve a loopback issuer alone; use vault-transit for this issuer",
            is_key=True,
        )
    for name in ("http", "grpc", "streams"):
        address = getattr(scene.file.listen, name)
        if address is not None and not address.is_loopback:
            yield Finding(
                ("listen", name), "must be on loopback with the embedded keys (keys.store: dev)"
            )
    if scene.file.keys.vault is not None:
        yield Finding(
            ("keys", "vault"), "has no effect without keys.store: vault-transit", is_key=True
        )


def check_vault_keys(scene: Scene) -> Iterator[Finding]:
    """Every algorithm signed with has its key, and whoever shall rotate keys is able to."""
    keys = scene.file.keys
    if keys.store == "dev":
        return
    if keys.vault is None:
        yield Finding(("keys", "vault"), f"is required by keys.store: {keys.store}")
        return
    for algorithm in dict.fromkeys((keys.algorithm, *keys.also)):
        if getattr(keys.vault.keys, algorithm) is None:
            yield Finding(
                ("keys", "vault", "keys"),
                f"names no key for {algorithm}, which keys.algorithm or keys.also asks for",
            )
    if keys.vault.rotator is not None and keys.vault.record is None:
        yield Finding(("keys", "vault", "rotator"), "has no effect without keys.vault.record")
    if keys.rotate_every is not None and keys.vault.rotator is None:
        yield Finding(
            ("keys", "rotate_every"),
            "needs keys.vault.record and keys.vault.rotator, a login that may rotate the keys",
        )


def check_keys_in_memory(scene: Scene) -> Iterator[Finding]:
    """Keys in the memory of a process have a certifier, and a record that can revoke them."""
    keys = scene.file.keys
    if keys.vault is None:
        return
    at = ("keys", "vault", "ephemeral")
    if keys.store != "vault-ephemeral":
        if keys.vault.ephemeral is not None:
            yield Finding(at, "has no effect without keys.store: vault-ephemeral", is_key=True)
        return
    if keys.vault.record is None:
        yield Finding(("keys", "vault", "record"), "is required by keys.store: vault-ephemeral")
    if keys.vault.ephemeral is None:
        yield Finding(at, "is required by keys.store: vault-ephemeral")
        return
    if keys.vault.ephemeral.certifier in keys.vault.keys.model_dump().values():
        yield Finding((*at, "certifier"), "must be a key that signs no tokens")
    yield from _ephemeral_times(scene.file, lifetime=keys.vault.ephemeral.lifetime)


def _ephemeral_times(file: BrokerFile, *, lifetime: timedelta) -> Iterator[Finding]:
    ahead = publish_ahead_of(file)
    if lifetime < 2 * ahead:
        yield Finding(
            ("keys", "vault", "ephemeral", "lifetime"),
            f"must be at least {write_duration(2 * ahead)}: the next key is published"
            f" {write_duration(ahead)} before it signs",
        )
    if ahead > _LONGEST_AHEAD:
        yield Finding(
            ("keys", "publish_ahead"),
            f"must be at most {write_duration(_LONGEST_AHEAD)} with keys.store: vault-ephemeral",
        )
