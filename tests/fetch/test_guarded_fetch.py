"""The guarded fetch against real servers on this machine."""

import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.fetch import Fetched, FetchReason, FetchRefused, GuardedFetcher
from tests.e2e.patience import until
from tests.fetch.servers import Script, Server, answer, running, send
from tests.ports import free_port

Serve = Callable[[Script], Server]
JSON = frozenset({"application/json", "application/jwk-set+json"})
LIMIT = 1000
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
PROMPT = 20.0
"""Seconds that a fetch with a far shorter deadline takes at the very most on a busy machine."""


@pytest.fixture
def fetcher(ca_file: Path) -> GuardedFetcher:
    return GuardedFetcher(allow_loopback=True, ca_file=ca_file, deadline=30.0)


@pytest.fixture
def impatient(ca_file: Path) -> GuardedFetcher:
    return GuardedFetcher(allow_loopback=True, ca_file=ca_file, deadline=0.3)


def get(fetcher: GuardedFetcher, url: str) -> Fetched:
    return fetcher.get(url, max_bytes=LIMIT, media_types=JSON)


def refusal_of(fetcher: GuardedFetcher, url: str) -> FetchReason:
    with pytest.raises(FetchRefused) as refused:
        get(fetcher, url)
    return refused.value.reason


# ---- what arrives


def test_a_document_arrives_whole_with_its_freshness(serve: Serve, fetcher: GuardedFetcher) -> None:
    server = serve(answer(b'{"keys":[]}', "Cache-Control: public, max-age=300", "Age: 40"))

    fetched = get(fetcher, server.https("/jwks?v=1"))

    assert fetched == Fetched(b'{"keys":[]}', "application/json", 260)
    assert b"keys" not in repr(fetched).encode()


@pytest.mark.parametrize(
    ("header", "max_age"),
    [
        ("Cache-Control: no-store, max-age=300", 0),
        ("Cache-Control: No-Cache", 0),
        ('Cache-Control: max-age="60"', 60),
        ("Cache-Control: max-age=60, max-age=30", 30),
        ("Cache-Control: max-age=-1", None),
        ("Cache-Control: max-age=9999999999999999999", None),
        ("Cache-Control: s-maxage=60", None),
        ("Expires: Thu, 01 Jan 2099 00:00:00 GMT", None),
    ],
)
def test_freshness_is_read_from_cache_control_alone(
    serve: Serve, fetcher: GuardedFetcher, header: str, max_age: int | None
) -> None:
    server = serve(answer(b"{}", header))

    assert get(fetcher, server.https()).max_age == max_age


def test_chunks_are_joined(serve: Serve, fetcher: GuardedFetcher) -> None:
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    server = serve(send(head + b"2\r\n{}\r\n1\r\n \r\n0\r\n\r\n"))

    assert get(fetcher, server.https()).body == b"{} "


def test_a_document_of_just_the_limit_arrives(serve: Serve, fetcher: GuardedFetcher) -> None:
    server = serve(answer(b"x" * LIMIT, media_type="application/JWK-Set+JSON; charset=utf-8"))

    assert get(fetcher, server.https()).body == b"x" * LIMIT


# ---- what is refused


@pytest.mark.requirement("NET-05")
@pytest.mark.requirement("KEY-11")
@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
@pytest.mark.parametrize(
    "location", ["/other", "https://idp.test/", "http://localhost/", "https://169.254.169.254/"]
)
def test_a_redirect_is_refused_and_not_followed(
    serve: Serve, fetcher: GuardedFetcher, status: int, location: str
) -> None:
    server = serve(answer(b"{}", f"Location: {location}", status=f"{status} Elsewhere"))

    assert refusal_of(fetcher, server.https()) is FetchReason.REDIRECT
    assert server.connections == 1


@pytest.mark.requirement("NET-05")
@pytest.mark.parametrize(
    "status", [201, 202, 203, 204, 206, 400, 401, 404, 410, 418, 500, 503, 599]
)
def test_any_other_status_is_refused_and_nothing_is_repeated(
    serve: Serve, fetcher: GuardedFetcher, status: int
) -> None:
    server = serve(answer(b"" if status == 204 else b"{}", "Retry-After: 0", status=f"{status} No"))

    assert refusal_of(fetcher, server.https()) is FetchReason.STATUS
    assert server.connections == 1


