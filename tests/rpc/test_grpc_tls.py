import datetime as dt
import os
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import structlog
import trustme

from broker.model import TlsFiles
from broker.rpc.server import RunningServer, build_server
from broker.rpc.tls import ReloadingTls
from tests.rpc.calling import EXCHANGE, connected, refusal_of
from tests.web.face_fakes import fake_endpoints

NAME = "127.0.0.1"
ROTATIONS = 10


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def clients() -> trustme.CA:
    return trustme.CA()


def put(certificate: trustme.LeafCert, directory: Path) -> TlsFiles:
    """Write a pair as an operator's tool would: each file replaced at once."""
    for name, blob in (
        ("cert.pem", certificate.cert_chain_pems[0]),
        ("key.pem", certificate.private_key_pem),
    ):
        blob.write_to_path(directory / f"new-{name}")
        (directory / f"new-{name}").replace(directory / name)
    return TlsFiles(directory / "cert.pem", directory / "key.pem")


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> TlsFiles:
    return put(authority.issue_cert(NAME), tmp_path)


@pytest.fixture
def server(files: TlsFiles) -> Iterator[RunningServer]:
    running = build_server(fake_endpoints(), address="127.0.0.1:0", tls=files)
    yield running
    running.stop(0)


def is_answered(
    server: RunningServer, authority: trustme.CA, identity: trustme.LeafCert | None = None
) -> bool:
    """Whether a client that trusts ``authority`` gets a connection and an answer."""
    credentials = grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(),
        identity.private_key_pem.bytes() if identity else None,
        identity.cert_chain_pems[0].bytes() if identity else None,
    )
    with connected(server, credentials) as client:
        try:
            client.call(EXCHANGE, timeout=10)
        except grpc.RpcError as error:
            return refusal_of(error).code is not grpc.StatusCode.UNAVAILABLE
    return True


@pytest.mark.requirement("GRP-11")
def test_nobody_is_answered_in_the_clear_or_as_somebody_else(
    server: RunningServer, authority: trustme.CA
) -> None:
    assert is_answered(server, authority)
    assert not is_answered(server, trustme.CA())
    with connected(server) as client:
        assert client.refused(EXCHANGE).code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.requirement("R-29")
def test_a_replaced_pair_is_taken_up(server: RunningServer, files: TlsFiles) -> None:
    other = trustme.CA()
    put(other.issue_cert(NAME), files.cert_file.parent)
    assert is_answered(server, other)


@pytest.mark.requirement("R-29")
@pytest.mark.parametrize("spoilt", ["not PEM", "half", "other key", "gone", "swapped"])
def test_what_does_not_fit_together_is_not_taken_up(
    server: RunningServer, authority: trustme.CA, files: TlsFiles, spoilt: str
) -> None:
    if spoilt == "not PEM":
        files.cert_file.write_text("nonsense")
    elif spoilt == "half":
        os.truncate(files.key_file, 40)
    elif spoilt == "other key":
        trustme.CA().issue_cert(NAME).private_key_pem.write_to_path(files.key_file)
    elif spoilt == "gone":
        files.cert_file.unlink()
    else:
        shutil.copy(files.key_file, files.cert_file)
    with structlog.testing.capture_logs() as logs:
        assert is_answered(server, authority)
        assert is_answered(server, authority)
    assert {line["event"] for line in logs} == {"certificate_not_reloaded"}
    put(authority.issue_cert(NAME), files.cert_file.parent)
    assert is_answered(server, authority)


def presented(server: RunningServer) -> str:
    """The certificate that a new handshake is shown."""
    return ssl.get_server_certificate((NAME, server.port), timeout=10)


@pytest.mark.requirement("R-29")
def test_no_handshake_fails_while_pairs_are_replaced_and_old_connections_go_on(
    server: RunningServer, authority: trustme.CA, files: TlsFiles
) -> None:
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    with connected(server, credentials) as old:
        assert old.call(EXCHANGE)
        for turn in range(ROTATIONS):
            pair = authority.issue_cert(NAME)
            if turn % 2:
                pair.private_key_pem.write_to_path(files.key_file)
                assert is_answered(server, authority), "between one file and the other"
            put(pair, files.cert_file.parent)
            assert is_answered(server, authority)
            assert presented(server) == pair.cert_chain_pems[0].bytes().decode()
        assert old.call(EXCHANGE)


def test_a_bad_pair_is_complained_about_once(
    server: RunningServer, authority: trustme.CA, files: TlsFiles
) -> None:
    files.cert_file.write_text("nonsense")
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            assert is_answered(server, authority)
    assert len(logs) == 1


@pytest.mark.parametrize("missing", ["cert_file", "key_file"])
def test_without_a_good_pair_nothing_is_served(files: TlsFiles, missing: str) -> None:
    getattr(files, missing).write_text("nonsense")
    with pytest.raises(ValueError, match="PEM"):
        ReloadingTls(files)
    getattr(files, missing).unlink()
    with pytest.raises(OSError, match="No such file"):
        ReloadingTls(files)


def test_a_key_of_another_certificate_is_refused(authority: trustme.CA, files: TlsFiles) -> None:
    authority.issue_cert(NAME).private_key_pem.write_to_path(files.key_file)
    with pytest.raises(ValueError, match="does not belong"):
        ReloadingTls(files)


@pytest.fixture
def mutual(files: TlsFiles, clients: trustme.CA, tmp_path: Path) -> Iterator[RunningServer]:
    clients.cert_pem.write_to_path(tmp_path / "client-ca.pem")
    tls = TlsFiles(files.cert_file, files.key_file, tmp_path / "client-ca.pem")
    running = build_server(fake_endpoints(), address="127.0.0.1:0", tls=tls)
    yield running
    running.stop(0)


@pytest.mark.requirement("GRP-11")
def test_with_a_client_authority_nobody_connects_without_its_certificate(
    mutual: RunningServer, authority: trustme.CA, clients: trustme.CA
) -> None:
    assert is_answered(mutual, authority, clients.issue_cert("client.test"))
    assert not is_answered(mutual, authority)
    assert not is_answered(mutual, authority, trustme.CA().issue_cert("client.test"))


@pytest.mark.requirement("GRP-11")
def test_an_expired_client_certificate_opens_nothing(
    mutual: RunningServer, authority: trustme.CA, clients: trustme.CA
) -> None:
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    assert not is_answered(mutual, authority, clients.issue_cert("client.test", not_after=past))


def test_a_client_authority_that_is_none_is_refused(files: TlsFiles, tmp_path: Path) -> None:
    (tmp_path / "client-ca.pem").write_text("nonsense")
    with pytest.raises(ValueError, match="client authority"):
        ReloadingTls(TlsFiles(files.cert_file, files.key_file, tmp_path / "client-ca.pem"))
