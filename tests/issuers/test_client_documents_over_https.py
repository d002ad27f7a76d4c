"""Clients' documents end to end: both faces, the guarded fetch, and real servers on this machine."""

import json
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from broker.fetch import GuardedFetcher
from broker.issuers.client_documents import MAX_DOCUMENT_BYTES
from broker.model import ClientDocumentTerms
from broker.oauth import AUTH_PRIVATE_KEY_JWT
from tests.fetch.servers import Script, Server, answer, running, send
from tests.idp import signer
from tests.ports import free_port
from tests.stage import Stage
from tests.stagehands import Staging
from tests.world import (
    AGENTS,
    ALL_GRANTS,
    Cast,
    client_parameters,
    good_assertion_claims,
    without_none,
)

Serve = Callable[[Script], Server]
Open = Callable[..., Stage]
Respond = Callable[[str], Script]
Site = Callable[[Respond], tuple[Server, str]]

INVALID = {"error": "invalid_client"}


def document(url: str, **changes: Any) -> bytes:
    """The good document at this URL; a member given as ``None`` is left out."""
    members = {
        "client_id": url,
        "token_endpoint_auth_method": AUTH_PRIVATE_KEY_JWT,
        "jwks": signer(url).jwks,
        **changes,
    }
    return json.dumps(without_none(members)).encode()


@pytest.fixture
def site(serve: Serve) -> Site:
    """Starts a server that answers for the URL of a document at it; both are returned."""

    def start(respond: Respond) -> tuple[Server, str]:
        urls: list[str] = []

        def script(connection: socket.socket) -> None:
            respond(urls[0])(connection)

        server = serve(script)
        urls.append(server.https("/app.json"))
        return server, urls[0]

    return start


@pytest.fixture
def open_stage(staging: Staging, ca_file: Path) -> Open:
    """Builds a stage where the documents of a server here count."""

    def build(server: Server, **changes: Any) -> Stage:
        settings = {"allow_loopback": True, "ca_file": ca_file, "deadline": 30.0, **changes}
        terms = ClientDocumentTerms(frozenset({f"localhost:{server.port}"}), ALL_GRANTS, AGENTS)
        return staging(Cast(client_documents=terms), fetcher=GuardedFetcher(**settings))

    return build


def good(url: str) -> Script:
    """A server's answer with the good document."""
    return answer(document(url))


