"""A certificate and its key, in files that may be replaced while they are in use."""

import os
import threading
from dataclasses import dataclass, field

import structlog
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import Certificate, load_pem_x509_certificates

from broker.model import TlsFiles

_log = structlog.get_logger("broker.tls")

_Stamps = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Identity:
    """What a face shows, and whose client certificates it accepts, in PEM; the two belong together."""

    chain: bytes
    key: bytes = field(repr=False)
    client_authority: bytes | None = None


class WatchedTls:
    """
    What the files hold, looked at again whenever ``newer`` is asked.

    What does not fit together is not taken up: the old pair stays in use until a good one is there.
    Raises ``ValueError`` or ``OSError`` when there is none to begin with.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._stamps = self._look()
        self.first = self._load()

    def newer(self) -> Identity | None:
        """What to show from now on, or ``None`` to go on with what is in use."""
        with self._lock:
            try:
                stamps = self._look()
                if stamps == self._stamps:
                    return None
                # A pair that was refused is not read again until one of its files changes.
                self._stamps = stamps
                identity = self._load()
            except (OSError, ValueError) as failure:
                _log.error("certificate_not_reloaded", reason=str(failure))
                return None
        _log.info("certificate_reloaded")
        return identity

    def _look(self) -> _Stamps:
        return tuple(_stamp(path.stat()) for path in self._files.paths)

    def _load(self) -> Identity:
        chain, key = self._files.cert_file.read_bytes(), self._files.key_file.read_bytes()
        _check_pair(chain, key)
        authority = None
        if self._files.client_ca_file is not None:
            authority = self._files.client_ca_file.read_bytes()
            _certificates(authority, "client authority")
        return Identity(chain, key, authority)


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def _check_pair(chain: bytes, key: bytes) -> None:
    leaf = _certificates(chain, "server")[0]
    try:
        public_key = load_pem_private_key(key, password=None).public_key()
    except (ValueError, TypeError):
        raise ValueError("The server key is no unencrypted PEM key.") from None
    if public_key != leaf.public_key():
        raise ValueError("The server key does not belong to the server certificate.")


def _certificates(pem: bytes, whose: str) -> list[Certificate]:
    try:
        return load_pem_x509_certificates(pem)
    except ValueError:
        raise ValueError(f"The {whose} certificate is no PEM certificate.") from None
