"""The embedded key store: private keys in files of one machine, for development and small sites."""

import os
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from broker.interfaces import SigningKey
from broker.keys.published import KeyUnfit, PublishedKey, published_key
from broker.keys.unavailable import signer_unavailable

_LARGEST_FILE: Final = 16_384
# Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
_TO_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TO_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_TO_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_ES256: Final = ECAlgorithm(ECAlgorithm.SHA256, ec.SECP256R1)
_RS256: Final = RSAAlgorithm(RSAAlgorithm.SHA256)

_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class KeyFileRefused(Exception):
    """A key file or its directory is not safe to use; the sentence tells the operator why."""


@dataclass(frozen=True, slots=True)
class DevSigningKey:
    """A private key in memory."""

    published: PublishedKey
    algorithm: str
    _private_key: _PrivateKey = field(repr=False)

    @property
    def kid(self) -> str:
        return self.published.kid

    def sign(self, signing_input: bytes) -> bytes:
        if isinstance(self._private_key, ec.EllipticCurvePrivateKey):
            return _ES256.sign(signing_input, self._private_key)
        return _RS256.sign(signing_input, self._private_key)


class DevKeyStore:
    """
    One private key per algorithm, as PKCS#8 PEM in a directory that only its owner can read.

    Missing keys are made. Several processes may start on one directory at once: one key wins and
    all of them use it. Raises ``KeyFileRefused`` when the directory or a file in it can be read by
    others, belongs to somebody else, or holds anything but a key fit for its algorithm.
    """

    def __init__(self, directory: Path, *, algorithms: Sequence[str] = ("ES256",)) -> None:
        with _private_directory(directory) as folder:
            self._keys: Mapping[str, DevSigningKey] = {
                algorithm: _load_or_create(folder, directory=directory, algorithm=algorithm)
                for algorithm in algorithms
            }
        self._published = tuple(key.published for key in self._keys.values())

    def signing_key(self, algorithm: str) -> SigningKey:
        if not self._keys:
            raise signer_unavailable("the key store is closed")
        if algorithm not in self._keys:
            raise LookupError(f"no key is configured for {algorithm}")
        return self._keys[algorithm]

    def public_keys(self) -> Sequence[Mapping[str, str]]:
        return [key.members() for key in self._published]

    def close(self) -> None:
        self._keys = {}


@contextmanager
def _private_directory(directory: Path) -> Iterator[int]:
    """Hold the directory open, so that what is checked is what the keys are read from."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KeyFileRefused(f"{directory} cannot be opened: {error.strerror}") from None
    try:
        _check_owner_and_mode(os.fstat(folder), directory)
        yield folder
    finally:
        os.close(folder)


def _load_or_create(folder: int, *, directory: Path, algorithm: str) -> DevSigningKey:
    name = f"{algorithm.lower()}.pem"
    try:
        pem = _read(folder, name, path=directory / name)
    except FileNotFoundError:
        _create(folder, name, pem=_new_key(algorithm), path=directory / name)
        # Another process may have been first: what stands in the file counts, not what was made here.
        pem = _read(folder, name, path=directory / name)
    return _parse(pem, algorithm, path=directory / name)


def _read(folder: int, name: str, *, path: Path) -> bytes:
    try:
        descriptor = os.open(name, _TO_READ, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyFileRefused(f"{path} cannot be opened: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileRefused(f"{path} is not a regular file")
        _check_owner_and_mode(status, path)
        return file.read(_LARGEST_FILE)


def _create(folder: int, name: str, *, pem: bytes, path: Path) -> None:
    """Put a whole key under its name at once, unless the name is taken by then."""
    draft = f".{name}.{secrets.token_hex(8)}"
    try:
        _write(folder, draft, pem=pem)
        # A link, unlike a rename, never replaces what another process has put there.
        os.link(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    except FileExistsError:
        return
    except OSError as error:
        raise KeyFileRefused(f"{path} cannot be written: {error.strerror}") from None
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=folder)


def _write(folder: int, name: str, *, pem: bytes) -> None:
    descriptor = os.open(name, _TO_WRITE, 0o600, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(descriptor)


def _check_owner_and_mode(status: os.stat_result, path: Path) -> None:
    if status.st_uid != os.geteuid():
        raise KeyFileRefused(f"{path} belongs to another user")
    if status.st_mode & _OPEN_TO_OTHERS:
        mode = stat.S_IMODE(status.st_mode)
        raise KeyFileRefused(f"{path} has mode {mode:04o}: group and others must have no access")


def _new_key(algorithm: str) -> bytes:
    if algorithm == "ES256":
        return _pem(ec.generate_private_key(ec.SECP256R1()))
    if algorithm == "RS256":
        return _pem(rsa.generate_private_key(public_exponent=65_537, key_size=2048))
    raise KeyUnfit(f"no key can be made for {algorithm}")


def _pem(key: _PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _parse(pem: bytes, algorithm: str, *, path: Path) -> DevSigningKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyFileRefused(f"{path} does not hold a private key in PEM form") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise KeyFileRefused(f"{path} does not hold an EC or RSA key")
    try:
        return DevSigningKey(published_key(key.public_key(), algorithm), algorithm, key)
    except KeyUnfit as error:
        raise KeyFileRefused(f"{path}: {error}") from None
