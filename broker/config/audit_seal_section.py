"""What may stand in ``broker.yaml`` about the checkpoints of the audit record, and its verification."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from broker.config.kinds import Duration, FileName, Url, lasting
from broker.config.section import Section


class SealSection(Section):
    """Signed checkpoints over all chains of the audit record."""

    every: Annotated[
        Duration,
        lasting("1s", "5m", reason="what came since the last checkpoint could be cut off unseen"),
    ] = Field(default=timedelta(seconds=5), description="How often what is new is sealed.")
    timestamp_url: Url | None = Field(
        default=None,
        description="A time-stamping authority (RFC 3161) that is to witness checkpoints; needs the extra "
        "`timestamps` and `timestamp_ca_file`.",
    )
    timestamp_every: Annotated[Duration, lasting("1m", "7d")] = Field(
        default=timedelta(hours=1), description="How often a checkpoint is time-stamped."
    )
    timestamp_ca_file: FileName | None = Field(
        default=None,
        description="The root certificates, in PEM form, that its time-stamps have to lead to.",
    )


class VerifySection(Section):
    """The whole audit record is verified again and again, by a process of lowest priority."""

    enabled: bool = Field(default=True, description="Whether that is done.")
    every: Annotated[Duration, lasting("1m", "30d")] = Field(
        default=timedelta(days=1),
        description="How long after one look the next one begins, at most.",
    )
    within: Annotated[Duration, lasting("1m", "7d")] = Field(
        default=timedelta(hours=6),
        description="How long a look may take; then it is ended, which is an alert.",
    )