@pytest.mark.parametrize(
    "media_type",
    [
        "",
        "text/html",
        "text/plain",
        "application/octet-stream",
        "application/json, text/html",
        "application/jsonp",
        "application/*",
    ],
)
def test_another_media_type_is_refused(
    serve: Serve, fetcher: GuardedFetcher, media_type: str
) -> None:
    server = serve(answer(b"{}", media_type=media_type))

    assert refusal_of(fetcher, server.https()) is FetchReason.MEDIA_TYPE


@pytest.mark.requirement("CIMD-04")
@pytest.mark.parametrize(
    ("media_type", "is_accepted"),
    [
        ("application/client-metadata+json", True),
        ("application/JWK-Set+JSON; charset=utf-8", True),
        ("application/json", False),
        ("application/a+json+xml", False),
        ("application/a+jsonp", False),
        ("application/a json", False),
    ],
)
def test_a_suffix_accepts_the_types_that_end_so(
    serve: Serve, fetcher: GuardedFetcher, media_type: str, *, is_accepted: bool
) -> None:
    server = serve(answer(b"{}", media_type=media_type))
    accepted = frozenset({"text/plain", "+json"})

    with nullcontext() if is_accepted else pytest.raises(FetchRefused):
        fetcher.get(server.https(), max_bytes=LIMIT, media_types=accepted)
    assert b"\r\nAccept: text/plain\r\n" in server.requests[0]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip", "x"])
def test_an_encoded_answer_is_refused_unread(
    serve: Serve, fetcher: GuardedFetcher, encoding: str
) -> None:
    server = serve(answer(b"\x1f\x8b", f"Content-Encoding: {encoding}"))

    assert refusal_of(fetcher, server.https()) is FetchReason.MEDIA_TYPE


@pytest.mark.requirement("NET-07")
def test_one_byte_over_the_limit_is_too_large(serve: Serve, fetcher: GuardedFetcher) -> None:
    server = serve(answer(b"x" * (LIMIT + 1)))

    assert refusal_of(fetcher, server.https()) is FetchReason.TOO_LARGE


@pytest.mark.requirement("NET-07")
@pytest.mark.parametrize(
    "head",
    [
        JSON_HEAD + b"\r\n",
        JSON_HEAD + b"Content-Length: 99999999999\r\n\r\n",
    ],
)
def test_an_endless_body_is_left_after_the_limit(
    serve: Serve, fetcher: GuardedFetcher, head: bytes
) -> None:
    sent = []

    def pour(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            sent.append(connection.send(b"x" * 4096))

    server = serve(pour)

    assert refusal_of(fetcher, server.https()) is FetchReason.TOO_LARGE


def test_endless_small_chunks_are_left_after_the_limit(
    serve: Serve, fetcher: GuardedFetcher
) -> None:
    def pour(connection: socket.socket) -> None:
        connection.sendall(JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"1" + b";x" * 500 + b"\r\nx\r\n")

    server = serve(pour)

    assert refusal_of(fetcher, server.https()) is FetchReason.TOO_LARGE


@pytest.mark.requirement("NET-14")
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"X-Filler: x\r\n", FetchReason.FAILED),
        (b"X-Filler: " + b"x" * 60_000 + b"\r\n", FetchReason.TOO_LARGE),
        (b"HTTP/1.1 100 Continue\r\n\r\n", FetchReason.TOO_LARGE),
        (b"x" * 4096, FetchReason.TOO_LARGE),
    ],
)
def test_a_hundred_thousand_headers_are_not_read(
    serve: Serve, fetcher: GuardedFetcher, line: bytes, reason: FetchReason
) -> None:
    def pour(connection: socket.socket) -> None:
        if not line.startswith(b"HTTP"):
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
        for _ in range(100_000):
            connection.sendall(line)

    server = serve(pour)

    assert refusal_of(fetcher, server.https()) is reason


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 9999 OK\r\n\r\n",
        JSON_HEAD + b"Content-Length: 10\r\n\r\n{}",
        JSON_HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
        JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}",
        b"\x15\x03\x01\x00\x02\x02\x46",
    ],
)
def test_an_answer_that_is_cut_off_or_is_not_http_fails(
    serve: Serve, fetcher: GuardedFetcher, raw: bytes
) -> None:
    server = serve(send(raw))

    assert refusal_of(fetcher, server.https()) is FetchReason.FAILED


