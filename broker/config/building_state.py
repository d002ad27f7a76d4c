"""From the checked section about the state to its frozen settings."""

from pathlib import Path as FilePath

from broker.config.findings import Scene
from broker.config.problems import Path
from broker.config.settings import (
    SentinelSettings,
    StateSettings,
    ValkeySettings,
    ValkeyTlsSettings,
)
from broker.config.state_sections import SentinelSection, ValkeySection, ValkeyTlsSection

_AT: Path = ("state", "valkey")


def build_state(scene: Scene, directory: FilePath) -> StateSettings:
    """The settings of a section in which the checks found nothing."""
    section = scene.file.state
    valkey = _valkey(scene, section.valkey) if section.valkey is not None else None
    return StateSettings(section.store, directory, valkey)


def _valkey(scene: Scene, valkey: ValkeySection) -> ValkeySettings:
    replicas = valkey.replicas
    if replicas is None:
        replicas = 1 if valkey.sentinel or valkey.cluster else 0
    return ValkeySettings(
        host=valkey.host,
        sentinel=_sentinel(scene, valkey.sentinel),
        cluster=tuple(valkey.cluster),
        tls=_tls(scene, valkey.tls),
        username=valkey.username,
        password_file=_file(scene, "password_file", value=valkey.password_file),
        database=valkey.database,
        prefix=valkey.prefix,
        replicas=replicas,
        deadline=valkey.deadline,
        connections=valkey.connections,
    )


def _sentinel(scene: Scene, sentinel: SentinelSection | None) -> SentinelSettings | None:
    if sentinel is None:
        return None
    return SentinelSettings(
        service=sentinel.service,
        hosts=tuple(sentinel.hosts),
        username=sentinel.username,
        password_file=_file(scene, "sentinel", "password_file", value=sentinel.password_file),
    )


def _tls(scene: Scene, tls: ValkeyTlsSection | None) -> ValkeyTlsSettings | None:
    if tls is None:
        return None
    return ValkeyTlsSettings(
        ca_file=_file(scene, "tls", "ca_file", value=tls.ca_file),
        cert_file=_file(scene, "tls", "cert_file", value=tls.cert_file),
        key_file=_file(scene, "tls", "key_file", value=tls.key_file),
    )


def _file(scene: Scene, *names: str, value: str | None) -> FilePath | None:
    return scene.places.resolve((*_AT, *names), value) if value is not None else None
