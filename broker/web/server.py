"""Runs the OAuth face on granian, with the limits that keep one sender from holding up the others."""

import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.util import Finalize
from typing import Any, Final

import structlog
from granian import Granian
from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels

from broker.model import TlsFiles
from broker.tls_files import WatchedTls
from broker.web.app import OAuthApp
from broker.web.crowds import Crowds
from broker.web.overdue import OverdueBodies
from broker.web.rolling import check_fit, serving_with

_MOST_HEADER_BYTES: Final = 32 * 1024
_OTHER_DESCRIPTORS: Final = 512

_log = structlog.get_logger("broker.web")


@dataclass(frozen=True, slots=True)
class HttpListener:
    """
    Where and how the face listens.

    ``port`` is not 0: nobody could learn which it became. ``max_connections`` is the number of
    connections beyond which new ones wait. A connection may be idle, or busy with its headers, for
    ``header_timeout``, and busy with a body for ``body_timeout``. Behind a proxy that keeps idle
    connections, ``header_timeout`` must be longer than it keeps them. ``grace`` is how long a stop
    waits for answers under way. ``log_config`` goes to granian's own logging set-up.
    """

    host: str
    port: int
    tls: TlsFiles | None = None
    max_connections: int = 2048
    header_timeout: timedelta = timedelta(seconds=5)
    body_timeout: timedelta = timedelta(seconds=5)
    grace: timedelta = timedelta(seconds=10)
    log_config: Mapping[str, Any] = field(default_factory=dict)


def serve_http(
    factory: Callable[[], OAuthApp],
    listener: HttpListener,
    *,
    on_exit: Callable[[], None] | None = None,
) -> None:
    """
    Serve until SIGTERM or SIGINT, then finish what was accepted; called in a main thread.

    ``factory`` is called in the process that will serve, which is a fork of this one, in its main
    thread and before any request; ``on_exit`` is called there after the last answer. Other processes
    may listen on the same port; the kernel spreads connections over them. Raises ``SystemExit`` when
    the serving process died.
    """

    def load(*_target: object) -> OAuthApp:
        app = factory()
        if on_exit is not None:
            Finalize(None, on_exit, exitpriority=100)
        OverdueBodies(
            app.body_reads,
            port=listener.port,
            limit=listener.body_timeout.total_seconds(),
            idle=listener.header_timeout.total_seconds(),
        ).start()
        Crowds(
            port=listener.port, most=listener.max_connections, is_spared=app.peers.is_proxy
        ).start()
        _heed_signals()
        return app

    _allow_descriptors(listener.max_connections + _OTHER_DESCRIPTORS)
    # What ``factory`` closes over need not be fit for pickling: it passes through a fork.
    multiprocessing.set_start_method("fork", force=True)
    target = None
    if listener.tls is not None and sys.platform == "linux":
        # Elsewhere there are no files in memory, and a new certificate takes a restart.
        target = serving_with(WatchedTls(listener.tls, is_fit=check_fit))
    Granian("broker", **_options(listener)).serve(target, load, wrap_loader=False)


def _heed_signals() -> None:
    """
    See to it that the order to stop is heeded, whatever thread takes the signal.

    Handlers run in the main thread alone. Granian's waits there for a lock, and only a signal to that
    very thread wakes it; but one that is meant for a process may be taken by any thread, and while
    threads come and go it sometimes is. So the first one is passed on to the main thread.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    main_thread = threading.get_ident()

    def pass_on() -> None:
        for number in os.read(reading, 1):
            signal.pthread_kill(main_thread, number)

    threading.Thread(target=pass_on, name="signals", daemon=True).start()


def _allow_descriptors(needed: int) -> None:
    """Raise this process's own limit of open files, which is low by custom, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < needed:
            _log.warning("few_descriptors", allowed=allowed, needed=needed)


def _options(listener: HttpListener) -> dict[str, Any]:
    """
    HTTP/1.1 only, no access log, one process. Header lines may end in a line feed alone (RFC 9112
    2.2), which cannot be forbidden here: a proxy in front must read them so too, or refuse them.

    Every connection may block a thread of its own while its request body arrives. Threads are started
    as they are needed and cost little as long as they wait; how many work is the application's limit.
    """
    tls = listener.tls
    return {
        "address": listener.host,
        "port": listener.port,
        "interface": Interfaces.WSGI,
        "workers": 1,
        "blocking_threads": listener.max_connections,
        "backlog": 1024,
        "backpressure": listener.max_connections,
        "http": HTTPModes.http1,
        "http1_settings": HTTP1Settings(
            header_read_timeout=int(listener.header_timeout.total_seconds() * 1000),
            max_buffer_size=_MOST_HEADER_BYTES,
        ),
        "websockets": False,
        # Its one warning is about the number of threads, which is meant.
        "log_level": LogLevels.error,
        "log_dictconfig": dict(listener.log_config),
        "log_access": False,
        "ssl_cert": tls.cert_file if tls else None,
        "ssl_key": tls.key_file if tls else None,
        "ssl_protocol_min": SSLProtocols.tls12,
        "ssl_ca": tls.client_ca_file if tls else None,
        "ssl_client_verify": tls is not None and tls.client_ca_file is not None,
        "workers_kill_timeout": max(1, int(listener.grace.total_seconds())),
    }
