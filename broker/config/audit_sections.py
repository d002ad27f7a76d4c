"""What may stand in ``broker.yaml`` about the audit record."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from broker.config.alert_sections import AlertsSection
from broker.config.audit_seal_section import SealSection, VerifySection
from broker.config.kinds import Duration, FileName, Size, holding, lasting, sized
from broker.config.review_sections import ReviewSection
from broker.config.section import Section
from broker.config.sink_sections import SinkSection


class PeopleSection(Section):
    """How people are named in the audit record."""

    names: Literal["pseudonym", "clear"] = Field(
        default="pseudonym",
        description="`pseudonym` names people by a keyed hash, by which who holds the key finds them; "
        "`clear` by their subjects.",
    )
    period: Literal["month", "quarter", "year"] = Field(
        default="month",
        description="How long one key is used, in UTC. To destroy a key forgets the people of its period.",
    )
    directory: FileName | None = Field(
        default=None,
        description="Where the keys are, unless Vault has them beside `keys.vault.record`; `people` in "
        "`data_dir` when not set.",
    )


class AuditSection(Section):
    """The audit record. No token is issued without it."""

    directory: FileName | None = Field(
        default=None,
        description="Where the segments are written; `audit` in `data_dir` when not set.",
    )
    segment_size: Annotated[Size, sized("64KiB", "4GiB")] = Field(
        default=67_108_864, description="The size at which a new segment is begun."
    )
    review: ReviewSection | None = Field(
        default=None,
        description="The auditor's pages, on the operators' port under `/audit`; off when not set.",
    )
    write_timeout: Annotated[Duration, lasting("10ms", "30s")] = Field(
        default=timedelta(seconds=2), description="How long a record may take to be on disk."
    )
    sinks: Annotated[list[SinkSection], holding(0, 3)] = Field(
        default=[], description="Where records go besides the files."
    )
    alerts: AlertsSection = Field(
        default_factory=AlertsSection, description="When somebody should look at the record."
    )
    seal: SealSection = Field(
        default_factory=SealSection, description="The checkpoints that make the record evidence."
    )
    verify: VerifySection = Field(
        default_factory=VerifySection, description="How often all of it is verified, unasked."
    )
    people: PeopleSection = Field(
        default_factory=PeopleSection, description="How people are named in it."
    )
