"""Records as syslog messages: one well-formed message for each, over every transport, in bounded time."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing as closed_after
from pathlib import Path

import msgspec
import pytest
import trustme

from broker.audit.chain import line_hash
from broker.audit.record import Record
from broker.audit.sinks.destination import Destination, SinkFailed
from broker.audit.sinks.dialing import is_ended
from broker.audit.sinks.syslog import (
    DatagramTransport,
    StreamTransport,
    Syslog,
    UnixTransport,
    message,
)
from broker.fetch.guarded import tls_context
from tests.audit.chains import record
from tests.audit.sinks.collecting import (
    StreamServer,
    closing,
    in_time,
    read_message,
    seconds_for,
    some_lines,
)
from tests.e2e.patience import until
from tests.ports import free_port

HOSTILE = 'a\r\n<0>1 - - - - - - forged\u2028\x1b[31m] "\\ eyJ \u202e {}'


@pytest.fixture
def server() -> Iterator[StreamServer]:
    server = StreamServer(socket.create_server(("127.0.0.1", 0)))
    with closing(server):
        yield server


Use = Callable[[Destination], Destination]


@pytest.fixture
def over_tcp(use: Use) -> Callable[[int], Destination]:
    return lambda port: use(Syslog(StreamTransport("127.0.0.1", port), host="h"))


def test_a_message_says_whose_record_it_is_and_is_the_record(tmp_path: Path) -> None:
    for number, line in enumerate(some_lines(tmp_path)):
        found = read_message(message(line, host="broker-1.example"))

        told = json.loads(line)
        assert found["line"] == line
        assert found["priority"] == b"110", "log audit, informational"
        assert (found["host"], found["app"]) == (b"broker-1.example", b"broker")
        assert (found["process"].decode(), found["kind"].decode()) == ("w1", told["event"])
        assert found["time"].decode() == told["time"]
        assert int(found["sequence"]) == number + 1


def test_a_denial_is_a_warning_and_nothing_in_it_says_otherwise(tmp_path: Path) -> None:
    spoofed = msgspec.structs.replace(record(1), actors=[{"decision": "deny", "event": "x"}])
    denied = msgspec.structs.replace(record(2), decision="deny", reason="replay")

    _, permit, deny, _ = some_lines(tmp_path, records=[spoofed, denied])

    assert read_message(message(permit, host="h"))["priority"] == b"110"
    assert read_message(message(deny, host="h"))["priority"] == b"108"


@pytest.mark.requirement("LOG-02")
def test_hostile_text_stays_inside_its_message(
    tmp_path: Path, server: StreamServer, over_tcp: Callable[[int], Destination]
) -> None:
    hostile = msgspec.structs.replace(record(1), subject=HOSTILE, detail=HOSTILE, event_id=HOSTILE)
    lines = some_lines(tmp_path, records=[hostile])

    over_tcp(server.port).take(lines, in_time())

    until(lambda: len(server.lines()) == 3, seconds=30, what="all arrived")
    assert server.lines() == lines
    assert json.loads(server.lines()[1])["subject"] == HOSTILE


@pytest.mark.parametrize("name", ["", "w\u00f6rk er", "a" * 300, "\n"])
def test_a_host_name_that_is_none_is_made_one(tmp_path: Path, name: str, use: Use) -> None:
    server = StreamServer(socket.create_server(("127.0.0.1", 0)))
    with closing(server):
        use(Syslog(StreamTransport("127.0.0.1", server.port), host=name)).take(
            some_lines(tmp_path), in_time()
        )
        until(lambda: len(server.messages()) == 5, seconds=30, what="all arrived")


def test_all_lines_arrive_over_one_connection(
    tmp_path: Path, server: StreamServer, over_tcp: Callable[[int], Destination]
) -> None:
    lines = some_lines(tmp_path, 20)
    syslog = over_tcp(server.port)

    for line in lines:
        syslog.take([line], in_time())

    until(lambda: server.lines() == lines, seconds=30, what="all arrived")
    assert len(server.streams) == 1


def test_over_a_new_connection_what_may_be_lost_comes_again(
    tmp_path: Path, server: StreamServer, over_tcp: Callable[[int], Destination]
) -> None:
    lines = some_lines(tmp_path, 20)
    syslog = over_tcp(server.port)
    syslog.take(lines[:10], in_time())
    until(lambda: len(server.lines()) == 10, seconds=30, what="the first arrived")
    server.cut()
    until(
        lambda: has_heard_of_the_end(syslog), seconds=30, what="the end of the connection arrived"
    )

    syslog.take(lines[10:], in_time())

    until(lambda: len(server.lines()) == 10 + len(lines), seconds=30, what="the rest arrived")
    assert server.lines() == [*lines[:10], *lines]


def has_heard_of_the_end(syslog: Destination) -> bool:
    assert isinstance(syslog, Syslog)
    assert isinstance(syslog._transport, StreamTransport)
    assert syslog._transport._sock is not None
    return is_ended(syslog._transport._sock)


def test_what_is_kept_for_a_new_connection_is_bounded(
    server: StreamServer, tmp_path: Path, use: Use
) -> None:
    transport = StreamTransport("127.0.0.1", server.port)
    syslog = use(Syslog(transport))
    line = max(some_lines(tmp_path, records=[wide()]), key=len)

    for _ in range(40):
        syslog.take([line] * 2, in_time())

    assert 1024 * 1024 >= transport._sent_bytes > 512 * 1024
    assert transport._sent_bytes == sum(map(len, transport._sent))


def wide() -> Record:
    """A record of some 60 kilobytes."""
    return msgspec.structs.replace(
        record(1), policy_ids=["p" * 500] * 64, scopes_asked=["s" * 500] * 60
    )


@pytest.mark.requirement("R-31")
def test_a_server_that_does_not_read_is_left_at_the_deadline(
    tmp_path: Path, server: StreamServer, over_tcp: Callable[[int], Destination]
) -> None:
    server.is_reading.clear()
    line = max(some_lines(tmp_path, records=[wide()]), key=len)
    syslog = over_tcp(server.port)

    def fill() -> None:
        for _ in range(1000):
            syslog.take([line] * 16, in_time(0.3))

    started = time.monotonic()
    with pytest.raises(SinkFailed, match="fetch_timeout"):
        fill()
    assert time.monotonic() - started < 60
    server.is_reading.set()
    syslog.take([line], in_time())


@pytest.mark.parametrize("port", [1, 0])
def test_where_nobody_listens_the_sink_fails(
    tmp_path: Path, port: int, over_tcp: Callable[[int], Destination]
) -> None:
    with pytest.raises(SinkFailed, match="fetch_failed"):
        over_tcp(port).take(some_lines(tmp_path), in_time())


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_server(authority: trustme.CA) -> Iterator[StreamServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = StreamServer(socket.create_server(("127.0.0.1", 0)), context)
    with closing(server):
        yield server


def over_tls(
    use: Use, authority: trustme.CA, directory: Path, server: StreamServer, host: str
) -> Destination:
    file = directory / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return use(Syslog(StreamTransport(host, server.port, tls_context(file, protocols=()))))


def test_over_tls_the_same_arrives(
    tmp_path: Path, authority: trustme.CA, tls_server: StreamServer, use: Use
) -> None:
    lines = some_lines(tmp_path / "audit", 20)
    syslog = over_tls(use, authority, tmp_path, tls_server, "localhost")

    syslog.take(lines[:5], in_time())
    syslog.take(lines[5:], in_time())

    until(lambda: tls_server.lines() == lines, seconds=30, what="all arrived")
    assert len(tls_server.streams) == 1
    syslog.close()


@pytest.mark.parametrize("wrong", ["name", "authority"])
def test_a_server_that_cannot_prove_its_name_gets_nothing(
    tmp_path: Path, authority: trustme.CA, tls_server: StreamServer, wrong: str, use: Use
) -> None:
    host = "127.0.0.1" if wrong == "name" else "localhost"
    syslog = over_tls(
        use, trustme.CA() if wrong == "authority" else authority, tmp_path, tls_server, host
    )

    with pytest.raises(SinkFailed, match="fetch_tls"):
        syslog.take(some_lines(tmp_path / "audit"), in_time())

    assert tls_server.lines() == []


def test_a_datagram_carries_one_message_and_a_longer_one_is_told_of(
    tmp_path: Path, use: Use
) -> None:
    long = msgspec.structs.replace(
        record(1),
        policy_ids=["p" * 500] * 64,
        scopes_asked=["s" * 500] * 64,
        targets_asked=["t" * 500] * 10,
    )
    lines = some_lines(tmp_path, records=[long])
    with closed_after(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(30)

        use(Syslog(DatagramTransport("127.0.0.1", server.getsockname()[1]))).take(lines, in_time())
        found = [read_message(server.recv(70_000)) for _ in lines]

    assert [found[0]["line"], found[2]["line"]] == [lines[0], lines[2]]
    assert json.loads(found[1]["line"]) == {
        "cut_bytes": len(lines[1]),
        "hash": line_hash(lines[1]),
        "seq": 1,
        "writer": "w1",
    }


def test_the_system_s_own_socket_takes_messages(tmp_path: Path, use: Use) -> None:
    lines = some_lines(tmp_path / "audit")
    with closed_after(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as server:
        server.bind(str(tmp_path / "log"))
        server.settimeout(30)

        use(Syslog(UnixTransport(tmp_path / "log"))).take(lines, in_time())

        assert [read_message(server.recv(70_000))["line"] for _ in lines] == lines


def test_a_system_s_socket_that_is_a_stream_takes_them_too(tmp_path: Path, use: Use) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "log"))
    listener.listen()
    server = StreamServer(listener)
    lines = some_lines(tmp_path / "audit")
    with closing(server):
        use(Syslog(UnixTransport(tmp_path / "log"))).take(lines, in_time())
        until(lambda: server.lines() == lines, seconds=30, what="all arrived")


@pytest.mark.requirement("R-31")
def test_a_system_s_socket_that_nobody_reads_is_left_at_the_deadline(
    tmp_path: Path, use: Use
) -> None:
    lines = some_lines(tmp_path / "audit", 600)
    with closed_after(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as server:
        server.bind(str(tmp_path / "log"))
        syslog = use(Syslog(UnixTransport(tmp_path / "log")))

        def fill() -> None:
            with pytest.raises(SinkFailed, match="fetch_timeout"):
                syslog.take(lines, in_time(0.2))

        assert seconds_for(fill) < 20


def test_a_system_without_a_log_is_a_sink_that_fails(tmp_path: Path, use: Use) -> None:
    with pytest.raises(SinkFailed, match="fetch_failed"):
        use(Syslog(UnixTransport(tmp_path / "none"))).take(
            some_lines(tmp_path / "audit"), in_time()
        )


def test_a_server_that_is_back_is_found_again(
    tmp_path: Path, over_tcp: Callable[[int], Destination]
) -> None:
    port, before = free_port(), threading.active_count()
    syslog = over_tcp(port)
    lines = some_lines(tmp_path)
    with pytest.raises(SinkFailed):
        syslog.take(lines, in_time())

    server = StreamServer(socket.create_server(("127.0.0.1", port)))
    with closing(server):
        syslog.take(lines, in_time())
        until(lambda: server.lines() == lines, seconds=30, what="all arrived")
    until(lambda: threading.active_count() < before + 5, seconds=30, what="no thread is left")
