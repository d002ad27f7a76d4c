"""What may stand in ``broker.yaml`` about second sinks of the audit record."""

from typing import Annotated, Literal

from pydantic import Field

from broker.config.kinds import FileName, ServerPlace, Url
from broker.config.section import Section

SinkName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]


class _SinkSection(Section):
    name: SinkName | None = Field(
        default=None,
        description="Its name in logs, measures and the audit directory, where it must stay the same; "
        "its type when not set.",
    )
    required: bool = Field(
        default=False,
        description="Whether every answer waits until this sink has its record. If not, records are "
        "shipped from the files, as soon as the sink takes them.",
    )


class StandardOutputSection(_SinkSection):
    """Standard output of the broker's processes: a line for each record."""

    type: Literal["stdout"] = Field(description="Its sort.")


class SyslogSection(_SinkSection):
    """A syslog server, by RFC 5424."""

    type: Literal["syslog"] = Field(description="Its sort.")
    transport: Literal["unix", "udp", "tcp", "tls"] = Field(
        default="unix",
        description="How it is reached. `udp` cannot be required: nobody would know of a loss.",
    )
    socket: FileName | None = Field(
        default=None, description="For `unix`: the socket; `/dev/log` when not set."
    )
    server: ServerPlace | None = Field(default=None, description="For the others: host and port.")
    ca_file: FileName | None = Field(
        default=None,
        description="For `tls`: authorities of its certificate; the system's when not set.",
    )
    cert_file: FileName | None = Field(
        default=None, description="For `tls`: the broker's own certificate, if it asks for one."
    )
    key_file: FileName | None = Field(
        default=None, description="Its key. Others on the machine may not read it."
    )
    accept_clear_text: bool = Field(
        default=False,
        description="Whether `udp` or `tcp` may leave this machine, where others can read it.",
    )


class CollectorSection(_SinkSection):
    """A collector that takes batches of NDJSON by POST."""

    type: Literal["http"] = Field(description="Its sort.")
    url: Url = Field(description="Where batches are posted to.")
    token_file: FileName | None = Field(
        default=None,
        description="A file with the bearer token, read for every batch. Others may not read it.",
    )
    ca_file: FileName | None = Field(
        default=None, description="Authorities of its certificate; the system's when not set."
    )


SinkSection = Annotated[
    StandardOutputSection | SyslogSection | CollectorSection, Field(discriminator="type")
]
