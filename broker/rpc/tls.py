"""TLS for the gRPC face, from files that may be replaced while it runs."""

from collections.abc import Callable
from typing import cast

import grpc

from broker.model import TlsFiles
from broker.tls_files import Identity, WatchedTls


class ReloadingTls:
    """
    Server credentials that follow their files, which are looked at with every handshake.

    Raises ``ValueError`` or ``OSError`` when there is no good pair to begin with.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._watched = WatchedTls(files)

    def credentials(self) -> grpc.ServerCredentials:
        """What a secure port is opened with."""
        first = self._watched.first
        return grpc.dynamic_ssl_server_credentials(
            _configuration(first),
            # The stubs do not know that no configuration means no change.
            cast("Callable[[], grpc.ServerCertificateConfiguration]", self._newer),
            require_client_authentication=first.client_authority is not None,
        )

    def _newer(self) -> grpc.ServerCertificateConfiguration | None:
        """The configuration to use from now on, or ``None`` to go on with the one in use."""
        found = self._watched.newer()
        return None if found is None else _configuration(found)


def _configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(identity.key, identity.chain)], identity.client_authority
    )
