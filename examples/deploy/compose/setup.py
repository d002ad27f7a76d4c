"""
Makes what the services of ``compose.yaml`` need to trust each other.

That is certificates, a password, the ids of a login, a key to unseal, and a client's key.

    python setup.py DIRECTORY

Each service has a folder of its own in the directory, and sees no other's. What is there already stays as it
is, so that it can be run at every start.
"""

import hashlib
import os
import secrets
import subprocess
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLIENT: Final = "agent-nightly"
OWNER: Final = 65532
_SERVERS: Final = ("openbao", "valkey", "broker")
_DATA: Final = ("openbao-data", "valkey-data")
_KEYS: Final = "~{broker}:*"
_COMMANDS: Final = (
    "-@all +eval +evalsha +info +wait +time +hset +hsetnx +hget +hmget +hdel +hexists +hlen "
    "+zadd +zrem +zcard +zscore +zrange"
)
_LIFETIME: Final = timedelta(days=397)
_DONE: Final = "ca.pem"

Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def main(directory: Path) -> None:
    """Make everything, unless it was made before."""
    folders = [directory / name for name in (*_SERVERS, *_DATA, "client")]
    for folder in folders:
        folder.mkdir(mode=0o700, exist_ok=True)
    # This file is written last, so that whatever was interrupted is begun again.
    if not (directory / "client" / _DONE).exists():
        for name, content in _files(directory).items():
            _write(directory / name, content)
    _hand_over(folders)


def _files(directory: Path) -> Mapping[str, bytes]:
    """Every file by its name, those last that say that all of it is done."""
    authority = _authority()
    logins = {
        f"{server}/{login}{file}": content
        for login in ("", "rotator-")
        for file, content in _login().items()
        for server in ("openbao", "broker")
    }
    password = secrets.token_urlsafe(32).encode()
    private, public = _client_key(directory)
    shared = {f"{name}/ca.pem": _pem(authority[0]) for name in _SERVERS}
    servers = {
        f"{server}/{file}": content
        for server in _SERVERS
        for file, content in _server(authority, server).items()
    }
    return {
        **shared,
        **servers,
        **logins,
        "openbao/unseal.key": secrets.token_bytes(32),
        "valkey/users.conf": _users(password),
        "broker/valkey-password": password,
        f"broker/{CLIENT}.jwks.json": public,
        f"client/{CLIENT}.pem": private,
        f"client/{_DONE}": _pem(authority[0]),
    }


def _login() -> dict[str, bytes]:
    """The two halves of a login at OpenBao, which OpenBao and the broker both are told."""
    return {
        "role-id": str(uuid.uuid4()).encode(),
        "secret-id": secrets.token_urlsafe(32).encode(),
    }


def _users(password: bytes) -> bytes:
    """Whom Valkey admits: the broker, to its own keys and to what it does with them."""
    digest = hashlib.sha256(password).hexdigest()
    return f"user default off\nuser broker on #{digest} {_KEYS} {_COMMANDS}\n".encode()


def _authority() -> Pair:
    """Whom all of them believe. Its key is not kept, so nobody makes another certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("The broker's machine")
    builder = _certificate(name, name, key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    usage = x509.KeyUsage(
        key_cert_sign=True,
        crl_sign=True,
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return builder.add_extension(usage, critical=True).sign(key, hashes.SHA256()), key


def _server(authority: Pair, name: str) -> Mapping[str, bytes]:
    """A certificate for a service, by its name among the services and on this machine, and its key."""
    issuer, issuer_key = authority
    key = ec.generate_private_key(ec.SECP256R1())
    names = [
        x509.DNSName(name),
        x509.DNSName("localhost"),
        x509.IPAddress(IPv4Address("127.0.0.1")),
    ]
    certificate = (
        _certificate(_name(name), issuer.subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        .sign(issuer_key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {"tls.crt": _pem(certificate), "tls.key": private}


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _client_key(directory: Path) -> tuple[bytes, bytes]:
    """Both halves of the client's key, made by the broker's own command."""
    private = directory / "client" / "new.pem"
    public = directory / "client" / "new.jwks.json"
    for left in (private, public):
        left.unlink(missing_ok=True)
    subprocess.run(
        [sys.executable, "-m", "broker", "client", "key", "--pem", private, "--public", public],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    halves = private.read_bytes(), public.read_bytes()
    for made in (private, public):
        made.unlink()
    return halves


def _write(file: Path, content: bytes) -> None:
    """Write a file that is its owner's alone, whole or not at all."""
    new = file.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_bytes(content)
    new.replace(file)


def _hand_over(folders: list[Path]) -> None:
    """Give everything to the user that the services run as; only root can."""
    if os.geteuid() != 0:
        return
    for folder in folders:
        for one in (folder, *folder.iterdir()):
            os.chown(one, OWNER, OWNER)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
