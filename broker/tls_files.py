"""A certificate and its key, in files that may be replaced while they are in use."""

import os
import re
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509 import Certificate, InvalidVersion, load_pem_x509_certificates

from broker.model import TlsFiles

_BEGINS: Final = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE-----")

_log = structlog.get_logger("broker.tls")

_OPEN_TO_OTHERS: Final = stat.S_IRWXO | stat.S_IWGRP

_Stamps = tuple[tuple[int, ...], ...]

Fitness = Callable[[Certificate], None]
"""Raises ``ValueError`` for a certificate that a face cannot use, with the reason."""


@dataclass(frozen=True, slots=True)
class Identity:
    """
    What a face shows, and whose client certificates it accepts, in PEM; the two belong together.

    It is written anew from what was read, so that whoever reads it next finds the same.
    """

    chain: bytes
    key: bytes = field(repr=False)
    client_authority: bytes | None = None


class WatchedTls:
    """
    What the files hold, looked at again whenever ``newer`` is asked.

    What does not fit together, or is not whole, is not taken up: the old pair stays in use until a good one
    is there. What is in its way is logged once. ``is_fit`` says what else the face asks of each certificate.
    Raises ``ValueError`` or ``OSError`` when there is no good pair to begin with.
    """

    def __init__(self, files: TlsFiles, *, is_fit: Fitness | None = None) -> None:
        self._files = files
        self._is_fit = is_fit
        self._failure = ""
        self._lock = threading.Lock()
        self._stamps = self._look()
        self._open_before = self._openness()
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
                self._check_openness()
                identity = self._load()
            except (OSError, ValueError) as failure:
                if str(failure) != self._failure:
                    self._failure = str(failure)
                    _log.error("certificate_not_reloaded", reason=self._failure)
                return None
            self._failure = ""
        _log.info("certificate_reloaded")
        return identity

    def _look(self) -> _Stamps:
        return tuple(_stamp(path.stat()) for path in self._files.paths)

    def _check_openness(self) -> None:
        """The next start would refuse it too, and that is a bad time to learn of it."""
        if self._openness() & ~self._open_before:
            raise ValueError("The server key is open to others on this machine (chmod 0640).")

    def _openness(self) -> int:
        """What strangers, or writers of the group, may do with the key."""
        return self._files.key_file.stat().st_mode & _OPEN_TO_OTHERS

    def _load(self) -> Identity:
        files = self._files
        chain = self._certificates(files.cert_file.read_bytes(), "server")
        key = _key_of(chain[0], files.key_file.read_bytes())
        authority = None
        if files.client_ca_file is not None:
            authority = self._certificates(files.client_ca_file.read_bytes(), "client authority")
        return Identity(_pem(chain), key, None if authority is None else _pem(authority))

    def _certificates(self, pem: bytes, whose: str) -> list[Certificate]:
        try:
            found = load_pem_x509_certificates(pem)
            # Parsing passes over a block that somebody is still writing.
            is_whole = len(found) == len(_BEGINS.findall(pem)) and _is_whole(pem)
            if self._is_fit is not None:
                for certificate in found:
                    self._is_fit(certificate)
        except UnfitCertificate as unfit:
            raise ValueError(f"A {whose} certificate {unfit}.") from None
        except (ValueError, InvalidVersion, UnsupportedAlgorithm):
            raise ValueError(f"The {whose} certificate is no PEM certificate.") from None
        if not is_whole:
            raise ValueError(f"The file of the {whose} certificate is cut off.")
        return found


class UnfitCertificate(ValueError):
    """A sound certificate that a face cannot use; the text is the end of a sentence about it."""


def _key_of(leaf: Certificate, pem: bytes) -> bytes:
    try:
        key = load_pem_private_key(pem, password=None)
        belongs = key.public_key() == leaf.public_key()
        written = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("The server key is no unencrypted PEM key.") from None
    if not belongs:
        raise ValueError("The server key does not belong to the server certificate.")
    return written


def _pem(certificates: list[Certificate]) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def _is_whole(pem: bytes) -> bool:
    return pem.count(b"-----BEGIN ") == pem.count(b"-----END ")


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode)
