"""The HTTP face's server where it has TLS: it shows a replaced certificate without a restart."""

import os
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import structlog
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import Certificate, Version
from granian import _futures, _granian, _signals, wsgi
from granian.constants import SSLProtocols
from granian.server.common import WORKERS_METHODS
from granian.server.mp import WorkerProcess

from broker.tls_files import Identity, UnfitCertificate, WatchedTls

_RSA_BITS: Final = (2048, 8192)
_LOOK_EVERY: Final = 1.0
"""Seconds from one look at the files to the next."""

# What granian's own worker is made of; its stubs tell less than there is.
_new_server: Final[Any] = _granian.WSGIWorker
_new_scheduler: Final[Any] = _futures._new_cbscheduler  # noqa: SLF001 - see above.
_wrap_app: Final[Any] = wsgi._callback_wrapper  # noqa: SLF001 - see above.
_wrap_target: Final[Any] = WorkerProcess.wrap_target
_heed: Final[Any] = _signals.set_main_signals

_log = structlog.get_logger("broker.web")


def check_fit(certificate: Certificate) -> None:
    """
    Raise ``UnfitCertificate`` unless granian's TLS can serve with the certificate, and check others by it.

    Granian ends the whole process over one that it cannot use.
    """
    if certificate.version is not Version.v3:
        raise UnfitCertificate("is not of version 3")
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        is_usable = _RSA_BITS[0] <= key.key_size <= _RSA_BITS[1]
    elif isinstance(key, ec.EllipticCurvePublicKey):
        is_usable = isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
    else:
        is_usable = isinstance(key, ed25519.Ed25519PublicKey)
    if not is_usable:
        raise UnfitCertificate(
            "has a key that is none of P-256, P-384, Ed25519 and RSA of 2048 to 8192 bits"
        )


class _Options(NamedTuple):
    """What granian hands to whoever serves in its worker, in its order."""

    runtime_mode: Any
    runtime_threads: int
    runtime_blocking_threads: int | None
    blocking_threads: int
    blocking_threads_idle_timeout: int
    backpressure: int
    task_impl: Any
    http_mode: Any
    http1_settings: Any
    http2_settings: Any
    websockets: bool
    static_path: Any
    log_access_format: str | None
    ssl_ctx: Any
    scope_options: dict[str, Any]
    metrics: Any


def serving_with(watched: WatchedTls) -> Callable[..., None]:
    """
    What granian's worker shall run so that it follows the files.

    Granian reads a certificate when it begins to serve. So for a new one another server begins on the
    port, in the same process and for the same application, and then the one before takes no more
    connections and finishes what it has.
    """

    def serve(worker: int, app: Any, socket: Any, _ipc: Any, loop: Any, *options: Any) -> None:
        _Succession(worker, app, socket, loop, _Options(*options), watched).run()

    target: Callable[..., None] = _wrap_target(serve)
    return target


class _Succession:
    """Servers that follow each other, of which the last one takes the connections."""

    def __init__(
        self, worker: int, app: Any, socket: Any, loop: Any, options: _Options, watched: WatchedTls
    ) -> None:
        self._worker = worker
        self._socket = socket
        self._loop = loop
        self._options = options
        self._watched = watched
        self._app = _wrap_app(app, options.scope_options, options.log_access_format)
        self._servers: list[_Server] = []
        self._is_stopping = False

    def run(self) -> None:
        """Serve until a signal says to stop, and return when everything is answered."""
        _heed(self._stop)
        self._begin(self._watched.first)
        threading.Thread(target=self._follow, name="certificates", daemon=True).start()
        # Each is followed before it is told to end, so the list is never at its end too early.
        for server in self._servers:
            server.over.wait()

    def _stop(self, *_: object) -> None:
        self._is_stopping = True
        if self._servers:
            self._servers[-1].stop.set()

    def _follow(self) -> None:
        pause = threading.Event()
        while not pause.wait(_LOOK_EVERY) and not self._is_stopping:
            try:
                found = self._watched.newer()
                if found is not None:
                    self._replace(found)
            except Exception:  # noqa: BLE001 - Without this thread no certificate is ever shown again.
                _log.exception("certificate_not_reloaded")

    def _replace(self, identity: Identity) -> None:
        former = self._servers[-1]
        try:
            self._begin(identity)
        except Exception:  # noqa: BLE001 - Whatever was in its way, the one before serves on.
            _log.exception("certificate_not_reloaded")
            return
        former.stop.set()
        if self._is_stopping:
            self._servers[-1].stop.set()

    def _begin(self, identity: Identity) -> None:
        options = self._options
        with _Readable(identity) as tls:
            worker = _new_server(
                self._worker,
                self._socket,
                None,
                options.runtime_threads,
                options.runtime_blocking_threads,
                options.blocking_threads,
                options.blocking_threads_idle_timeout,
                options.backpressure,
                options.http_mode,
                options.http1_settings,
                options.http2_settings,
                options.static_path,
                *tls,
                options.metrics,
            )
            server = _Server()
            scheduler = _new_scheduler(self._loop, self._app, impl_asyncio=False)
            begin = getattr(worker, WORKERS_METHODS[options.runtime_mode][False])
            begin(scheduler, self._loop, server.stop)
        self._servers.append(server)


class _Server:
    """One of the succession: how it is told to ``stop``, and whether that is ``over``."""

    def __init__(self) -> None:
        self.stop = _granian.WorkerSignal()
        self.over = threading.Event()
        self.stop.add_cb(self.over.set)


class _Readable:
    """
    An identity as files that hold what was checked, whatever becomes of the files that it came from.

    Granian would end the process over a key that does not belong to the certificate. The files are in
    memory, and gone with the block.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._open: list[int] = []

    def __enter__(self) -> tuple[Any, ...]:
        one = self._identity
        authority = None if one.client_authority is None else self._file(one.client_authority)
        cert, key = self._file(one.chain), self._file(one.key)
        minimum = str(SSLProtocols.tls12)
        return (True, cert, key, None, minimum, authority, [], authority is not None)

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open:
            os.close(descriptor)

    def _file(self, content: bytes) -> str:
        descriptor = os.memfd_create("tls")
        self._open.append(descriptor)
        os.write(descriptor, content)
        return f"/proc/self/fd/{descriptor}"
