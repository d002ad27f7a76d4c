"""What is measured of second sinks and alerts, by the process that ships and looks."""

from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric


def outlet_families(*, backlogs: Mapping[str, int], alerts: Mapping[str, int]) -> Iterator[Metric]:
    """
    The families for the page.

    ``backlogs`` are by the names that the operator gave the sinks, ``alerts`` by the closed list of rules.
    """
    backlog = GaugeMetricFamily(
        "broker_audit_sink_backlog_records",
        "Records on disk that a second sink has not taken yet.",
        labels=["sink"],
    )
    for sink, count in sorted(backlogs.items()):
        backlog.add_metric([sink], count)
    yield backlog
    raised = CounterMetricFamily(
        "broker_audit_alerts", "Alerts on the audit record, by rule.", labels=["rule"]
    )
    for rule, count in sorted(alerts.items()):
        raised.add_metric([rule], count)
    yield raised
