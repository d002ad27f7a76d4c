"""Settings of the state store that are unsafe or impossible together."""

from collections.abc import Iterator

from broker.config import files
from broker.config.findings import Finding, Scene
from broker.config.problems import Path
from broker.config.settings import ServerAddress
from broker.config.state_sections import ValkeySection

_AT: Path = ("state", "valkey")


def check_sharing(scene: Scene) -> Iterator[Finding]:
    """What one process has spent, no other may spend again."""
    file = scene.file
    processes = (file.workers.http if file.listen.http else 0) + (
        file.workers.grpc if file.listen.grpc else 0
    )
    if file.state.store == "memory" and processes > 1 and not scene.is_single_process:
        yield Finding(
            ("state", "store"),
            f"memory is not shared by the {processes} worker processes, so an assertion could be"
            " used once in each; use sqlite",
        )
    if file.state.store == "memory" and file.listen.streams:
        yield Finding(
            ("listen", "streams"),
            "needs state.store: sqlite or valkey, since the process that serves it sees no other's"
            " memory",
        )


def check_valkey(scene: Scene) -> Iterator[Finding]:
    """The servers can be found, and nobody else can read or answer what is asked of them."""
    state = scene.file.state
    if state.valkey is None:
        if state.store == "valkey":
            yield Finding(_AT, "is required by state.store: valkey")
        return
    if state.store != "valkey":
        yield Finding(_AT, "has no effect without state.store: valkey", is_key=True)
    yield from _check_places(state.valkey)
    yield from _check_protection(state.valkey)
    yield from _check_credentials(state.valkey)
    yield from _check_files(scene, state.valkey)


def _check_places(valkey: ValkeySection) -> Iterator[Finding]:
    named = [name for name in ("host", "sentinel", "cluster") if getattr(valkey, name)]
    if len(named) != 1:
        yield Finding(_AT, "needs exactly one of host, sentinel and cluster", is_key=True)
    if valkey.cluster and valkey.database:
        yield Finding((*_AT, "database"), "must be 0 with a cluster, which has no other")
    if valkey.replicas == 0 and (valkey.sentinel or valkey.cluster):
        yield Finding(
            (*_AT, "replicas"),
            "must be at least 1 with sentinel or cluster: a primary that is cut off would go on"
            " spending what its successor spends too",
        )


def _check_protection(valkey: ValkeySection) -> Iterator[Finding]:
    distant = [(path, address) for path, address in _addresses(valkey) if not address.is_loopback]
    if distant and valkey.tls is None:
        yield Finding(distant[0][0], "needs state.valkey.tls to be off loopback")
    if distant and valkey.password_file is None and not (valkey.tls and valkey.tls.cert_file):
        yield Finding(
            distant[0][0],
            "needs password_file or tls.cert_file to be off loopback: whoever"
            " reaches it could spend and revoke",
        )


def _check_credentials(valkey: ValkeySection) -> Iterator[Finding]:
    for path, section in ((_AT, valkey), ((*_AT, "sentinel"), valkey.sentinel)):
        if section is not None and section.username and section.password_file is None:
            yield Finding((*path, "username"), "needs password_file")
    tls = valkey.tls
    if tls is not None and (tls.cert_file is None) != (tls.key_file is None):
        yield Finding((*_AT, "tls"), "needs both cert_file and key_file, or neither", is_key=True)


def _check_files(scene: Scene, valkey: ValkeySection) -> Iterator[Finding]:
    tls, sentinel = valkey.tls, valkey.sentinel
    for path, value, check in (
        ((*_AT, "tls", "ca_file"), tls and tls.ca_file, files.check_readable),
        ((*_AT, "tls", "cert_file"), tls and tls.cert_file, files.check_readable),
        ((*_AT, "tls", "key_file"), tls and tls.key_file, files.check_secret),
        ((*_AT, "password_file"), valkey.password_file, files.check_secret),
        (
            (*_AT, "sentinel", "password_file"),
            sentinel and sentinel.password_file,
            files.check_secret,
        ),
    ):
        if not value:
            continue
        try:
            check(scene.places.resolve(path, value))
        except files.UnusableFile as unusable:
            yield Finding(path, str(unusable))


def _addresses(valkey: ValkeySection) -> Iterator[tuple[Path, ServerAddress]]:
    if valkey.host is not None:
        yield (*_AT, "host"), valkey.host
    if valkey.sentinel is not None:
        for at, address in enumerate(valkey.sentinel.hosts):
            yield (*_AT, "sentinel", "hosts", at), address
    for at, address in enumerate(valkey.cluster):
        yield (*_AT, "cluster", at), address
