"""TLS for the gRPC face, from files that may be replaced while it runs."""

import os
import threading
from collections.abc import Callable
from typing import cast

import grpc
import structlog
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import Certificate, load_pem_x509_certificates

from broker.model import TlsFiles

_log = structlog.get_logger("broker.rpc")

_Stamps = tuple[tuple[int, int, int], ...]


class ReloadingTls:
    """
    Server credentials that follow their files.

    The files are looked at with every handshake. What does not fit together is not taken up: the old
    pair stays in use until a good one is there. Raises ``ValueError`` or ``OSError`` when there is
    none to begin with.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._stamps = self._look()
        self._first = self._load()

    def credentials(self) -> grpc.ServerCredentials:
        """What a secure port is opened with."""
        return grpc.dynamic_ssl_server_credentials(
            self._first,
            # The stubs do not know that no configuration means no change.
            cast("Callable[[], grpc.ServerCertificateConfiguration]", self._newer),
            require_client_authentication=self._files.client_ca_file is not None,
        )

    def _newer(self) -> grpc.ServerCertificateConfiguration | None:
        """The configuration to use from now on, or ``None`` to go on with the one in use."""
        with self._lock:
            try:
                stamps = self._look()
                if stamps == self._stamps:
                    return None
                # A pair that was refused is not read again until one of its files changes.
                self._stamps = stamps
                configuration = self._load()
            except (OSError, ValueError) as failure:
                _log.error("certificate_not_reloaded", reason=str(failure))
                return None
        _log.info("certificate_reloaded")
        return configuration

    def _look(self) -> _Stamps:
        return tuple(_stamp(path.stat()) for path in self._files.paths)

    def _load(self) -> grpc.ServerCertificateConfiguration:
        chain, key = self._files.cert_file.read_bytes(), self._files.key_file.read_bytes()
        _check_pair(chain, key)
        authority = None
        if self._files.client_ca_file is not None:
            authority = self._files.client_ca_file.read_bytes()
            _certificates(authority, "client authority")
        return grpc.ssl_server_certificate_configuration([(key, chain)], authority)


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
