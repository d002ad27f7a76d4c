"""Records by HTTP: a batch is taken by a 2xx and by nothing else, in bounded time."""

import json
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from broker.audit.chain import line_hash
from broker.audit.sinks.collector import Collector
from broker.audit.sinks.destination import Destination, SinkFailed
from broker.fetch import FetchRefused
from tests.audit.sinks.collecting import (
    Answer,
    CollectorServer,
    Handler,
    accept,
    closing,
    hang,
    in_time,
    refuse,
    reset,
    seconds_for,
    some_lines,
    take_and_reset,
)
from tests.e2e.patience import until

Use = Callable[[Destination], Destination]


@pytest.fixture
def server() -> Iterator[CollectorServer]:
    server = CollectorServer()
    with closing(server):
        yield server


@pytest.fixture
def collector(server: CollectorServer, use: Use) -> Destination:
    return use(Collector(server.url))


def test_a_batch_is_posted_as_lines(
    tmp_path: Path, server: CollectorServer, collector: Destination
) -> None:
    lines = some_lines(tmp_path)

    collector.take(lines, in_time())

    headers, body = server.requests[0]
    assert body == b"".join(line + b"\n" for line in lines)
    assert headers["Content-Type"] == "application/x-ndjson"
    assert "Authorization" not in headers
    assert "Cookie" not in headers


def test_one_connection_serves_many_batches(
    tmp_path: Path, server: CollectorServer, collector: Destination
) -> None:
    seen = set()

    def look(handler: Handler) -> None:
        seen.add(handler.client_address)
        accept(handler)

    server.scripts += [look] * 5
    for line in some_lines(tmp_path):
        collector.take([line], in_time())

    assert len(seen) == 1
    assert server.lines == some_lines_of(tmp_path)


def some_lines_of(directory: Path) -> list[bytes]:
    return (directory / "w1.000001.jsonl").read_bytes().splitlines()


@pytest.mark.requirement("R-33")
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (refuse(500), "status 500"),
        (refuse(503), "status 503"),
        (refuse(400), "status 400"),
        (refuse(401), "status 401"),
        (refuse(429, Retry_After="7"), "status 429"),
        (refuse(301, Location="http://127.0.0.1:1/"), "status 301"),
        (refuse(307, Location="http://127.0.0.1:1/"), "status 307"),
        (refuse(304), "status 304"),
        (reset, "fetch_failed: ConnectionResetError"),
        (take_and_reset, "fetch_failed: ConnectionResetError"),
        (lambda handler: handler.wfile.write(b"garbage\r\n\r\n"), "fetch_failed"),
        (lambda handler: handler.answer(500, b"x" * 200_000), "status 500"),
    ],
)
def test_whatever_is_no_2xx_is_a_failure_and_the_next_attempt_counts(
    tmp_path: Path,
    server: CollectorServer,
    collector: Destination,
    script: Answer,
    reason: str,
) -> None:
    server.scripts.append(script)
    lines = some_lines(tmp_path)

    with pytest.raises(SinkFailed, match=reason):
        collector.take(lines, in_time())
    collector.take(lines, in_time())

    assert server.lines[-len(lines) :] == lines


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("999999999", 300.0),
        ("-5", 0.0),
        ("soon", 0.0),
        ("1.5", 0.0),
        ("", 0),
    ],
)
def test_what_a_collector_asks_for_is_bounded(
    tmp_path: Path, server: CollectorServer, collector: Destination, told: str, seconds: float
) -> None:
    server.scripts.append(refuse(429, Retry_After=told))

    with pytest.raises(SinkFailed) as refused:
        collector.take(some_lines(tmp_path), in_time())

    assert refused.value.retry_after == seconds
    assert not refused.value.is_too_much


@pytest.mark.parametrize("size", [70_000, 200_000])
def test_a_batch_is_taken_however_long_the_answer_is(
    tmp_path: Path, server: CollectorServer, collector: Destination, size: int
) -> None:
    seen = set()

    def chatter(handler: Handler) -> None:
        seen.add(handler.client_address)
        handler.take()
        handler.answer(200, b"x" * size)

    server.scripts += [chatter] * 2
    lines = some_lines(tmp_path)
    collector.take(lines, in_time())
    collector.take(lines, in_time())

    assert server.lines == lines * 2
    assert len(seen) == 2, "what was not read is taken for no other answer"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_of_a_record_that_is_refused_by_itself_the_place_and_hash_are_posted(
    tmp_path: Path, server: CollectorServer, collector: Destination, status: int
) -> None:
    line = some_lines(tmp_path)[0]
    server.scripts.append(refuse(status))

    collector.take([line], in_time())

    (posted,) = server.lines
    told = json.loads(posted)
    assert told["hash"] == line_hash(line)
    assert told["cut_bytes"] == len(line)
    assert (told["writer"], told["seq"]) == ("w1", 0)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_where_the_place_of_a_record_is_refused_too_it_is_not_taken(
    tmp_path: Path, server: CollectorServer, collector: Destination, status: int
) -> None:
    server.scripts += [refuse(status)] * 2

    with pytest.raises(SinkFailed, match=f"status {status}"):
        collector.take(some_lines(tmp_path)[:1], in_time())

    assert server.lines == []


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
def test_what_is_no_word_about_a_record_cuts_none(
    tmp_path: Path, server: CollectorServer, collector: Destination, status: int
) -> None:
    server.scripts.append(refuse(status))

    with pytest.raises(SinkFailed) as refused:
        collector.take(some_lines(tmp_path)[:1], in_time())

    assert not refused.value.is_too_much
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_batch_that_is_too_much_says_so(
    tmp_path: Path, server: CollectorServer, collector: Destination, status: int
) -> None:
    server.scripts.append(refuse(status))

    with pytest.raises(SinkFailed) as refused:
        collector.take(some_lines(tmp_path), in_time())

    assert refused.value.is_too_much