@pytest.mark.requirement("NET-15", "CIMD-02", "CIMD-04")
def test_a_document_is_fetched_once_and_nothing_but_the_question_leaves(
    site: Site, open_stage: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_grpc_proxy", "127.0.0.1")
    (tmp_path / ".netrc").write_text("machine localhost login me password canary\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VAULT_TOKEN", "canary")
    server, url = site(good)
    stage = open_stage(server)

    for _ in range(3):
        assert stage.grant(client_parameters(url)).claims["client_id"] == url

    assert server.connections == 1
    lines = server.requests[0].decode().strip().split("\r\n")
    assert lines[0] == "GET /app.json HTTP/1.1"
    assert sorted(lines[1:]) == [
        "Accept-Encoding: identity",
        "Accept: application/json",
        "Connection: close",
        f"Host: localhost:{server.port}",
        "User-Agent: delegation-broker",
    ]


@pytest.mark.requirement("CIMD-04", "CIMD-10")
@pytest.mark.parametrize(
    "media_type",
    ["application/json", "application/json; charset=utf-8", "application/Client-Metadata+json"],
)
def test_a_document_and_its_keys_may_be_at_two_servers(
    site: Site, open_stage: Open, serve: Serve, media_type: str
) -> None:
    keys = json.dumps(signer("elsewhere").jwks).encode()
    other = serve(answer(keys, media_type="application/jwk-set+json"))
    jwks_uri = other.https("/jwks")
    server, url = site(
        lambda url: answer(document(url, jwks=None, jwks_uri=jwks_uri), media_type=media_type)
    )
    stage = open_stage(server)

    for _ in range(2):
        signed = signer("elsewhere").sign(good_assertion_claims(url))
        stage.grant(client_parameters(url, client_assertion=signed))

    assert (server.connections, other.connections) == (1, 1)


@pytest.mark.requirement("NET-10", "CIMD-06")
@pytest.mark.parametrize("host", ["169.254.169.254", "10.0.0.1", "[fd00::1]", "2130706433"])
def test_keys_inside_the_network_are_not_fetched(site: Site, open_stage: Open, host: str) -> None:
    server, url = site(
        lambda url: answer(document(url, jwks=None, jwks_uri=f"https://{host}/jwks"))
    )
    stage = open_stage(server)

    stage.attack(client_parameters(url), **INVALID, reason="fetch_blocked")
    assert server.connections == 1


@pytest.mark.requirement("NET-05", "CIMD-04")
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 T", "308 P"])
def test_a_redirect_is_not_followed(
    site: Site, open_stage: Open, serve: Serve, status: str
) -> None:
    elsewhere = serve(answer(b"{}"))
    location = f"Location: {elsewhere.https()}"
    server, url = site(lambda url: answer(document(url), location, status=status))

    stage = open_stage(server)
    stage.attack(client_parameters(url), **INVALID, reason="fetch_redirect")
    assert elsewhere.connections == 0


@pytest.mark.requirement("NET-05", "CIMD-04")
@pytest.mark.parametrize("status", ["201 Created", "204 No", "206 Partial", "404 None", "500 Bad"])
def test_only_status_200_counts(site: Site, open_stage: Open, status: str) -> None:
    server, url = site(lambda url: answer(document(url), status=status))
    open_stage(server).attack(client_parameters(url), **INVALID, reason="fetch_status")


@pytest.mark.requirement("NET-07", "CIMD-04")
@pytest.mark.parametrize("media_type", ["text/html", "", "text/json", "application/jsonp"])
def test_a_document_of_another_media_type_is_refused(
    site: Site, open_stage: Open, media_type: str
) -> None:
    server, url = site(lambda url: answer(document(url), media_type=media_type))
    open_stage(server).attack(client_parameters(url), **INVALID, reason="cimd_invalid")


@pytest.mark.requirement("NET-07", "CIMD-07")
def test_a_document_may_have_five_kibibytes_and_no_byte_more(site: Site, open_stage: Open) -> None:
    server, url = site(lambda url: answer(document(url).ljust(MAX_DOCUMENT_BYTES)))
    open_stage(server).grant(client_parameters(url))

    server, url = site(lambda url: answer(document(url).ljust(MAX_DOCUMENT_BYTES + 1)))
    open_stage(server).attack(client_parameters(url), **INVALID, reason="cimd_invalid")


@pytest.mark.requirement("NET-07", "NET-14")
def test_an_endless_document_is_left_at_the_limit(site: Site, open_stage: Open) -> None:
    sent: list[int] = []

    def endless(connection: socket.socket) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"
        connection.sendall(head)
        while len(sent) < 10_000:
            connection.sendall(b" " * 4096)
            sent.append(4096)

    server, url = site(lambda _url: endless)
    open_stage(server).attack(client_parameters(url), **INVALID, reason="cimd_invalid")
    assert len(sent) < 10_000


@pytest.mark.requirement("NET-14")
@pytest.mark.parametrize(
    "first",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"],
    ids=["at once", "in the body"],
)
def test_a_server_that_stalls_is_left_at_the_deadline(
    site: Site, open_stage: Open, first: bytes
) -> None:
    over = threading.Event()

    def stall(connection: socket.socket) -> None:
        connection.sendall(first)
        over.wait(60)

    server, url = site(lambda _url: stall)
    stage = open_stage(server, deadline=0.3)

    stage.refuse(client_parameters(url), **INVALID, reason="fetch_timeout")
    over.set()


@pytest.mark.requirement("NET-07")
def test_what_is_no_http_is_refused(site: Site, open_stage: Open) -> None:
    server, url = site(lambda _url: send(b"SSH-2.0-OpenSSH_9.9\r\n"))
    open_stage(server).attack(client_parameters(url), **INVALID, reason="fetch_failed")


def test_a_host_where_nobody_listens_is_refused(open_stage: Open) -> None:
    closed = Server(free_port())
    url = closed.https("/app.json")

    open_stage(closed).attack(client_parameters(url), **INVALID, reason="fetch_failed")


@pytest.mark.requirement("NET-16")
@pytest.mark.parametrize("fault", ["unknown authority", "expired", "another name"])
def test_a_server_that_cannot_prove_its_name_is_refused(
    open_stage: Open, authority: trustme.CA, fault: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if fault == "unknown authority":
        certificate = trustme.CA().issue_cert("localhost")
    elif fault == "expired":
        certificate = authority.issue_cert(
            "localhost",
            not_before=datetime(2020, 1, 1, tzinfo=UTC),
            not_after=datetime(2020, 2, 1, tzinfo=UTC),
        )
    else:
        certificate = authority.issue_cert("other.test")
    certificate.configure_cert(context)

    with running(answer(b"{}"), context) as server:
        url = server.https("/app.json")
        stage = open_stage(server)
        stage.attack(client_parameters(url), **INVALID, reason="fetch_tls")
        assert server.requests == []


@pytest.mark.requirement("NET-02", "CIMD-06")
def test_a_broker_that_is_not_itself_on_loopback_fetches_nothing_from_there(
    site: Site, open_stage: Open
) -> None:
    server, url = site(good)
    stage = open_stage(server, allow_loopback=False)

    stage.attack(client_parameters(url), **INVALID, reason="fetch_blocked")
    assert server.connections == 0


@pytest.mark.requirement("NET-02", "CIMD-06")
def test_a_name_that_changes_its_mind_is_asked_once(site: Site, open_stage: Open) -> None:
    """The address that was checked is the one that is connected to."""
    lookups: list[str] = []

    def resolve(host: str, _port: int) -> list[str]:
        lookups.append(host)
        return ["127.0.0.1"] if len(lookups) == 1 else ["169.254.169.254"]

    server, url = site(good)
    stage = open_stage(server, resolve=resolve)

    stage.grant(client_parameters(url))
    assert (lookups, server.connections) == (["localhost"], 1)
