"""Settings of the broker itself that are unsafe or impossible together."""

from collections.abc import Callable, Iterator
from pathlib import Path as FilePath
from typing import Final

from broker.config import files
from broker.config.check_audit import check_audit_key, check_time_stamps
from broker.config.check_keys import (
    check_embedded_keys,
    check_key_times,
    check_keys_in_memory,
    check_vault_keys,
)
from broker.config.check_review import check_review
from broker.config.check_sinks import check_sinks
from broker.config.check_state import check_sharing, check_valkey
from broker.config.file import TlsSection
from broker.config.findings import Finding, Scene
from broker.config.key_sections import AppRoleSection, KubernetesSection, TokenFileSection
from broker.config.problems import Path
from broker.fetch.addresses import read_private_networks
from broker.web.peers import FORWARDED_HEADER

Check = Callable[[Scene], Iterator[Finding]]


def _check_listeners(scene: Scene) -> Iterator[Finding]:
    """Nothing leaves the machine in the clear, and the operators' port does not leave it at all."""
    listen, http = scene.file.listen, scene.file.http
    if listen.grpc is None and listen.http is None:
        yield Finding(("listen",), "turns both faces off")
    for name, face in (("grpc", listen.grpc), ("streams", listen.streams)):
        if face and not face.is_loopback and scene.file.grpc.tls is None:
            yield Finding(("listen", name), "needs grpc.tls to listen off loopback")
    is_http_private = http.tls is not None or http.is_behind_proxy
    if listen.http and not listen.http.is_loopback and not is_http_private:
        yield Finding(
            ("listen", "http"),
            "needs http.tls to listen off loopback, or http.is_behind_proxy with trusted_proxies",
        )
    if not listen.admin.is_loopback:
        yield Finding(
            ("listen", "admin"), "must be on loopback: whoever reaches this port needs no login"
        )


def _check_ports(scene: Scene) -> Iterator[Finding]:
    """No two listeners have one address."""
    taken: dict[str, str] = {}
    for name in ("http", "grpc", "admin", "streams"):
        address = getattr(scene.file.listen, name)
        if address is None or address.port == 0:
            continue
        if str(address) in taken:
            other = taken[str(address)]
            yield Finding(("listen", name), f"is the address of listen.{other} as well")
        taken.setdefault(str(address), name)


def _check_proxy(scene: Scene) -> Iterator[Finding]:
    """A proxy is believed only where it is named."""
    http = scene.file.http
    if http.is_behind_proxy and not http.trusted_proxies:
        yield Finding(("http", "is_behind_proxy"), "needs the proxy's address in trusted_proxies")
    if http.trusted_proxies and not http.is_behind_proxy:
        yield Finding(("http", "trusted_proxies"), "has no effect without is_behind_proxy: true")
    if http.caller_header != FORWARDED_HEADER and not http.trusted_proxies:
        yield Finding(("http", "caller_header"), "has no effect without trusted_proxies")


def _check_fetch(scene: Scene) -> Iterator[Finding]:
    """Only private ranges can be declared reachable: loopback and link-local never are."""
    for position, network in enumerate(scene.file.fetch.private_networks):
        try:
            read_private_networks([network])
        except ValueError:
            path = ("fetch", "private_networks", position)
            yield Finding(path, "is not inside a private range, such as 10.0.0.0/8")


def _check_files(scene: Scene) -> Iterator[Finding]:
    """The files named are there, and those with secrets are closed to others."""
    file = scene.file
    for face in ("http", "grpc"):
        tls: TlsSection | None = getattr(file, face).tls
        if tls is not None:
            yield from _check_tls(scene, (face, "tls"), tls=tls)
    vault = file.keys.vault
    if vault is None:
        return
    if vault.ca_file is not None:
        yield from _check(scene, ("keys", "vault", "ca_file"), value=vault.ca_file)
    yield from _check_login(scene, ("keys", "vault", "auth"), auth=vault.auth)
    if vault.rotator is not None:
        yield from _check_login(scene, ("keys", "vault", "rotator"), auth=vault.rotator)


