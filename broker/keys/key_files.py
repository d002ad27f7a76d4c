"""Private keys in files of one directory, which nobody but their owner can read."""

import os
import re
import secrets
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from jwt.algorithms import RSAAlgorithm

from broker.keys.published import KeyUnfit, PublishedKey, published_key

_LARGEST_FILE: Final = 16_384
# Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
_TO_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TO_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_TO_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_ES256: Final = ec.ECDSA(hashes.SHA256())
_RS256: Final = RSAAlgorithm(RSAAlgorithm.SHA256)

_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class KeyFileRefused(Exception):
    """A key file or its directory is not safe to use; the sentence tells the operator why."""


@dataclass(frozen=True, slots=True)
class LocalSigningKey:
    """A private key in memory. ``created_at`` is in unix seconds."""

    published: PublishedKey
    algorithm: str
    number: int
    created_at: int
    _private_key: _PrivateKey = field(repr=False)

    @property
    def kid(self) -> str:
        return self.published.kid

    @property
    def place(self) -> tuple[str, int]:
        """Its algorithm and number, which together name no other key."""
        return self.algorithm, self.number

    def sign(self, signing_input: bytes) -> bytes:
        if isinstance(self._private_key, rsa.RSAPrivateKey):
            return _RS256.sign(signing_input, self._private_key)
        r, s = decode_dss_signature(self._private_key.sign(signing_input, _ES256))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def sign_all(self, signing_inputs: Sequence[bytes]) -> Sequence[bytes]:
        return [self.sign(one) for one in signing_inputs]


class KeyFiles:
    """
    A directory of keys, each as PKCS#8 PEM in a file that is named by its algorithm and number.

    Several processes may make keys in one directory at once: of two with one number one wins, and
    both use it. Everything raises ``KeyFileRefused`` when the directory or a file in it can be read
    by others, belongs to somebody else, or holds anything but a key fit for its algorithm.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def numbers(self, algorithm: str) -> Sequence[int]:
        """The numbers of the keys that there are, the lowest first."""
        form = re.compile(rf"{re.escape(algorithm.lower())}(?:-([1-9][0-9]{{0,5}}))?\.pem")
        with private_directory(self.directory) as folder:
            matches = [form.fullmatch(name) for name in names_in(folder)]
        return sorted(int(match[1] or 1) for match in matches if match)

    def make(self, algorithm: str, number: int) -> None:
        """Make a key with this number, unless there is one by now."""
        pem = _new_key(algorithm)
        name = _name(algorithm, number)
        with private_directory(self.directory) as folder:
            create_private(folder, name, content=pem, path=self.directory / name)

    def load(self, algorithm: str, number: int) -> LocalSigningKey | None:
        """The key with this number, or ``None`` if there is none."""
        name = _name(algorithm, number)
        path = self.directory / name
        with private_directory(self.directory) as folder:
            try:
                pem, status = read_private(folder, name, path=path)
            except FileNotFoundError:
                return None
        return _parse(pem, algorithm, number=number, created_at=int(status.st_mtime), path=path)

    def drop(self, algorithm: str, numbers: Collection[int]) -> None:
        """Delete the keys with these numbers, as far as there are such."""
        with private_directory(self.directory) as folder:
            for number in numbers:
                with suppress(FileNotFoundError):
                    os.unlink(_name(algorithm, number), dir_fd=folder)
            os.fsync(folder)


@contextmanager
def private_directory(directory: Path) -> Iterator[int]:
    """Hold the directory open, so that what is checked is what the files are read from."""
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


def read_private(
    folder: int, name: str, *, path: Path, limit: int = _LARGEST_FILE
) -> tuple[bytes, os.stat_result]:
    """What a file holds, up to a limit; raises ``FileNotFoundError`` and ``KeyFileRefused``."""
    try:
        descriptor = os.open(name, _TO_READ, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyFileRefused(f"{path} cannot be opened: {error.strerror}") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        # A directory can be opened by its number, and by nothing that reads files.
        os.close(descriptor)
        raise KeyFileRefused(f"{path} is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        _check_owner_and_mode(status, path)
        return file.read(limit), status


def write_private(folder: int, name: str, *, content: bytes) -> None:
    """Write a file that is not there yet, for its owner alone, and have it on disk."""
    descriptor = os.open(name, _TO_WRITE, 0o600, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def names_in(folder: int) -> Sequence[str]:
    """What is in a directory that is held open."""
    # The open directory is listed and not its path, where another may be by now.
    return os.listdir(folder)


def _name(algorithm: str, number: int) -> str:
    ending = "" if number == 1 else f"-{number}"
    return f"{algorithm.lower()}{ending}.pem"


def create_private(folder: int, name: str, *, content: bytes, path: Path) -> None:
    """Put a whole key under its name at once, unless the name is taken by then."""
    draft = f".{name}.{secrets.token_hex(8)}"
    try:
        write_private(folder, draft, content=content)
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


def _parse(
    pem: bytes, algorithm: str, *, number: int, created_at: int, path: Path
) -> LocalSigningKey:
    try:
        # To prove the primes of an RSA key anew takes as long as to make one, at every start of a process.
        key = serialization.load_pem_private_key(
            pem, password=None, unsafe_skip_rsa_key_validation=True
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyFileRefused(f"{path} does not hold a private key in PEM form") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise KeyFileRefused(f"{path} does not hold an EC or RSA key")
    try:
        published = published_key(key.public_key(), algorithm)
    except KeyUnfit as error:
        raise KeyFileRefused(f"{path}: {error}") from None
    if isinstance(key, rsa.RSAPrivateKey) and not _is_whole(key):
        raise KeyFileRefused(f"{path} holds a damaged key")
    return LocalSigningKey(published, algorithm, number, created_at, key)


def _is_whole(key: rsa.RSAPrivateKey) -> bool:
    """Whether its numbers belong together (RFC 8017 3.2), and what it signs is right."""
    numbers = key.private_numbers()
    p, q, d = numbers.p, numbers.q, numbers.d
    return (
        min(p, q) > 1
        and p * q == numbers.public_numbers.n
        and numbers.dmp1 == d % (p - 1)
        and numbers.dmq1 == d % (q - 1)
        and numbers.iqmp * q % p == 1
        and _RS256.verify(b"proof", key.public_key(), _RS256.sign(b"proof", key))
    )
