import contextlib
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
import trustme

from broker.web.crowds import Crowds
from tests.ports import free_port
from tests.web.face_fakes import CANARY
from tests.web.http_program import PROXY

ROOT = Path(__file__).parents[2]
HOST = b"Host: sts.test\r\n"
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
LAST = b"Connection: close\r\n"
CHUNKED = b"Transfer-Encoding: chunked"
SMUGGLED = b"GET /jwks HTTP/1.1\r\n" + HOST + LAST + b"\r\n"
SLOW_BODY = b"POST /token HTTP/1.1\r\n" + HOST + FORM + b"Content-Length: 100\r\n\r\na"
PATIENCE = 60.0
# How many seconds there are for a head or a body; who waits for their end waits that long.
SHORT, LONG = 1, 30
# Within so many seconds whoever dawdles is cut off (HTP-13).
CLOSED = 10


class Served:
    """The face as a process; what it says is kept until it is asked for."""

    def __init__(
        self,
        log: Path,
        *,
        port: int = 0,
        directory: Path | None = None,
        most: int = 0,
        seconds: int = LONG,
    ) -> None:
        self.port = port or free_port()
        self.log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.web.http_program",
                    str(self.port),
                    directory or "",
                    str(most),
                    str(seconds),
                ],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=stream,
                cwd=ROOT,
            )
        until(self._accepts)

    def _accepts(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            self.connect().close()
        except OSError:
            return False
        return True

    def connect(self, *, origin: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE, (origin, 0))

    def send(self, *parts: bytes, origin: str = "127.0.0.1") -> bytes:
        """All that comes back until the server closes the connection."""
        with self.connect(origin=origin) as connection:
            with contextlib.suppress(OSError):
                for part in parts:
                    connection.sendall(part)
            return received(connection)

    def post(self, body: bytes, *, headers: bytes = b"", origin: str = "127.0.0.1") -> Any:
        """What the core was asked by a well-formed request."""
        return facts(self.send(form_request(body, headers=LAST + headers), origin=origin))

    def stop(self) -> str:
        """End it in order; all that it wrote."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0
        stdin = self.process.stdin
        assert stdin is not None
        stdin.close()
        return self.log.read_text()


def until(is_so: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def received(connection: socket.socket, *, quiet: float = PATIENCE) -> bytes:
    connection.settimeout(quiet)
    data = b""
    with contextlib.suppress(ConnectionError):
        try:
            while chunk := connection.recv(65_536):
                data += chunk
        except TimeoutError:
            return data + b"<open>"
    return data + b"<closed>"


def form_request(body: bytes, *, headers: bytes = LAST, path: bytes = b"/token") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST " + path + b" HTTP/1.1\r\n" + HOST + FORM + headers + length + b"\r\n" + body


def facts(answer: bytes) -> Any:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), answer
    text = body.removesuffix(b"<open>").removesuffix(b"<closed>")
    return json.loads(json.loads(text)["resource"])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(tmp_path_factory.mktemp("http") / "log")
    yield server
    assert CANARY not in server.stop()


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One that waits for nobody for long."""
    server = Served(tmp_path_factory.mktemp("hasty") / "log", seconds=SHORT)
    yield server
    server.stop()


@pytest.mark.requirement("CAU-14")
@pytest.mark.requirement("HTP-05")
def test_two_authorization_headers_reach_the_core_as_two(served: Served) -> None:
    one = served.post(b"a=b", headers=b"Authorization: Basic dTpw\r\n")
    two = served.post(b"a=b", headers=b"Authorization: Basic dTpw\r\nAuthorization: Basic eDp5\r\n")
    assert one["authorization"] == ["Basic dTpw"]
    assert two["authorization"] == ["Basic dTpw", "Basic eDp5"]


@pytest.mark.requirement("CAU-14")
def test_an_authorization_header_that_is_no_text_still_counts_as_one(served: Served) -> None:
    assert len(served.post(b"a=b", headers=b"Authorization: Basic \xff\r\n")["authorization"]) == 1


@pytest.mark.requirement("DPOP-01", "POP-04", "HTP-05")
@pytest.mark.parametrize("proofs", [[], ["a.b.c"], [""], ["a.b.c", "d.e.f"], ["a.b.c", ""]])
def test_every_dpop_header_reaches_the_core(served: Served, proofs: list[str]) -> None:
    headers = "".join(f"dpop: {proof}\r\n" for proof in proofs).encode()
    assert served.post(b"a=b", headers=headers)["proofs"] == proofs


@pytest.mark.requirement("CAU-17")
@pytest.mark.parametrize(
    "forged",
    [
        b"Caller_Address",
        b"Caller-Address",
        b"_CallerAddress",
        b"X_Forwarded_For",
        b"HTTP_CallerAddress",
    ],
)
def test_a_look_alike_that_a_proxy_lets_pass_names_nobody(served: Served, forged: bytes) -> None:
    forgery, true = forged + b": 6.6.6.6\r\n", b"callerADDRESS: 198.51.100.1\r\n"

    for headers, peer in (
        (true + forgery, "198.51.100.1"),
        (forgery + true, "198.51.100.1"),
        (forgery, PROXY),
    ):
        assert served.post(b"", headers=headers, origin=PROXY)["peer"] == peer
    # Whoever is no proxy names nobody at all.
    assert served.post(b"", headers=true)["peer"] == "127.0.0.1"


def test_a_connection_serves_one_request_after_the_other(served: Served) -> None:
    answer = served.send(form_request(b"a=b", headers=b"") * 3 + SMUGGLED)
    assert answer.count(b"HTTP/1.1 200 OK") == 4


def test_a_chunked_body_is_read_whole(served: Served) -> None:
    head = b"POST /token HTTP/1.1\r\n" + HOST + FORM + LAST + CHUNKED + b"\r\n\r\n"
    chunks = b"9\r\nscope=a+b\r\n", b"4\r\n&c=d\r\n", b"0\r\n\r\n"
    assert facts(served.send(head, *chunks))["present"] == ["c", "scope"]


def test_trailers_of_a_chunked_body_say_nothing(served: Served) -> None:
    head = b"POST /token HTTP/1.1\r\n" + HOST + FORM + LAST + CHUNKED + b"\r\n\r\n"
    body = b"3\r\na=b\r\n0\r\nAuthorization: Basic dTpw\r\n\r\n"
    assert facts(served.send(head, body))["authorization"] == []


@pytest.mark.requirement("HTP-04")
def test_a_body_declared_too_large_is_refused_before_it_is_sent(served: Served) -> None:
    head = b"POST /token HTTP/1.1\r\n" + HOST + FORM + b"Content-Length: 50000000\r\n\r\n"
    answer = served.send(head, b"a=" + b"b" * 1000)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"<closed>")


