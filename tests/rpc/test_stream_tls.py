"""Streams over TLS: nobody hears them in the clear, or from somebody else."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import trustme

from broker.model import TlsFiles
from broker.rpc.streams import StreamListener
from tests.rpc.listening import Streaming

NAME = "127.0.0.1"


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def streaming(authority: trustme.CA, tmp_path: Path) -> Iterator[Streaming]:
    certificate = authority.issue_cert(NAME)
    files = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem")
    certificate.cert_chain_pems[0].write_to_path(files.cert_file)
    certificate.private_key_pem.write_to_path(files.key_file)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with Streaming(listener=StreamListener("127.0.0.1:0", tls=files)).running() as running:
        yield running


def believing(authority: trustme.CA, identity: trustme.LeafCert | None) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(),
        identity.private_key_pem.bytes() if identity else None,
        identity.cert_chain_pems[0].bytes() if identity else None,
    )


@pytest.mark.requirement("GRP-11")
def test_a_client_with_a_certificate_hears_a_broker_that_it_believes(
    streaming: Streaming, authority: trustme.CA
) -> None:
    credentials = believing(authority, authority.issue_cert("agent"))
    with streaming.listening(credentials=credentials) as listener:
        assert listener.next().HasField("as_of")


@pytest.mark.requirement("GRP-11")
@pytest.mark.parametrize("how", ["in the clear", "no certificate", "a stranger", "disbelieving"])
def test_nobody_else_hears_anything(streaming: Streaming, authority: trustme.CA, how: str) -> None:
    stranger = trustme.CA()
    credentials = {
        "in the clear": None,
        "no certificate": believing(authority, None),
        "a stranger": believing(authority, stranger.issue_cert("agent")),
        "disbelieving": believing(stranger, authority.issue_cert("agent")),
    }[how]

    with streaming.listening(credentials=credentials) as listener:
        assert listener.end().code is grpc.StatusCode.UNAVAILABLE
    assert streaming.audit.records == []
