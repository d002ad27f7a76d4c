"""Measures of the broker for Prometheus, with label values from closed lists only."""

from broker.metrics.exposition import Exposition, prepare_directory
from broker.metrics.measures import Metrics
from broker.metrics.observed import ObservedAuditLog, ObservedKeyStore, ObservedPolicyEngine

__all__ = [
    "Exposition",
    "Metrics",
    "ObservedAuditLog",
    "ObservedKeyStore",
    "ObservedPolicyEngine",
    "prepare_directory",
]
