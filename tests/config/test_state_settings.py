"""Where the state is kept, and what is refused there."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from broker.config import Settings
from broker.config.settings import (
    SentinelSettings,
    ServerAddress,
    ValkeySettings,
    ValkeyTlsSettings,
)

Load = Callable[..., Settings]
Refuse = Callable[..., list[str]]

OWN = "issuer: http://127.0.0.1:8080\nstate:\n  store: valkey\n  valkey:\n"


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """What settings may name: all of it is this user's alone, but for the last."""
    for name in ("ca.pem", "cert.pem", "key.pem", "password", "open"):
        (tmp_path / name).write_text("-")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "open").chmod(0o644)


def test_one_server_needs_its_place_alone(load: Load) -> None:
    found = load(OWN + "    host: 127.0.0.1:6379\n").state

    assert found.store == "valkey"
    assert found.valkey == ValkeySettings(
        host=ServerAddress("127.0.0.1", 6379),
        sentinel=None,
        cluster=(),
        tls=None,
        username=None,
        password_file=None,
        database=0,
        prefix="broker",
        replicas=0,
        deadline=timedelta(milliseconds=500),
        connections=16,
    )


def test_everything_can_be_set(load: Load, tmp_path: Path) -> None:
    found = load(
        OWN + "    sentinel: {service: state, hosts: ['a.test:26379', '[::1]:26379'], username: s,"
        " password_file: password}\n"
        "    tls: {ca_file: ca.pem, cert_file: cert.pem, key_file: key.pem}\n"
        "    username: broker\n    password_file: password\n    database: 3\n"
        "    prefix: eu.broker-1\n    replicas: 2\n    deadline: 250ms\n    connections: 64\n"
    ).state.valkey

    assert found is not None
    assert found.sentinel == SentinelSettings(
        "state",
        (ServerAddress("a.test", 26379), ServerAddress("::1", 26379)),
        "s",
        tmp_path / "password",
    )
    assert found.tls == ValkeyTlsSettings(
        tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem"
    )
    assert (found.username, found.password_file) == ("broker", tmp_path / "password")
    assert (found.database, found.prefix, found.replicas) == (3, "eu.broker-1", 2)
    assert (found.deadline, found.connections) == (timedelta(milliseconds=250), 64)


@pytest.mark.parametrize(
    "places",
    ["cluster: ['127.0.0.1:7000']", "sentinel: {service: s, hosts: ['localhost:26379']}"],
)
def test_where_a_primary_can_be_replaced_a_replica_has_what_is_acknowledged(
    load: Load, places: str
) -> None:
    found = load(OWN + f"    {places}\n").state.valkey

    assert found is not None
    assert found.replicas == 1


def test_what_is_in_force_is_shown_as_it_is_written(load: Load) -> None:
    shown = load(OWN + "    cluster: ['127.0.0.1:7000', '[::1]:7001']\n").masked()["state"]

    assert shown["valkey"]["cluster"] == ["127.0.0.1:7000", "[::1]:7001"]
    assert shown["valkey"]["deadline"] == "500ms"


