"""Certificates in files: what is whole and fits is taken up, and nothing else ever reaches a face."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from broker.model import TlsFiles
from broker.tls_files import WatchedTls
from broker.web.rolling import check_fit

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem", None)


def put(files: TlsFiles, key: Any, *, chain: Callable[[bytes], bytes] = bytes) -> None:
    """A certificate that the key has signed itself, and the key."""
    now = datetime.now(UTC)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    certificate = (
        x509.CertificateBuilder(NAME, NAME, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, algorithm)
    )
    pem = (
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        if not (isinstance(key, ed25519.Ed25519PrivateKey))
        else key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    write(files, chain(certificate.public_bytes(Encoding.PEM)), pem)


def write(files: TlsFiles, chain: bytes, key: bytes) -> None:
    files.cert_file.write_bytes(chain)
    files.key_file.touch(mode=0o600)
    files.key_file.write_bytes(key)


def good() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def watched(files: TlsFiles) -> WatchedTls:
    put(files, good())
    return WatchedTls(files, is_fit=check_fit)


UNFIT: dict[str, Callable[[], Any]] = {
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "P-224": lambda: ec.generate_private_key(ec.SECP224R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "RSA of 1024 bits": lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505 -- to be refused.
}


@pytest.mark.requirement("R-29")
@pytest.mark.parametrize("key", UNFIT.values(), ids=UNFIT)
def test_what_the_face_cannot_use_is_not_taken_up_and_ends_nothing(
    files: TlsFiles, key: Callable[[], Any]
) -> None:
    watching = watched(files)

    put(files, key())
    with capture_logs() as log:
        assert watching.newer() is None
    assert "has a key that is none of" in log[0]["reason"]

    put(files, good())
    assert watching.newer() is not None


@pytest.mark.requirement("R-29")
@pytest.mark.parametrize("key", UNFIT.values(), ids=UNFIT)
def test_a_start_with_what_the_face_cannot_use_says_why(
    files: TlsFiles, key: Callable[[], Any]
) -> None:
    put(files, key())
    with pytest.raises(ValueError, match="none of P-256"):
        WatchedTls(files, is_fit=check_fit)


@pytest.mark.parametrize(
    "key",
    [
        good,
        lambda: ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate,
        lambda: rsa.generate_private_key(65537, 2048),
    ],
)
def test_what_the_face_can_use_is_taken_up(files: TlsFiles, key: Callable[[], Any]) -> None:
    watching = watched(files)
    put(files, key())
    assert watching.newer() is not None
    assert watching.newer() is None


@pytest.mark.requirement("R-29")
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
def test_a_chain_that_is_being_written_waits_until_it_is_whole(
    files: TlsFiles, part: float
) -> None:
    """The leaf is there already, and of the intermediate only so much."""
    issued = trustme.CA(parent_cert=trustme.CA()).issue_cert("localhost")
    leaf, *others = [one.bytes() for one in issued.cert_chain_pems]
    key = issued.private_key_pem.bytes()
    watching = watched(files)

    write(files, leaf + others[0][: int(len(others[0]) * part)], key)
    assert watching.newer() is None
    write(files, leaf + b"".join(others), key)
    found = watching.newer()

    assert found is not None
    assert len(x509.load_pem_x509_certificates(found.chain)) == 1 + len(others)


@pytest.mark.parametrize(
    "content", [b"", b"secret", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_in_the_way_is_told_once_until_it_is_gone(files: TlsFiles, content: bytes) -> None:
    watching = watched(files)
    with capture_logs() as log:
        for _ in range(3):
            files.cert_file.write_bytes(content)
            files.cert_file.touch()
            assert watching.newer() is None
        files.cert_file.unlink()
        for _ in range(3):
            assert watching.newer() is None
    assert [one["event"] for one in log] == ["certificate_not_reloaded"] * 2
    assert "secret" not in json.dumps(log)

    put(files, good())
    assert watching.newer() is not None


@pytest.mark.requirement("CFG-04")
def test_a_key_that_others_may_read_is_not_taken_up(files: TlsFiles) -> None:
    """A start would refuse it, so a renewal says so while there is another pair."""
    watching = watched(files)
    put(files, good())
    files.key_file.chmod(0o644)
    assert watching.newer() is None

    files.key_file.chmod(0o600)
    assert watching.newer() is not None