def _check_login(
    scene: Scene, path: Path, *, auth: AppRoleSection | KubernetesSection | TokenFileSection
) -> Iterator[Finding]:
    if isinstance(auth, AppRoleSection):
        for name in ("role_id_file", "secret_id_file"):
            yield from _check(
                scene, (*path, name), value=getattr(auth, name), by=files.check_secret
            )
    elif isinstance(auth, TokenFileSection):
        yield from _check(
            scene, (*path, "token_file"), value=auth.token_file, by=files.check_secret
        )
    else:
        # The kubelet alone decides about the mode of this file.
        yield from _check(scene, (*path, "jwt_file"), value=auth.jwt_file)


def _check_tls(scene: Scene, path: Path, *, tls: TlsSection) -> Iterator[Finding]:
    yield from _check(scene, (*path, "cert_file"), value=tls.cert_file)
    yield from _check(scene, (*path, "key_file"), value=tls.key_file, by=files.check_secret)
    authorities = getattr(tls, "client_ca_file", None)
    if authorities is not None:
        yield from _check(scene, (*path, "client_ca_file"), value=authorities)


def _check(
    scene: Scene,
    path: Path,
    *,
    value: str,
    by: Callable[[FilePath], None] = files.check_readable,
) -> Iterator[Finding]:
    try:
        by(scene.places.resolve(path, value))
    except files.UnusableFile as unusable:
        yield Finding(path, str(unusable))


def _check_directories(scene: Scene) -> Iterator[Finding]:
    """What the broker wrote before is closed to others, and the policies are there."""
    file = scene.file
    for path, value, name in (
        (("keys", "dev", "directory"), file.keys.dev.directory, "keys"),
        (("state", "directory"), file.state.directory, "state"),
        (("audit", "directory"), file.audit.directory, "audit"),
        (("audit", "people", "directory"), file.audit.people.directory, "people"),
    ):
        place = scene.places.under_data(path, value, data_dir=file.data_dir, name=name)
        try:
            files.check_private_directory(place)
        except files.UnusableFile as unusable:
            at: Path = path if value is not None else ("data_dir",)
            yield Finding(at, f"the directory for {name} {unusable}", is_key=True)
    if file.policies is not None:
        yield from _check(scene, ("policies",), value=file.policies, by=files.check_directory)


def check_broker(scene: Scene) -> Iterator[Finding]:
    """Everything that is wrong among the sections that could be read."""
    for check, sections in _CHECKS:
        if scene.broken.isdisjoint(sections):
            yield from check(scene)


# Each check with the sections it reads: it cannot judge where one of them could not be read.
_CHECKS: Final[tuple[tuple[Check, frozenset[str]], ...]] = (
    (_check_listeners, frozenset({"listen", "http", "grpc"})),
    (_check_ports, frozenset({"listen"})),
    (_check_proxy, frozenset({"http"})),
    (_check_fetch, frozenset({"fetch"})),
    (check_embedded_keys, frozenset({"keys", "issuer", "listen"})),
    (check_vault_keys, frozenset({"keys"})),
    (check_key_times, frozenset({"keys", "tokens"})),
    (check_keys_in_memory, frozenset({"keys", "tokens"})),
    (check_audit_key, frozenset({"keys"})),
    (check_time_stamps, frozenset({"audit"})),
    (check_sharing, frozenset({"state", "workers", "listen"})),
    (check_valkey, frozenset({"state"})),
    (check_review, frozenset({"audit", "listen", "issuer"})),
    (check_sinks, frozenset({"audit"})),
    (_check_files, frozenset({"keys", "http", "grpc"})),
    (_check_directories, frozenset({"keys", "state", "audit", "data_dir", "policies"})),
)
