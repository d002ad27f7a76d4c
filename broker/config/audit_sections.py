"""What may stand in ``broker.yaml`` about the audit record."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from broker.config.audit_seal_section import SealSection
from broker.config.kinds import Duration, FileName, Size, between, lasting
from broker.config.review_sections import ReviewSection
from broker.config.section import Section


class AuditSection(Section):
    """The audit record. No token is issued without it."""

    directory: FileName | None = Field(
        default=None,
        description="Where the segments are written; `audit` in `data_dir` when not set.",
    )
    segment_size: Annotated[Size, between(65_536, 4_294_967_296)] = Field(
        default=67_108_864, description="The size at which a new segment is begun."
    )
    review: ReviewSection | None = Field(
        default=None,
        description="The auditor's pages, on the operators' port under `/audit`; off when not set.",
    )
    write_timeout: Annotated[Duration, lasting("10ms", "30s")] = Field(
        default=timedelta(seconds=2), description="How long a record may take to be on disk."
    )
    seal: SealSection = Field(
        default_factory=SealSection, description="The checkpoints that make the record evidence."
    )