def test_nobody_there_is_a_failure(fetcher: GuardedFetcher) -> None:
    assert refusal_of(fetcher, f"https://127.0.0.1:{free_port()}/") is FetchReason.FAILED


# ---- time


@pytest.mark.requirement("NET-14")
@pytest.mark.parametrize(
    "prefix",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_a_server_that_drips_is_left_at_the_deadline(
    serve: Serve, impatient: GuardedFetcher, prefix: bytes
) -> None:
    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(prefix)
        while not over.wait(0.02):
            connection.sendall(b"1")

    server = serve(drip)
    began = time.monotonic()

    assert refusal_of(impatient, server.https()) is FetchReason.TIMEOUT
    assert time.monotonic() - began < PROMPT
    over.set()


@pytest.mark.requirement("NET-14")
@pytest.mark.parametrize("greeting", [b"", b"\x16\x03\x03\x40\x00\x02"])
def test_a_handshake_that_stalls_or_drips_is_left_at_the_deadline(
    impatient: GuardedFetcher, greeting: bytes
) -> None:
    over = threading.Event()

    def stall(connection: socket.socket) -> None:
        connection.sendall(greeting)
        while not over.wait(0.02):
            connection.sendall(b"\x00" if greeting else b"")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    stall(connection)
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        began = time.monotonic()

        assert refusal_of(impatient, url) is FetchReason.TIMEOUT
        assert time.monotonic() - began < PROMPT
        over.set()
        thread.join()


@pytest.mark.requirement("NET-14")
def test_a_lookup_that_hangs_is_left_at_the_deadline_and_neighbours_are_served(
    serve: Serve, ca_file: Path
) -> None:
    release = threading.Event()

    def resolve(host: str, _port: int) -> list[str]:
        if host == "idp.test":
            release.wait(120)
        return ["127.0.0.1"]

    fetcher = GuardedFetcher(allow_loopback=True, ca_file=ca_file, resolve=resolve)
    server = serve(answer(b"{}"))

    with pytest.raises(FetchRefused) as refused:
        fetcher.get(server.https(host="idp.test"), max_bytes=LIMIT, media_types=JSON, within=0.1)

    assert refused.value.reason is FetchReason.TIMEOUT
    assert get(fetcher, server.https()).body == b"{}"
    release.set()


def test_the_number_of_hanging_lookups_is_bounded(ca_file: Path) -> None:
    release = threading.Event()
    lookups = []

    def resolve(host: str, _port: int) -> list[str]:
        lookups.append(host)
        release.wait(120)
        return []

    fetcher = GuardedFetcher(ca_file=ca_file, resolve=resolve)

    def ask() -> None:
        with pytest.raises(FetchRefused) as refused:
            fetcher.get("https://idp.test/", max_bytes=LIMIT, media_types=JSON, within=0.02)
        assert refused.value.reason is FetchReason.TIMEOUT

    def are_all_taken() -> bool:
        # On a busy machine a lookup may begin later than who wants it has gone, or not at all.
        ask()
        return len(lookups) >= 16

    until(are_all_taken, seconds=30, what="no further lookup has a place")
    for _ in range(4):
        ask()
    assert len(lookups) == 16
    release.set()


@pytest.mark.parametrize(
    "error", [socket.gaierror(socket.EAI_NONAME, "no such name"), UnicodeError("label too long")]
)
def test_a_name_that_does_not_resolve_fails(ca_file: Path, error: Exception) -> None:
    def resolve(_host: str, _port: int) -> list[str]:
        raise error

    fetcher = GuardedFetcher(ca_file=ca_file, resolve=resolve)

    assert refusal_of(fetcher, "https://idp.test/") is FetchReason.FAILED


def test_a_lookup_that_finds_no_thread_fails_and_gives_its_place_back(
    ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    fetcher = GuardedFetcher(ca_file=ca_file, resolve=lambda _host, _port: [])
    monkeypatch.setattr(threading.Thread, "start", start)

    for _ in range(20):
        assert refusal_of(fetcher, "https://idp.test/") is FetchReason.FAILED


@pytest.mark.parametrize("within", [0.0, -1.0])
def test_no_time_left_means_no_lookup(ca_file: Path, within: float) -> None:
    lookups: list[str] = []

    def resolve(host: str, _port: int) -> list[str]:
        lookups.append(host)
        return []

    fetcher = GuardedFetcher(ca_file=ca_file, resolve=resolve)

    with pytest.raises(FetchRefused) as refused:
        fetcher.get("https://idp.test/", max_bytes=LIMIT, media_types=JSON, within=within)

    assert refused.value.reason is FetchReason.TIMEOUT
    assert lookups == []


def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    serve: Serve, ca_file: Path
) -> None:
    shares = []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        shares.append((address[0], timeout))
        if address[0] == "127.0.0.2":
            raise TimeoutError
        return socket.create_connection(address, timeout)

    fetcher = GuardedFetcher(
        allow_loopback=True,
        ca_file=ca_file,
        deadline=80.0,
        resolve=lambda _host, _port: ["127.0.0.2", "127.0.0.1"],
        connect=connect,
    )
    server = serve(answer(b"{}"))

    assert get(fetcher, server.https()).body == b"{}"
    assert [address for address, _ in shares] == ["127.0.0.2", "127.0.0.1"]
    assert shares[0][1] <= 40.0 < shares[1][1]


# ---- TLS


@pytest.mark.requirement("NET-16")
def test_the_certificate_must_be_the_names_although_the_connection_goes_to_a_number(
    serve: Serve, ca_file: Path
) -> None:
    fetcher = GuardedFetcher(
        allow_loopback=True, ca_file=ca_file, resolve=lambda _host, _port: ["127.0.0.1"]
    )
    server = serve(answer(b"{}"))

    assert get(fetcher, server.https(host="idp.test")).body == b"{}"
    assert f"Host: idp.test:{server.port}\r\n".encode() in server.requests[0]
    assert refusal_of(fetcher, server.https(host="evil.test")) is FetchReason.TLS
    assert refusal_of(fetcher, server.https(host="sub.idp.test")) is FetchReason.TLS
    assert refusal_of(fetcher, server.https(host="127.0.0.1")) is FetchReason.TLS
    assert len(server.requests) == 1


@pytest.mark.requirement("NET-16")
def test_the_server_is_told_the_name_and_not_the_number(
    authority: trustme.CA, ca_file: Path
) -> None:
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("idp.test").configure_cert(context)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    fetcher = GuardedFetcher(
        allow_loopback=True, ca_file=ca_file, resolve=lambda _host, _port: ["127.0.0.1"]
    )

    with running(answer(b"{}"), context) as server:
        get(fetcher, server.https(host="IDP.test"))

    assert names == ["idp.test"]


@pytest.mark.requirement("NET-16")
def test_a_certificate_of_an_unknown_authority_is_refused(
    serve: Serve, fetcher: GuardedFetcher
) -> None:
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(stranger)

    with running(answer(b"{}"), stranger) as server:
        assert refusal_of(fetcher, server.https()) is FetchReason.TLS
        assert server.requests == []

    by_system = GuardedFetcher(allow_loopback=True)
    assert refusal_of(by_system, serve(answer(b"{}")).https()) is FetchReason.TLS


@pytest.mark.requirement("NET-16")
def test_an_expired_certificate_is_refused(authority: trustme.CA, fetcher: GuardedFetcher) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    expired = authority.issue_cert(
        "localhost",
        not_before=datetime(2020, 1, 1, tzinfo=UTC),
        not_after=datetime(2020, 2, 1, tzinfo=UTC),
    )
    expired.configure_cert(context)

    with running(answer(b"{}"), context) as server:
        assert refusal_of(fetcher, server.https()) is FetchReason.TLS
        assert server.requests == []


@pytest.mark.requirement("NET-16")
def test_tls_older_than_1_2_is_refused(authority: trustme.CA, fetcher: GuardedFetcher) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT:@SECLEVEL=0")

    with running(answer(b"{}"), context) as server:
        assert refusal_of(fetcher, server.https()) is FetchReason.TLS
        assert server.requests == []
    assert fetcher._tls.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_server_without_tls_is_refused(serve_plain: Serve, fetcher: GuardedFetcher) -> None:
    server = serve_plain(answer(b"{}"))

    assert refusal_of(fetcher, f"https://localhost:{server.port}/") is FetchReason.TLS


# ---- what leaves


@pytest.mark.requirement("NET-15")
def test_nothing_but_the_question_leaves(
    serve: Serve,
    serve_plain: Serve,
    ca_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = serve_plain(answer(b"{}"))
    for name in (
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ):
        monkeypatch.setenv(name, f"http://user:canary@127.0.0.1:{proxy.port}")
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine localhost login user password canary\n")
    netrc.chmod(0o600)
    key_log = tmp_path / "tls-secrets"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("VAULT_TOKEN", "canary")
    monkeypatch.setenv("SSLKEYLOGFILE", str(key_log))
    fetcher = GuardedFetcher(allow_loopback=True, ca_file=ca_file)
    server = serve(answer(b"{}", "Set-Cookie: session=canary; Path=/"))

    get(fetcher, server.https("/a"))
    get(fetcher, server.https("/b"))

    assert server.requests[1].decode().splitlines() == [
        "GET /b HTTP/1.1",
        f"Host: localhost:{server.port}",
        "Accept: application/json, application/jwk-set+json",
        "Accept-Encoding: identity",
        "User-Agent: delegation-broker",
        "Connection: close",
        "",
    ]
    assert b"canary" not in b"".join(server.requests)
    assert proxy.connections == 0
    assert not key_log.exists()


def test_every_fetch_has_a_connection_of_its_own_and_leaves_none_open(
    serve: Serve, ca_file: Path
) -> None:
    opened: list[socket.socket] = []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        opened.append(socket.create_connection(address, timeout))
        return opened[-1]

    fetcher = GuardedFetcher(allow_loopback=True, ca_file=ca_file, connect=connect)
    good, bad = serve(answer(b"{}")), serve(answer(b"{}", status="500 No"))

    get(fetcher, good.https())
    refusal_of(fetcher, bad.https())
    refusal_of(fetcher, good.https(host="127.0.0.1"))

    assert [one.fileno() for one in opened] == [-1, -1, -1]


# ---- anything at all


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=300)
    | st.binary(max_size=300).map(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail)
    | st.binary(max_size=300).map(lambda tail: JSON_HEAD + b"\r\n" + tail)
    | st.binary(max_size=100).map(
        lambda tail: JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + tail
    )
)
def test_whatever_bytes_arrive_there_is_a_document_or_a_refusal(ca_file: Path, raw: bytes) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(raw)
    theirs.shutdown(socket.SHUT_WR)
    fetcher = GuardedFetcher(
        allow_loopback=True, ca_file=ca_file, connect=lambda _address, _timeout: ours
    )
    with theirs:
        try:
            fetched = get(fetcher, "http://127.0.0.1/")
        except FetchRefused:
            return
    assert fetched.media_type in JSON
    assert len(fetched.body) <= LIMIT


