"""From the checked sections about second sinks to their terms."""

from pathlib import Path as FilePath
from typing import Final

from broker.audit.sinks.terms import SinkTerms
from broker.config.findings import Scene
from broker.config.problems import Path
from broker.config.sink_sections import CollectorSection, StandardOutputSection, SyslogSection

_SYSTEM_LOG: Final = FilePath("/dev/log")


def build_sinks(scene: Scene) -> tuple[SinkTerms, ...]:
    """The terms of sections in which the checks found nothing."""
    return tuple(
        _terms(scene, ("audit", "sinks", number), sink)
        for number, sink in enumerate(scene.file.audit.sinks)
    )


def _terms(
    scene: Scene, path: Path, sink: StandardOutputSection | SyslogSection | CollectorSection
) -> SinkTerms:
    name = sink.name or sink.type
    if isinstance(sink, StandardOutputSection):
        return SinkTerms(name, "stdout", sink.required)
    if isinstance(sink, CollectorSection):
        return SinkTerms(
            name,
            "http",
            sink.required,
            url=sink.url,
            token_file=_file(scene, (*path, "token_file"), sink.token_file),
            ca_file=_file(scene, (*path, "ca_file"), sink.ca_file),
        )
    return SinkTerms(
        name,
        sink.transport,
        sink.required,
        host=sink.server.host if sink.server else "",
        port=sink.server.port if sink.server else 0,
        path=_file(scene, (*path, "socket"), sink.socket) or _SYSTEM_LOG,
        ca_file=_file(scene, (*path, "ca_file"), sink.ca_file),
        cert_file=_file(scene, (*path, "cert_file"), sink.cert_file),
        key_file=_file(scene, (*path, "key_file"), sink.key_file),
    )


def _file(scene: Scene, path: Path, value: str | None) -> FilePath | None:
    return scene.places.resolve(path, value) if value is not None else None