@pytest.mark.requirement("R-31")
def test_a_collector_that_hangs_is_left_at_the_deadline(
    tmp_path: Path, server: CollectorServer, collector: Destination
) -> None:
    gate = threading.Event()
    server.scripts.append(hang(gate))
    lines = some_lines(tmp_path)

    def wait() -> None:
        with pytest.raises(SinkFailed, match="fetch_timeout"):
            collector.take(lines, in_time(0.5))

    assert seconds_for(wait) < 20
    until(lambda: server.requests, seconds=30, what="the request that hangs has come")
    collector.take(lines, in_time())
    gate.set()
    assert server.lines == lines


@pytest.mark.requirement("R-31")
def test_a_collector_that_drips_is_left_at_the_deadline(
    tmp_path: Path, server: CollectorServer, collector: Destination
) -> None:
    def drip(handler: Handler) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 5_000:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            threading.Event().wait(0.02)

    server.scripts.append(drip)

    def wait() -> None:
        with pytest.raises(SinkFailed, match="fetch_timeout"):
            collector.take(some_lines(tmp_path), in_time(0.2))

    assert seconds_for(wait) < 20


def test_a_connection_that_ended_meanwhile_costs_nobody_a_failure(
    tmp_path: Path, server: CollectorServer, collector: Destination
) -> None:
    lines = some_lines(tmp_path)

    def answer_once(handler: Handler) -> None:
        accept(handler)
        handler.close_connection = True

    server.scripts += [answer_once] * len(lines)
    for line in lines:
        collector.take([line], in_time())

    assert server.lines == lines


def test_a_token_is_read_for_every_batch_and_told_to_nobody(
    tmp_path: Path, server: CollectorServer, use: Use
) -> None:
    token = tmp_path / "token"
    collector = use(Collector(server.url, token_file=token))
    lines = some_lines(tmp_path / "audit")
    for text in ("first-token\n", "second.token="):
        token.write_text(text)
        collector.take(lines, in_time())

    sent = [headers["Authorization"] for headers, _ in server.requests]
    assert sent == ["Bearer first-token", "Bearer second.token="]
    server.scripts.append(refuse(401))
    with pytest.raises(SinkFailed) as refused:
        collector.take(lines, in_time())
    assert "token" not in str(refused.value)


@pytest.mark.parametrize("content", ["", "two words", "a\r\nX-Injected: yes", "t" * 5000, "\u00e9"])
@pytest.mark.requirement("LOG-01")
def test_a_token_file_that_holds_none_sends_nothing(
    tmp_path: Path, server: CollectorServer, use: Use, content: str
) -> None:
    (tmp_path / "token").write_text(content)
    collector = use(Collector(server.url, token_file=tmp_path / "token"))

    with pytest.raises(SinkFailed, match="token file") as refused:
        collector.take(some_lines(tmp_path / "audit"), in_time())

    assert server.requests == []
    assert not content or content not in str(refused.value)


def test_a_token_file_that_is_a_pipe_holds_nobody(
    tmp_path: Path, server: CollectorServer, use: Use
) -> None:
    os.mkfifo(tmp_path / "token")
    collector = use(Collector(server.url, token_file=tmp_path / "token"))
    lines = some_lines(tmp_path / "audit")

    def ask() -> None:
        with pytest.raises(SinkFailed, match="token file cannot be read"):
            collector.take(lines, in_time())

    assert seconds_for(ask) < 20
    assert server.requests == []


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/", "https://user@example.com/", "https://0x7f.1/"]
)
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(FetchRefused):
        Collector(url)


@pytest.mark.parametrize("is_known", [True, False])
def test_over_https_the_authority_is_the_operator_s_own(
    tmp_path: Path, server: CollectorServer, use: Use, *, is_known: bool
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    (authority if is_known else trustme.CA()).cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    url = server.url.replace("http://127.0.0.1", "https://localhost")
    collector = use(Collector(url, ca_file=tmp_path / "ca.pem"))
    lines = some_lines(tmp_path / "audit")

    if is_known:
        collector.take(lines, in_time())
        collector.take(lines, in_time())
        assert server.lines == lines * 2
    else:
        with pytest.raises(SinkFailed, match="fetch_tls"):
            collector.take(lines, in_time())
        assert server.lines == []
