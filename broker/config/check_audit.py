"""Settings of the audit record's checkpoints that would show less than they promise."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Final

from broker.config import files
from broker.config.findings import Finding, Scene
from broker.config.problems import Path

_AT: Final[Path] = ("audit", "seal")


def check_audit_key(scene: Scene) -> Iterator[Finding]:
    """The key that seals the record is none that anything else is signed with."""
    vault = scene.file.keys.vault
    if vault is None:
        return
    others = [*vault.keys.model_dump(exclude_none=True).values()]
    if vault.ephemeral is not None:
        others.append(vault.ephemeral.certifier)
    if vault.audit_key in others:
        at = ("keys", "vault", "audit_key")
        yield Finding(at, "must be a key that signs no tokens and no statements")


def check_time_stamps(scene: Scene) -> Iterator[Finding]:
    """A time-stamping authority is believed only by roots that the operator names."""
    seal = scene.file.audit.seal
    if seal.timestamp_url is None:
        if seal.timestamp_ca_file is not None:
            yield Finding(
                (*_AT, "timestamp_ca_file"), "has no effect without audit.seal.timestamp_url"
            )
        return
    if seal.timestamp_ca_file is None:
        yield Finding((*_AT, "timestamp_ca_file"), "is required by audit.seal.timestamp_url")
    else:
        at = (*_AT, "timestamp_ca_file")
        try:
            files.check_readable(scene.places.resolve(at, seal.timestamp_ca_file))
        except files.UnusableFile as unusable:
            yield Finding(at, str(unusable))
    if find_spec("rfc3161_client") is None:
        yield Finding(
            (*_AT, "timestamp_url"), "needs the extra `timestamps`, which is not installed"
        )
