"""Settings of second sinks that are unsafe or impossible together."""

from collections.abc import Callable, Iterator
from pathlib import Path as FilePath

from broker.config import files
from broker.config.findings import Finding, Scene
from broker.config.problems import Path
from broker.config.sink_sections import CollectorSection, SyslogSection


def check_sinks(scene: Scene) -> Iterator[Finding]:
    """Each sink has a name of its own, can be reached, and is as sure as it is said to be."""
    taken: set[str] = set()
    for number, sink in enumerate(scene.file.audit.sinks):
        path: Path = ("audit", "sinks", number)
        name = sink.name or sink.type
        if name in taken:
            yield Finding(path, f"is the second sink named {name}; give it a name of its own")
        taken.add(name)
        if isinstance(sink, SyslogSection):
            yield from _check_syslog(path, sink)
        if not isinstance(sink, SyslogSection | CollectorSection):
            continue
        yield from _check_files(scene, path, sink)


def _check_syslog(path: Path, sink: SyslogSection) -> Iterator[Finding]:
    if sink.transport == "udp" and sink.required:
        yield Finding(
            (*path, "required"),
            "cannot be true with transport: udp, which tells nobody of a loss; use tls or tcp",
        )
    is_unix = sink.transport == "unix"
    if is_unix and sink.server is not None:
        yield Finding((*path, "server"), "has no effect with transport: unix", is_key=True)
    if not is_unix and sink.server is None:
        yield Finding(path, f"needs server for transport: {sink.transport}")
    if not is_unix and sink.socket is not None:
        yield Finding((*path, "socket"), "has no effect without transport: unix", is_key=True)
    yield from _check_protection(path, sink)


def _check_protection(path: Path, sink: SyslogSection) -> Iterator[Finding]:
    is_clear = sink.transport in {"udp", "tcp"}
    is_distant = sink.server is not None and not sink.server.is_loopback
    if is_clear and is_distant and not sink.accept_clear_text:
        yield Finding(
            (*path, "transport"),
            "must be tls to leave this machine, or accept_clear_text: true says that others may read",
        )
    if sink.transport != "tls":
        for name in ("ca_file", "cert_file", "key_file"):
            if getattr(sink, name) is not None:
                yield Finding((*path, name), "has no effect without transport: tls", is_key=True)
    if (sink.cert_file is None) != (sink.key_file is None):
        yield Finding(path, "needs both cert_file and key_file, or neither")


def _check_files(
    scene: Scene, path: Path, sink: SyslogSection | CollectorSection
) -> Iterator[Finding]:
    checks: tuple[tuple[str, Callable[[FilePath], None]], ...] = (
        ("ca_file", files.check_readable),
        ("cert_file", files.check_readable),
        ("key_file", files.check_secret),
        ("token_file", files.check_secret),
    )
    for name, check in checks:
        value: str | None = getattr(sink, name, None)
        if value is None:
            continue
        try:
            check(scene.places.resolve((*path, name), value))
        except files.UnusableFile as unusable:
            yield Finding((*path, name), str(unusable))