@pytest.mark.requirement("HTP-04")
def test_an_endless_body_is_refused_at_the_limit(served: Served) -> None:
    head = b"POST /token HTTP/1.1\r\n" + HOST + FORM + CHUNKED + b"\r\n\r\n"
    answer = served.send(head, *[b"1000\r\n" + b"a" * 4096 + b"\r\n"] * 1000)
    assert not answer or answer.startswith((b"HTTP/1.1 413 ", b"<closed>"))
    assert answer.endswith(b"<closed>")


@pytest.mark.requirement("HTP-05")
@pytest.mark.parametrize(
    "headers", [b"X: " + b"a" * 100_000 + b"\r\n", b"X: a\r\n" * 10_000, b"X: a\r\n" * 101]
)
def test_too_much_of_headers_is_refused(served: Served, headers: bytes) -> None:
    answer = served.send(form_request(b"a=b", headers=headers))
    assert answer.startswith((b"HTTP/1.1 431 ", b"<closed>"))
    assert answer.endswith(b"<closed>")


def framed(*headers: bytes, body: bytes = b"0\r\n\r\n", line: bytes = b"") -> bytes:
    start = line or b"POST /token HTTP/1.1\r\n"
    return start + HOST + FORM + b"".join(one + b"\r\n" for one in headers) + b"\r\n" + body


