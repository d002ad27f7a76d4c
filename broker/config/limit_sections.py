"""What may stand in ``broker.yaml`` about how often anybody may ask."""

from typing import Annotated

from pydantic import Field

from broker.config.kinds import Rate, between
from broker.config.section import Section


class QuotaSection(Section):
    """How much somebody may ask."""

    rate: Rate = Field(description="How often in the long run, such as `20/s` or `10/m`.")
    burst: Annotated[int, between(1, 1_000_000)] | None = Field(
        default=None,
        description="How often at once after a pause; when not set what the rate brings in two "
        "seconds, and 10 at least.",
    )


class LimitsSection(Section):
    """How often anybody may ask before the answer is 429. `null` turns a limit off."""

    per_client: QuotaSection | None = Field(
        default=QuotaSection(rate="1000/s", burst=2000),
        description="Each client, once it has proved that it is one. `limit` of a client overrides it.",
    )
    per_source: QuotaSection | None = Field(
        default=QuotaSection(rate="50/s", burst=500),
        description="Each address, or network of 2^64 IPv6 addresses, whose requests come without a "
        "good proof; beyond it nothing from there is looked at. Others count for nobody's address.",
    )