@pytest.mark.requirement("std:OPS-01")
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{}", "state.valkey: needs exactly one of host, sentinel and cluster"),
        (
            "{host: '127.0.0.1:1', cluster: ['127.0.0.1:2']}",
            "state.valkey: needs exactly one of host, sentinel and cluster",
        ),
        ("{host: valkey.test}", "state.valkey.host: must be host:port"),
        ("{host: 'valkey.test:0'}", "state.valkey.host: must be host:port"),
        ("{host: 'valkey.test:65536'}", "state.valkey.host: must be host:port"),
        ("{host: 'Val key:6379'}", "state.valkey.host: must be host:port"),
        ("{host: '-x.test:6379'}", "state.valkey.host: must begin with a host name"),
        ("{host: '[valkey]:6379'}", "state.valkey.host: must be host:port"),
        ("{host: '[1.2.3.4]:6379'}", "state.valkey.host: must begin with a host name"),
        ("{host: 6379}", "state.valkey.host: must be text"),
        (
            "{host: 'valkey.test:6379', password_file: password}",
            "state.valkey.host: needs state.valkey.tls to be off loopback",
        ),
        (
            "{host: 'valkey.test:6379', tls: {}}",
            "state.valkey.host: needs password_file or tls.cert_file to be off loopback",
        ),
        (
            "{sentinel: {service: s, hosts: ['127.0.0.1:1', '10.0.0.1:1']}, tls: {}}",
            "state.valkey.sentinel.hosts.1: needs password_file or tls.cert_file",
        ),
        (
            "{cluster: ['10.0.0.1:1'], password_file: password}",
            "state.valkey.cluster.0: needs state.valkey.tls to be off loopback",
        ),
        (
            "{cluster: ['127.0.0.1:1'], database: 1}",
            "state.valkey.database: must be 0 with a cluster",
        ),
        (
            "{cluster: ['127.0.0.1:1'], replicas: 0}",
            "state.valkey.replicas: must be at least 1 with sentinel or cluster",
        ),
        (
            "{sentinel: {service: s, hosts: ['127.0.0.1:1']}, replicas: 0}",
            "state.valkey.replicas: must be at least 1 with sentinel or cluster",
        ),
        ("{cluster: ['127.0.0.1:1', '127.0.0.1:1']}", "state.valkey.cluster: names an entry twice"),
        ("{host: '127.0.0.1:1', username: broker}", "state.valkey.username: needs password_file"),
        (
            "{sentinel: {service: s, hosts: ['127.0.0.1:1'], username: s}}",
            "state.valkey.sentinel.username: needs password_file",
        ),
        (
            "{host: '127.0.0.1:1', tls: {cert_file: cert.pem}}",
            "state.valkey.tls: needs both cert_file and key_file, or neither",
        ),
        (
            "{host: '127.0.0.1:1', password_file: open}",
            "state.valkey.password_file: is open to others on this machine",
        ),
        (
            "{host: '127.0.0.1:1', tls: {cert_file: cert.pem, key_file: open}}",
            "state.valkey.tls.key_file: is open to others on this machine",
        ),
        (
            "{host: '127.0.0.1:1', tls: {ca_file: missing}}",
            "state.valkey.tls.ca_file: cannot be read",
        ),
        (
            "{sentinel: {service: s, hosts: ['127.0.0.1:1'], password_file: open}}",
            "state.valkey.sentinel.password_file: is open to others on this machine",
        ),
        ("{host: '127.0.0.1:1', prefix: '{x}'}", "state.valkey.prefix: must be 1 to 64 letters"),
        ("{host: '127.0.0.1:1', prefix: ''}", "state.valkey.prefix: must be 1 to 64 letters"),
        (
            "{host: '127.0.0.1:1', deadline: 10s}",
            "state.valkey.deadline: must be between 20ms and 2s",
        ),
        ("{host: '127.0.0.1:1', replicas: 9}", "state.valkey.replicas: must be between 0 and 5"),
        (
            "{host: '127.0.0.1:1', password: secret}",
            "state.valkey.password: there is no such setting",
        ),
    ],
)
def test_a_store_that_is_unsafe_or_impossible_is_refused(
    refuse: Refuse, text: str, problem: str
) -> None:
    (found, *_) = refuse(
        f"issuer: http://127.0.0.1:8080\nstate: {{store: valkey, valkey: {text}}}\n"
    )

    assert problem in found
    assert "secret" not in found


def test_the_store_needs_its_section(refuse: Refuse) -> None:
    found = refuse("issuer: http://127.0.0.1:8080\nstate: {store: valkey}\n")

    assert ["state.valkey: is required by state.store: valkey" in one for one in found] == [True]


def test_a_section_without_its_store_is_refused(refuse: Refuse) -> None:
    found = refuse("issuer: http://127.0.0.1:8080\nstate: {valkey: {host: '127.0.0.1:1'}}\n")

    assert ["has no effect without state.store: valkey" in one for one in found] == [True]


def test_several_workers_and_streams_may_share_it(load: Load) -> None:
    text = OWN + "    host: 127.0.0.1:6379\nworkers: {http: 2, grpc: 2}\n"

    assert load(text + "listen: {streams: '127.0.0.1:8444'}\n").workers.http == 2