@pytest.mark.requirement("HTP-06")
@pytest.mark.parametrize(
    "request_bytes",
    [
        framed(b"Content-Length: 6", CHUNKED),
        framed(CHUNKED, b"Content-Length: 6"),
        framed(b"Content-Length: 0", b"Content-Length: 5", body=b"a=b&c"),
        framed(b"Content-Length: 3, 3", body=b"a=b"),
        framed(b"Content-Length: +3", body=b"a=b"),
        framed(b"Content-Length: 0x3", body=b"a=b"),
        framed(b"Content-Length: -1"),
        framed(b"Transfer-Encoding: xchunked"),
        framed(b"Transfer-Encoding: chunked, identity"),
        framed(b"Transfer-Encoding: identity"),
        framed(b"Transfer-Encoding : chunked"),
        framed(b"Transfer-Encoding:\r\n chunked"),
        framed(b"X: a\r\n b", b"Content-Length: 3", body=b"a=b"),
        framed(b"X: a\rb", b"Content-Length: 3", body=b"a=b"),
        framed(b"X: a\0b", b"Content-Length: 3", body=b"a=b"),
        framed(CHUNKED, line=b"POST /token HTTP/1.0\r\n"),
        framed(CHUNKED, body=b"fffffffffffffffff\r\na=b\r\n0\r\n\r\n"),
        framed(CHUNKED, body=b"3\na=b\n0\n\n"),
        framed(CHUNKED, body=b"3\r\na=bXX0\r\n\r\n"),
        framed(CHUNKED, body=b"3;" + b"x" * 100_000 + b"\r\na=b\r\n0\r\n\r\n"),
        framed(CHUNKED, body=b"-3\r\na=b\r\n0\r\n\r\n"),
    ],
)
def test_a_request_of_doubtful_length_is_the_last_of_its_connection(
    served: Served, request_bytes: bytes
) -> None:
    """Nothing that follows it is taken for a request, so nothing can be smuggled past a proxy."""
    answer = served.send(request_bytes + SMUGGLED)
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert b'"keys"' not in answer
    assert answer.endswith(b"<closed>")


@pytest.mark.requirement("HTP-06")
@pytest.mark.parametrize("codings", [b"gzip, chunked", b"chunked, chunked", b"deflate,chunked"])
def test_a_transfer_coding_that_nobody_undid_is_refused(served: Served, codings: bytes) -> None:
    answer = served.send(framed(b"Transfer-Encoding: " + codings, LAST.strip(), body=b"0\r\n\r\n"))
    assert answer.startswith((b"HTTP/1.1 400 ", b"<closed>"))


@pytest.mark.requirement("HTP-08")
def test_an_escaped_letter_is_that_letter(served: Served) -> None:
    """RFC 3986 6.2.2.2: it is the same path, and nothing else may tell them apart."""
    assert facts(served.send(form_request(b"a=b", path=b"/tok%65n")))["present"] == ["a"]


