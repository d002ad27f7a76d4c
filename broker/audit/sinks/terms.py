"""What an operator says about a second sink, and the destination that comes of it."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from broker.audit.sinks.collector import Collector
from broker.audit.sinks.destination import Destination, Sink
from broker.audit.sinks.shipper import Shipped
from broker.audit.sinks.standard_output import StandardOutput
from broker.audit.sinks.syslog import (
    DatagramTransport,
    StreamTransport,
    Syslog,
    Transport,
    UnixTransport,
)
from broker.fetch.guarded import tls_context

SinkKind = Literal["stdout", "unix", "udp", "tcp", "tls", "http"]


@dataclass(frozen=True, slots=True)
class SinkTerms:
    """
    A second sink: ``kind`` is ``http``, ``stdout``, or how syslog is reached.

    ``url`` is for ``http``, ``path`` for ``unix``, ``host`` and ``port`` for the rest of syslog.
    """

    name: str
    kind: SinkKind
    is_required: bool
    url: str = ""
    host: str = ""
    port: int = 0
    path: Path = Path("/dev/log")
    token_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


def open_sink(terms: SinkTerms, directory: Path) -> Sink:
    """
    The sink, for one thread of one process; nothing is connected yet.

    ``directory`` is that of the audit files. Raises ``OSError`` for certificates that cannot be read.
    """
    return Sink(terms.name, _destination(terms, directory))


def open_shipped(terms: SinkTerms, directory: Path) -> Shipped:
    """The same for the shipper."""
    return Shipped(open_sink(terms, directory), terms.is_required)


def _destination(terms: SinkTerms, directory: Path) -> Destination:
    if terms.kind == "stdout":
        return StandardOutput(directory / "sinks" / "standard-output.lock")
    if terms.kind == "http":
        return Collector(terms.url, token_file=terms.token_file, ca_file=terms.ca_file)
    return Syslog(_transport(terms))


def _transport(terms: SinkTerms) -> Transport:
    if terms.kind == "unix":
        return UnixTransport(terms.path)
    if terms.kind == "udp":
        return DatagramTransport(terms.host, terms.port)
    return StreamTransport(terms.host, terms.port, _tls(terms) if terms.kind == "tls" else None)


def _tls(terms: SinkTerms) -> ssl.SSLContext:
    context = tls_context(terms.ca_file, protocols=())
    if terms.cert_file is not None:
        context.load_cert_chain(terms.cert_file, terms.key_file)
    return context
