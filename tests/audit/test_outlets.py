"""What leaves the record is put together from the settings: required sinks, the shipper and alerts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.audit.alerts.terms import AlertTerms
from broker.audit.outlets import Outlets
from broker.audit.sinks.collector import Collector
from broker.audit.sinks.standard_output import StandardOutput
from broker.audit.sinks.syslog import Syslog
from broker.audit.sinks.terms import SinkKind, SinkTerms, open_shipped, open_sink
from broker.config import Settings, load_settings
from broker.foundation import open_audit_log
from broker.metrics.outlets import outlet_families
from tests.audit.chains import write_chain
from tests.audit.requests import try_to_write, write
from tests.audit.sinks.collecting import CollectorServer, closing, lines_of, refuse, shipping
from tests.e2e.patience import until
from tests.ports import free_port


@pytest.fixture
def server() -> Iterator[CollectorServer]:
    server = CollectorServer()
    with closing(server):
        yield server


@pytest.fixture
def settings(tmp_path: Path, server: CollectorServer) -> Settings:
    file = tmp_path / "broker.yaml"
    file.write_text(
        "issuer: http://127.0.0.1:8080\naudit:\n  directory: audit\n  write_timeout: 30s\n"
        f"  sinks: [{{type: http, url: '{server.url.partition(chr(63))[0]}', required: true}}]\n"
    )
    return load_settings(file, {})


def test_a_process_waits_for_the_sinks_that_its_settings_require(
    settings: Settings, server: CollectorServer
) -> None:
    log = open_audit_log(settings, writer="w1")
    write(log, "taken")
    assert server.lines == lines_of(settings.audit.directory)

    server.scripts.append(refuse(500))
    assert not try_to_write(log, "not taken")
    log.close()


def test_a_command_waits_for_the_files_and_its_records_are_shipped(
    settings: Settings, server: CollectorServer
) -> None:
    directory = settings.audit.directory
    log = open_audit_log(settings, writer="operator", is_command=True)
    write(log, "urgent")
    log.close()
    assert server.lines == []

    (terms,) = settings.audit.sinks
    with shipping(directory, open_shipped(terms, directory)):
        until(lambda: server.lines == lines_of(directory, "operator"), seconds=30, what="shipped")


def test_what_is_measured_has_closed_labels(tmp_path: Path, server: CollectorServer) -> None:
    terms = [
        SinkTerms("here", "http", is_required=False, url=server.url),
        SinkTerms("away", "tcp", is_required=False, host="127.0.0.1", port=free_port()),
    ]
    outlets = Outlets(
        tmp_path, sinks=terms, alerts=AlertTerms(), damaged=lambda: {"anchor": "rolled back"}
    )
    outlets.begin()
    write_chain(tmp_path, count=10)
    until(
        lambda: outlets.backlogs() == {"here": 0, "away": len(lines_of(tmp_path))},
        seconds=30,
        what="one sink has all",
    )
    until(lambda: outlets.alerts()["damage"] == 1, seconds=30, what="the damage is told")
    outlets.close()

    backlog, alerts = outlet_families(backlogs=outlets.backlogs(), alerts=outlets.alerts())
    assert {tuple(one.labels.items()): one.value for one in backlog.samples} == {
        (("sink", "away"),): len(lines_of(tmp_path)),
        (("sink", "here"),): 0,
    }
    assert {one.labels["rule"] for one in alerts.samples} == set(outlets.alerts())
    assert {one.name for one in alerts.samples} == {"broker_audit_alerts_total"}


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("stdout", StandardOutput),
        ("http", Collector),
        *((kind, Syslog) for kind in ("unix", "udp", "tcp", "tls")),
    ],
)
def test_each_kind_has_its_destination(tmp_path: Path, kind: SinkKind, made: type) -> None:
    terms = SinkTerms("one", kind, is_required=False, url="http://127.0.0.1:9/", host="::1", port=9)

    sink = open_sink(terms, tmp_path)

    assert (sink.name, type(sink.destination)) == ("one", made)
    sink.destination.close()