@pytest.mark.requirement("HTP-07")
@pytest.mark.parametrize(
    "hosts", [b"", HOST + HOST, b"Host: \r\n", b"Host: a b\r\n", b"Host: sts.test, evil.test\r\n"]
)
def test_a_request_names_exactly_one_host(served: Served, hosts: bytes) -> None:
    answer = served.send(b"GET /jwks HTTP/1.1\r\n" + hosts + LAST + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.requirement("HTP-08")
@pytest.mark.parametrize(
    "path",
    [
        b"//token",
        b"/token/",
        b"/TOKEN",
        b"/token;x",
        b"/token%2f",
        b"/%2e/token",
        b"/x/%2e%2e/token",
        b"/x/../token",
        b"/token%2e",
        b"/token%00",
        b"/token%3Fx",
        b"/token%20",
        b"http://sts.test//token",
    ],
)
def test_a_path_that_is_not_ours_is_not_found(served: Served, path: bytes) -> None:
    assert served.send(form_request(b"a=b", path=path)).startswith(b"HTTP/1.1 404 ")


@pytest.mark.requirement("HTP-01")
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"post"])
def test_other_verbs_are_refused_on_the_wire_too(served: Served, method: bytes) -> None:
    answer = served.send(method + b" /token HTTP/1.1\r\n" + HOST + LAST + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 405 ")


def test_a_head_request_is_answered_without_a_body(served: Served) -> None:
    answer = served.send(b"HEAD /jwks HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED)
    heads = answer.split(b"HTTP/1.1 200 OK\r\n")
    assert len(heads) == 3
    assert heads[1].endswith(b"\r\n\r\n")


@pytest.mark.requirement("GRP-12")
def test_a_fault_shows_a_fixed_text_on_the_wire(served: Served) -> None:
    answer = served.send(form_request(b"subject_token=fail"))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert CANARY.encode() not in answer


@pytest.mark.requirement("CAU-10")
def test_a_credential_in_a_query_is_not_logged(served: Served) -> None:
    path = b"/token?client_secret=" + CANARY.encode()
    assert served.send(form_request(b"a=b", path=path)).startswith(b"HTTP/1.1 400 ")
    assert CANARY not in served.log.read_text()


@pytest.mark.requirement("HTP-13")
def test_slow_senders_do_not_hold_up_others_and_are_cut_off(hasty: Served) -> None:
    head = b"POST /token HTTP/1.1\r\n" + HOST + FORM
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(hasty.connect()) for _ in range(200)]
        for number, connection in enumerate(slow):
            framing = (b"Content-Length: 100\r\n\r\na=b", CHUNKED + b"\r\n\r\n3\r\na=b\r\n")
            connection.sendall(head + framing[number % 2])
        assert hasty.post(b"a=b")["present"] == ["a"]
        for connection in slow:
            with contextlib.suppress(OSError):
                connection.sendall(b"x" if slow.index(connection) % 2 == 0 else b"1\r\nx\r\n")
        assert hasty.post(b"a=b")["present"] == ["a"]
        started = time.monotonic()
        for connection in slow:
            connection.settimeout(PATIENCE)
            with contextlib.suppress(ConnectionError):
                while connection.recv(4096):
                    pass
    assert time.monotonic() - started < CLOSED
    assert hasty.post(b"a=b")["present"] == ["a"]


@pytest.mark.requirement("DOS-01", "HTP-13")
@pytest.mark.parametrize("framing", [b"Content-Length: 60000", CHUNKED])
def test_a_source_beyond_its_quota_is_answered_before_its_body_and_not_waited_for(
    served: Served, framing: bytes
) -> None:
    source = "127.0.0.2" if framing == CHUNKED else "127.0.0.3"
    for _ in range(2):
        with served.connect(origin=source) as connection:
            connection.sendall(form_request(b"subject_token=charge"))
            received(connection)
    head = b"POST /token HTTP/1.1\r\n" + HOST + FORM + framing + b"\r\n\r\n"

    began = time.monotonic()
    with served.connect(origin=source) as connection:
        connection.sendall(head)
        answer = connection.recv(4096)
        answered = time.monotonic() - began
        rest = received(connection)
    ended = time.monotonic() - began

    assert answer.startswith(b"HTTP/1.1 429 ")
    assert answered < LONG / 2, "before the time for a body is over"
    assert rest.endswith(b"<closed>")
    assert ended < LONG / 2
    assert served.post(b"a=b")["present"] == ["a"]


@pytest.mark.requirement("HTP-13")
@pytest.mark.parametrize(
    "sent", [b"", b"P", b"POST /token HTTP/1.1\r\n" + HOST, form_request(b"a=b")]
)
def test_who_says_nothing_is_cut_off(hasty: Served, sent: bytes) -> None:
    started = time.monotonic()
    with hasty.connect() as connection:
        connection.sendall(sent)
        assert received(connection).endswith(b"<closed>")
    assert time.monotonic() - started < CLOSED


@pytest.mark.requirement("HTP-13")
@pytest.mark.parametrize("sent", [b"P", b"POST /token HTTP/1.1\r\n" + HOST + FORM, SLOW_BODY])
def test_who_takes_all_connections_loses_those_that_dawdle(tmp_path: Path, sent: bytes) -> None:
    served = Served(tmp_path / "log", most=64)
    with contextlib.ExitStack() as stack:
        for _ in range(80):
            stack.enter_context(served.connect()).sendall(sent)
        assert served.post(b"a=b")["present"] == ["a"]
    until(lambda: "crowding_connections_cut" in served.log.read_text())
    served.stop()


@pytest.mark.requirement("HTP-13")
@pytest.mark.parametrize("is_spared", [True, False])
def test_only_a_crowd_that_speaks_for_nobody_else_is_thinned_out(
    monkeypatch: pytest.MonkeyPatch, *, is_spared: bool
) -> None:
    monkeypatch.setattr("broker.web.crowds._SECONDS_OF_SILENCE", -1.0)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        ends = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in "abcdef"
        ]
        accepted = [stack.enter_context(listener.accept()[0]) for _ in ends]
        crowds = Crowds(port=port, most=8, is_spared=lambda _: is_spared)
        crowds._thin_out()
        assert [received(end, quiet=0.01 if is_spared else PATIENCE) for end in ends] == (
            [b"<open>" if is_spared else b"<closed>"] * len(accepted)
        )


