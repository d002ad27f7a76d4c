"""What the real second sinks and exports leave somewhere else is a copy that can be compared."""

import os
import socket
from pathlib import Path

import pytest

from broker.audit.copies.outcome import Comparison
from broker.audit.record import RECORD_DECODER
from broker.audit.sinks.collector import Collector
from broker.audit.sinks.standard_output import StandardOutput
from broker.audit.sinks.syslog import DatagramTransport, StreamTransport, Syslog, UnixTransport
from broker.audit.telling.formats import FORMATS
from tests.audit.copies.received import compared, kept, received
from tests.audit.seal.sealed_logs import SealedLog
from tests.audit.sinks.collecting import (
    CollectorServer,
    StreamServer,
    closing,
    frames,
    in_time,
    refuse,
)
from tests.e2e.patience import until


def spoilt(log: SealedLog) -> None:
    log.forge("http-0", 7, lambda one: setattr(one, "subject", "somebody-else"))


def check(log: SealedLog, copy: Path) -> Comparison:
    """The copy agrees with the log, and no longer once a record was changed."""
    sound = compared(log, copy, complete=True)
    spoilt(log)
    assert sound.is_whole
    assert sound.matching == len(received(log))
    assert compared(log, copy).changed >= 1
    return sound


def test_what_a_collector_got(log: SealedLog, tmp_path: Path) -> None:
    server = CollectorServer()
    collector = Collector(server.url)
    lines = received(log)
    with closing(server, collector):
        collector.take(lines[:40], in_time())
        collector.take(lines[40:], in_time())

    copy = tmp_path / "copy"
    copy.write_bytes(b"".join(body for _, body in server.requests))

    assert check(log, copy).by_hash == 0


def test_what_stands_for_a_record_that_a_collector_refused_is_compared_by_its_hash(
    log: SealedLog, tmp_path: Path
) -> None:
    server = CollectorServer()
    collector = Collector(server.url)
    lines = received(log)
    with closing(server, collector):
        collector.take(lines[:-3], in_time())
        for line in lines[-3:]:
            server.scripts = [refuse(413)]
            collector.take([line], in_time())

    found = check(log, kept(tmp_path / "copy", server.lines))

    assert found.by_hash == 3
    assert found.remarks == ["3 records were compared by the hash that the copy has"]


def test_what_was_written_to_standard_output(log: SealedLog, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    lines = received(log)
    descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT)
    output = StandardOutput(tmp_path / "lock", descriptor=descriptor)
    try:
        output.take(lines[:10], in_time())
        # A line that was cut off is sent again on a line of its own.
        os.write(descriptor, lines[10][:100])
        (tmp_path / "lock").write_bytes(b"1")
        output.take(lines[10:], in_time())
    finally:
        os.close(descriptor)

    found = check(log, copy)

    assert found.unread == 1
    assert found.remarks[-1] == f"{copy}:11: it begins as a record and does not end as one"


@pytest.mark.parametrize(
    "form",
    [
        b"%(whole)s",
        b"2026-11-22T21:00:00.5+00:00 host broker[http-0]: %(line)s",
        b"Nov 22 21:00:00 host broker[4711]: 1 - %(line)s\r",
        b"2026-11-22T21:00:00.5Z stdout F %(line)s",
    ],
    ids=["protocol-23", "file-format", "journal", "container"],
)
def test_what_a_syslog_server_writes_to_a_file(log: SealedLog, tmp_path: Path, form: bytes) -> None:
    server = StreamServer(socket.create_server(("127.0.0.1", 0)))
    syslog = Syslog(StreamTransport("127.0.0.1", server.port), host="h")
    lines = received(log)
    with closing(server, syslog):
        syslog.take(lines, in_time())
        until(lambda: len(server.lines()) == len(lines), seconds=30, what="all arrived")
        whole = [one for stream in server.streams for one in frames(bytes(stream))]
    written = [form % {b"whole": one, b"line": one[one.index(b"] ") + 2 :]} for one in whole]

    assert check(log, kept(tmp_path / "copy", [b"kernel: something else", *written])).unread == 1


def test_what_came_as_datagrams(log: SealedLog, tmp_path: Path) -> None:
    lines = received(log)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as over_udp,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as over_unix,
    ):
        over_udp.bind(("127.0.0.1", 0))
        over_unix.bind(str(tmp_path / "log"))
        sinks = (
            (over_udp, Syslog(DatagramTransport("127.0.0.1", over_udp.getsockname()[1]))),
            (over_unix, Syslog(UnixTransport(tmp_path / "log"))),
        )
        written = []
        for number, line in enumerate(lines):
            server, syslog = sinks[number % 2]
            server.settimeout(30)
            syslog.take([line], in_time())
            written.append(server.recv(65_536))
        for _, syslog in sinks:
            syslog.close()

    check(log, kept(tmp_path / "copy", written))


@pytest.mark.parametrize("name", FORMATS)
def test_what_was_exported(log: SealedLog, tmp_path: Path, name: str) -> None:
    chosen = FORMATS[name]
    rows = [chosen.row(RECORD_DECODER.decode(line), line) for line in reversed(received(log))]
    copy = tmp_path / "copy"
    copy.write_bytes(b"".join([chosen.head, *rows]))

    found = check(log, copy)

    assert found.by_hash == (0 if name == "ndjson" else found.records)


def test_events_may_stand_among_the_lines_of_a_carrier(sound: SealedLog, tmp_path: Path) -> None:
    lines = received(sound)
    rows = [
        b"<110>1 2026-11-22T14:00:00Z host siem 1 - - "
        + FORMATS["ocsf" if number % 2 else "cef"].row(RECORD_DECODER.decode(line), line)
        for number, line in enumerate(lines)
    ]
    copy = tmp_path / "copy"
    copy.write_bytes(b"CEF:0|somebody|else|1|x|x|1|msg=x\n".join(rows))

    found = compared(sound, copy, complete=True)

    assert (found.is_whole, found.matching, found.by_hash) == (True, len(lines), len(lines))
    assert found.unread == len(lines) - 1


def test_tables_and_lines_may_follow_one_another(sound: SealedLog, tmp_path: Path) -> None:
    lines = received(sound)
    chosen = FORMATS["csv"]
    rows = [chosen.row(RECORD_DECODER.decode(line), line) for line in lines]
    content = [line + b"\n" for line in lines[:10]]
    copy = tmp_path / "copy"
    copy.write_bytes(
        b"".join(
            [
                *(b"\xef\xbb\xbf", chosen.head, *rows[20:30], b"\r\n", chosen.head),
                *(*rows[30:], *content, b"\n", *rows[10:20]),
            ]
        )
    )

    found = compared(sound, copy, complete=True)

    assert (found.is_whole, found.unread, found.repeated) == (True, 0, 0)
    assert (found.matching, found.by_hash) == (len(lines), len(lines) - 10)