# ---- what is sent


def send_form(fetcher: GuardedFetcher, url: str, form: bytes, authorization: str = "") -> bytes:
    return fetcher.post(
        url,
        form,
        content_type="application/x-www-form-urlencoded",
        max_bytes=LIMIT,
        answer_type="application/json",
        authorization=authorization,
    )


def test_a_form_is_sent_and_its_answer_bounded_like_a_document(
    serve: Serve, fetcher: GuardedFetcher
) -> None:
    server = serve(answer(b"{}"))

    answered = send_form(
        fetcher, server.https("/token"), b"code=a&state=b", authorization="Basic c2VjcmV0"
    )

    assert answered == b"{}"
    (head,) = server.requests
    assert head.startswith(b"POST /token HTTP/1.1\r\n")
    assert b"Content-Length: 14\r\n" in head
    assert b"Content-Type: application/x-www-form-urlencoded\r\n" in head
    assert b"Authorization: Basic c2VjcmV0\r\n" in head


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (answer(b"{}", status="307 Temporary Redirect"), FetchReason.REDIRECT),
        (answer(b"{}", status="400 Bad Request"), FetchReason.STATUS),
        (answer(b" " * (LIMIT + 1)), FetchReason.TOO_LARGE),
        (answer(b"{}", media_type="text/html"), FetchReason.MEDIA_TYPE),
    ],
)
def test_a_form_is_sent_once_and_nowhere_else(
    serve: Serve, fetcher: GuardedFetcher, script: Script, reason: FetchReason
) -> None:
    server = serve(script)
    with pytest.raises(FetchRefused) as refused:
        send_form(fetcher, server.https("/token"), b"a=b")
    assert refused.value.reason == reason
    assert len(server.requests) == 1


def test_no_form_is_sent_to_a_private_address(ca_file: Path) -> None:
    guarded = GuardedFetcher(ca_file=ca_file)
    with pytest.raises(FetchRefused) as refused:
        send_form(guarded, "https://127.0.0.1/token", b"a=b")
    assert refused.value.reason == FetchReason.BLOCKED