def test_a_stop_finishes_what_was_accepted_and_takes_nothing_more(tmp_path: Path) -> None:
    served = Served(tmp_path / "log")
    with served.connect() as connection:
        connection.sendall(form_request(b"subject_token=wait"))
        until(lambda: "waiting" in served.log.read_text())
        served.process.send_signal(signal.SIGTERM)
        until(lambda: not accepts(served))
        release(served.process.stdin)
        assert facts(received(connection))["present"] == ["subject_token"]
    assert served.process.wait(PATIENCE) == 0
    assert served.log.read_text().split() == ["waiting", "exited", "stopped"]


def accepts(served: Served) -> bool:
    try:
        served.connect().close()
    except OSError:
        return False
    return True


def release(stdin: IO[bytes] | None) -> None:
    assert stdin is not None
    stdin.write(b"!")
    stdin.close()


def test_several_processes_share_a_port(served: Served, tmp_path: Path) -> None:
    other = Served(tmp_path / "log", port=served.port)
    pids: set[int] = set()

    def both_answered() -> bool:
        pids.add(served.post(b"a=b")["pid"])
        return len(pids) == 2

    until(both_answered)
    other.stop()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def put_certificate(authority: trustme.CA, directory: Path) -> Path:
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    return directory


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.requirement("HTP-15", "TX-27")
def test_with_tls_nothing_goes_in_the_clear_or_by_an_old_version(
    authority: trustme.CA, tmp_path: Path
) -> None:
    served = Served(tmp_path / "log", directory=put_certificate(authority, tmp_path))
    context = trusting(authority)
    with context.wrap_socket(served.connect(), server_hostname="127.0.0.1") as connection:
        connection.sendall(form_request(b"a=b"))
        assert facts(received(connection))["present"] == ["a"]
    assert b"HTTP/" not in served.send(form_request(b"a=b"))
    old = trusting(authority)
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with served.connect() as connection, pytest.raises(ssl.SSLError):
        old.wrap_socket(connection, server_hostname="127.0.0.1")
    served.stop()


@pytest.mark.requirement("GRP-11")
def test_with_a_client_authority_nobody_connects_without_its_certificate(
    authority: trustme.CA, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "client-ca.pem")
    served = Served(tmp_path / "log", directory=put_certificate(authority, tmp_path))
    known, unknown = trusting(authority), trusting(authority)
    authority.issue_cert("client.test").configure_cert(known)
    trustme.CA().issue_cert("client.test").configure_cert(unknown)
    with known.wrap_socket(served.connect(), server_hostname="127.0.0.1") as connection:
        connection.sendall(form_request(b"a=b"))
        assert facts(received(connection))["present"] == ["a"]
    for refused in (unknown, trusting(authority)):
        assert b"HTTP/" not in asked_over(refused, served)
    served.stop()


def asked_over(context: ssl.SSLContext, served: Served) -> bytes:
    try:
        with context.wrap_socket(served.connect(), server_hostname="127.0.0.1") as connection:
            connection.sendall(form_request(b"a=b"))
            return received(connection)
    except OSError:
        return b""


@pytest.mark.requirement("R-29")
def test_a_replaced_certificate_is_shown_to_whoever_connects_next(
    authority: trustme.CA, tmp_path: Path
) -> None:
    served = Served(tmp_path / "log", directory=put_certificate(authority, tmp_path))
    asked = form_request(b"subject_token=wait", headers=LAST)
    with trusting(authority).wrap_socket(served.connect(), server_hostname="127.0.0.1") as old:
        old.sendall(asked)
        until(lambda: "waiting" in served.log.read_text())
        # First what is no pair, which nobody is shown; then another authority's.
        (tmp_path / "key.pem").write_text("nonsense")
        until(lambda: "certificate_not_reloaded" in served.log.read_text())
        assert asked_over(trusting(authority), served)
        other = trustme.CA()
        put_certificate(other, tmp_path)
        until(lambda: asked_over(trusting(other), served) != b"")
        assert asked_over(trusting(authority), served) == b""
        # Whoever was being served by the old one is served to the end.
        release(served.process.stdin)
        assert facts(received(old))["present"] == ["subject_token"]
    assert "exited" in served.stop()
