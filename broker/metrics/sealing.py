"""What is measured about the evidence of the audit record, by the process that seals it."""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class SealMeasures:
    """
    How sealing is doing; ``None`` leaves a measure out.

    Moments are unix seconds, and the page tells how long ago they were.
    """

    sealed_records: int
    sealed_at: float | None
    failures: int
    broken_chains: int
    anchored_records: int | None
    has_anchor_conflict: bool | None
    stamped_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationMeasures:
    """
    What the last look through the whole record found; ``None`` leaves a measure out.

    ``age`` is how many seconds ago it ended, or the process began.
    """

    records: int | None
    faults: int | None
    age: float
    failures: int


def seal_families(found: SealMeasures, *, now: float) -> Iterator[Metric]:
    """The families for the page."""
    sealed = GaugeMetricFamily(
        "broker_audit_sealed_records", "Records that a signed checkpoint is over."
    )
    sealed.add_metric([], found.sealed_records)
    yield sealed
    broken = GaugeMetricFamily(
        "broker_audit_broken_chains",
        "Chains that do not go on as they were sealed. Anything but 0 is to be looked into at once.",
    )
    broken.add_metric([], found.broken_chains)
    yield broken
    failures = CounterMetricFamily(
        "broker_audit_sealing_failures", "Rounds in which nothing could be sealed."
    )
    failures.add_metric([], found.failures)
    yield failures
    age = GaugeMetricFamily(
        "broker_audit_checkpoint_age_seconds",
        "Age of the last checkpoint; an hour where nothing new is recorded.",
    )
    yield _filled(age, None if found.sealed_at is None else now - found.sealed_at)
    anchored = GaugeMetricFamily(
        "broker_audit_anchored_records", "Records that the anchored checkpoint is over."
    )
    yield _filled(anchored, found.anchored_records)
    conflict = GaugeMetricFamily(
        "broker_audit_anchor_conflict",
        "Whether what is anchored is no checkpoint of this record. Anything but 0 is to be looked into.",
    )
    yield _filled(conflict, found.has_anchor_conflict)
    stamped = GaugeMetricFamily(
        "broker_audit_time_stamp_age_seconds", "How long ago a checkpoint was time-stamped."
    )
    yield _filled(stamped, None if found.stamped_at is None else now - found.stamped_at)


def verification_families(found: VerificationMeasures | None) -> Iterator[Metric]:
    """The families for the page; without a value where nothing is verified unasked."""
    age = GaugeMetricFamily(
        "broker_audit_verification_age_seconds",
        "How long ago the last look through the whole record came to an end, or this process began.",
    )
    yield _filled(age, None if found is None else found.age)
    records = GaugeMetricFamily(
        "broker_audit_verified_records",
        "Records that it looked through; absent until the first look has ended.",
    )
    yield _filled(records, None if found is None else found.records)
    faults = GaugeMetricFamily(
        "broker_audit_verification_faults",
        "Faults that it found; absent until the first look has ended. "
        "Anything but 0 is to be looked into at once.",
    )
    yield _filled(faults, None if found is None else found.faults)
    failures = CounterMetricFamily(
        "broker_audit_verification_failures",
        "Looks through the whole record that came to no end: it is not known whether it is whole.",
    )
    failures.add_metric([], 0 if found is None else found.failures)
    yield failures


def _filled(family: GaugeMetricFamily, value: float | None) -> GaugeMetricFamily:
    if value is not None:
        family.add_metric([], max(float(value), 0.0))
    return family
