"""The processes of a running broker: one for each face, and one that speaks for both."""

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import structlog

from broker import __version__
from broker.app import Process
from broker.config import Settings
from broker.config.settings import Address, ListenSettings
from broker.cores import Cores, cores_for
from broker.foundation import check_state, open_audit_log
from broker.in_force import Accepted, Configuration
from broker.lifeline import Lifeline
from broker.logs import GRANIAN_LOGGING, name_process
from broker.metrics import Exposition, Metrics, prepare_directory
from broker.monitor import Hooks, WorkerMonitor
from broker.signing import keys_looked_after
from broker.state.sqlite_allowances import begin_allowances
from broker.supervisor import ChildSpec, Supervisor

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from broker.auditing import Auditing
    from broker.interfaces import AuditLog
    from broker.watch import WatchProcess
    from broker.web.readiness import Probe

GRACE: Final = timedelta(seconds=20)

# Threads that wait for the interpreter look whether it is free as often as this says. With hundreds of
# them, as there are under overload, Python's own 5 ms cost more than the work that is done meanwhile.
_SWITCH_SECONDS: Final = 0.05

_log = structlog.get_logger("broker.serving")


class AddressUnavailable(Exception):
    """An address of the settings cannot be listened on; the sentence names the setting."""


@contextmanager
def loading() -> Iterator[None]:
    """
    Load without collections of garbage until the end of the block.

    What is loaded all stays, and looking through it again and again takes a quarter of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def serve(settings: Settings, environ: dict[str, str], *, drain_delay: timedelta) -> int:
    """
    Run the broker until it is told to stop; returns its exit status.

    Everything is loaded before the first fork, and nothing that starts a thread is imported until
    after it. Raises ``PolicyLoadError`` when the policies are not good and ``AddressUnavailable``
    when a port is taken, and ``StateRefused`` when a shared store forgets on purpose: no process is
    started then.
    """
    with loading():
        accepted = Accepted(Configuration.load(settings), environ)
    if settings.state.valkey is not None and settings.state.store == "valkey":
        name_process(valkey=settings.state.valkey.where)
    _check_addresses(settings.listen)
    check_state(settings)
    # Whatever the broker writes is its owner's alone.
    os.umask(0o077)
    metrics = settings.state.directory / "metrics"
    settings.state.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    prepare_directory(metrics)
    if settings.state.store == "sqlite":
        begin_allowances(settings.state.directory)
    _log.info("starting", version=__version__, issuer=settings.issuer)
    supervisor = Supervisor(
        list(_children(accepted, metrics)),
        grace=GRACE,
        reload=accepted.reload,
        drain_delay=drain_delay,
    )
    # What is loaded lives on in every process: no collection looks at it again, and none copies it.
    gc.freeze()
    return supervisor.run()


def _check_addresses(listen: ListenSettings) -> None:
    """
    Try every address once before anything is started.

    The faces share their ports with whoever else does, so that a second broker, started by mistake,
    would quietly take connections from the first. This try shares nothing.
    """
    for name in ("http", "grpc", "admin", "streams"):
        address: Address | None = getattr(listen, name)
        if address is None:
            continue
        with socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address.host, address.port))
            except OSError as error:
                raise AddressUnavailable(f"listen.{name}: {address}: {error.strerror}") from None


def _children(accepted: Accepted, metrics: Path) -> Iterator[ChildSpec]:
    settings = accepted.configuration.settings
    runs = {"grpc": _run_grpc, "http": _run_http}
    workers = _workers(settings)
    cores = _cores(settings, len(workers))
    for place, name in enumerate(workers):
        run = partial(runs[name.partition("-")[0]], accepted, metrics, name)
        yield ChildSpec(name, partial(_run_held, run, cores, place))
    control = partial(_run_control, accepted, metrics, workers)
    yield ChildSpec("control", partial(_run_named, control), is_last=True)


def _workers(settings: Settings) -> tuple[str, ...]:
    """The names of the worker processes, which are also those of their audit chains."""
    listen, workers = settings.listen, settings.workers
    grpc = range(workers.grpc if listen.grpc is not None else 0)
    http = range(workers.http if listen.http is not None else 0)
    return (*(f"grpc-{number}" for number in grpc), *(f"http-{number}" for number in http))


def _cores(settings: Settings, workers: int) -> Cores:
    """The cores of the workers; the control process has little to do and runs wherever there is room."""
    if not settings.workers.is_pinned:
        return Cores(reason="workers.pin is never")
    cores = cores_for(workers)
    if cores.each:
        _log.info("workers_pinned", cores=cores.each)
    else:
        _log.info("workers_not_pinned", reason=cores.reason)
    return cores


def _run_named(run: Callable[[Lifeline], None], lifeline: Lifeline) -> None:
    name_process(worker=lifeline.name)
    run(lifeline)


def _run_held(
    run: Callable[[Lifeline], None], cores: Cores, place: int, lifeline: Lifeline
) -> None:
    # Before anything is imported that starts a thread: what runs already would not be held.
    cores.hold(place)
    _run_named(run, lifeline)


def _run_grpc(accepted: Accepted, metrics: Path, name: str, lifeline: Lifeline) -> None:
    # gRPC may not be imported before the fork: its threads would not survive it.
    from broker.rpc.boundary import CallLimits  # noqa: PLC0415 - see above.
    from broker.rpc.server import RunningServer, build_server  # noqa: PLC0415 - see above.

    configuration = accepted.configuration
    settings, address = configuration.settings.grpc, configuration.settings.listen.grpc
    process, measured = _process(configuration, metrics, name)
    servers: list[RunningServer] = []

    def drain() -> None:
        for server in servers:
            server.set_serving(is_serving=False)

    # The monitor carries out pending reloads first, so no call is answered from what was before.
    monitor = _monitor(lifeline, process, measured, drain=drain)
    server = build_server(
        process.endpoints,
        address=str(address),
        limits=CallLimits(
            threads=settings.threads,
            max_concurrent=settings.max_concurrent,
            max_message_bytes=settings.max_message_bytes,
        ),
        tls=settings.tls,
        has_reflection=settings.has_reflection,
    )
    servers.append(server)
    lifeline.wait()
    server.stop(GRACE.total_seconds() / 2)
    monitor.stop()
    process.close()
    measured.flush()


def _run_http(accepted: Accepted, metrics: Path, name: str, lifeline: Lifeline) -> None:
    from broker.web.app import OAuthApp  # noqa: PLC0415 - only this process serves HTTP.
    from broker.web.peers import Peers  # noqa: PLC0415 - the same.
    from broker.web.server import HttpListener, serve_http  # noqa: PLC0415 - the same.

    configuration = accepted.configuration
    settings, address = configuration.settings.http, configuration.settings.listen.http
    running: list[tuple[Process, Metrics, WorkerMonitor]] = []

    def build() -> OAuthApp:
        process, measured = _process(configuration, metrics, name)
        running.append((process, measured, _monitor(lifeline, process, measured)))
        return OAuthApp(
            process.endpoints,
            issuer=configuration.settings.issuer,
            max_body_bytes=settings.max_body_bytes,
            max_concurrent=settings.threads,
            peers=Peers(settings.trusted_proxies, header=settings.caller_header),
        )

    def close() -> None:
        for process, measured, monitor in running:
            monitor.stop()
            process.close()
            measured.flush()

    serve_http(
        build,
        HttpListener(
            address.host if address else "",
            address.port if address else 0,
            tls=settings.tls,
            grace=GRACE / 2,
            log_config=GRANIAN_LOGGING,
        ),
        on_exit=close,
    )


def _process(configuration: Configuration, metrics: Path, name: str) -> tuple[Process, Metrics]:
    sys.setswitchinterval(_SWITCH_SECONDS)
    measured = _metrics(configuration, metrics, name)
    return Process(configuration, writer=name, metrics=measured), measured


def _metrics(configuration: Configuration, metrics: Path, name: str) -> Metrics:
    issuers = [issuer.issuer for issuer in configuration.settings.issuers]
    return Metrics(metrics, name, issuers=issuers)


def _monitor(
    lifeline: Lifeline,
    process: "Process | WatchProcess",
    measured: Metrics,
    *,
    drain: Callable[[], None] | None = None,
) -> WorkerMonitor:
    def beat() -> None:
        measured.show_jwks_ages(process.key_ages())
        measured.show_memories(process.memories())
        measured.flush()

    hooks = Hooks(reload=process.reload, leave=_leave, reloaded=measured.count_reload, beat=beat)
    if drain is not None:
        hooks = replace(hooks, drain=drain)
    monitor = WorkerMonitor(lifeline, process.checks(), hooks=hooks)
    monitor.start()
    return monitor


def _leave() -> None:
    """End this process as if it were asked to; the supervisor starts another in its place."""
    os.kill(os.getpid(), signal.SIGTERM)


def _run_control(
    accepted: Accepted, metrics: Path, workers: tuple[str, ...], lifeline: Lifeline
) -> None:
    from broker.auditing import Auditing  # noqa: PLC0415 - only this process needs it.
    from broker.web.admin import run_control  # noqa: PLC0415 - the same.
    from broker.web.readiness import Readiness  # noqa: PLC0415 - the same.

    configuration = accepted.configuration
    settings, listen = configuration.settings, configuration.settings.listen
    auditing = Auditing(settings)
    # With streams this process has callers of its own, and answers for its own health as well.
    reporting = workers if listen.streams is None else (*workers, lifeline.name)

    def readiness() -> Readiness:
        return Readiness(
            reporting, is_draining=lambda: lifeline.draining, probes=dict(_probes(settings))
        )

    with ExitStack() as parts:
        # What every other process and part of this one has recorded at its end is sealed as well.
        parts.enter_context(auditing.under_way())
        parts.enter_context(keys_looked_after(settings))
        beside: Callable[[], AbstractAsyncContextManager[object]] = nullcontext
        audit: AuditLog | None = None
        if listen.streams is not None:
            audit, beside = parts.enter_context(
                _watching(configuration, metrics, lifeline, auditing)
            )
        pages = parts.enter_context(_reviewed(settings, audit, lifeline))
        run_control(
            lifeline,
            listener=(listen.admin.host, listen.admin.port),
            readiness=readiness,
            exposition=Exposition(metrics, beside=auditing.measures).render,
            routes=[*auditing.routes(), *pages],
            beside=beside,
        )


@contextmanager
def _reviewed(
    settings: Settings, audit: "AuditLog | None", lifeline: Lifeline
) -> Iterator["Sequence[BaseRoute]"]:
    """
    The auditor's pages, where there are any.

    ``audit`` is the chain of this process if it has one already; one is opened if not.
    """
    review = settings.audit.review
    if review is None:
        yield ()
        return
    from broker.people import open_naming  # noqa: PLC0415 - only with the pages.
    from broker.reviewing import Reviewing  # noqa: PLC0415 - the same.

    with ExitStack() as parts:
        if audit is None:
            naming = open_naming(settings)
            parts.callback(naming.close)
            audit = open_audit_log(settings, writer=lifeline.name, naming=naming)
            parts.callback(audit.close)
        reviewing = Reviewing(settings, review, audit)
        parts.callback(reviewing.close)
        yield [reviewing.access.guarded([])]


@contextmanager
def _watching(
    configuration: Configuration, metrics: Path, lifeline: Lifeline, auditing: "Auditing"
) -> Iterator["tuple[AuditLog, Callable[[], AbstractAsyncContextManager[int]]]"]:
    """
    What tells listeners what is withdrawn, to be served in the event loop of the control process.

    With it comes the chain of its records, which is that of the process.
    """
    from broker.rpc.audit_service import RecordReading  # noqa: PLC0415 - only with streams.
    from broker.rpc.streams import StreamListener, streaming  # noqa: PLC0415 - only with streams.
    from broker.watch import WatchProcess  # noqa: PLC0415 - the same.

    settings = configuration.settings
    measured = _metrics(configuration, metrics, lifeline.name)
    process = WatchProcess(configuration, writer=lifeline.name, metrics=measured)
    monitor = _monitor(lifeline, process, measured)
    listener = StreamListener(
        str(settings.listen.streams),
        tls=settings.grpc.tls,
        max_message_bytes=settings.grpc.max_message_bytes,
    )
    reading = RecordReading(process.reading, auditing.reader, auditing.prove)
    try:
        yield (
            process.audit,
            partial(streaming, process.endpoint, process.feed, listener, reading=reading),
        )
    finally:
        monitor.stop()
        process.close()
        measured.flush()


def _probes(settings: Settings) -> Iterator[tuple[str, "Probe"]]:
    from broker.web.probes import grpc_probe, http_probe  # noqa: PLC0415 - the same.

    if settings.listen.grpc is not None and settings.grpc.tls is None:
        yield "grpc", grpc_probe(str(_reachable(settings.listen.grpc)))
    if settings.listen.http is not None and settings.http.tls is None:
        issuer = urlsplit(settings.issuer)
        address = _reachable(settings.listen.http)
        yield (
            "http",
            http_probe(
                address.host,
                address.port,
                path=f"/.well-known/oauth-authorization-server{issuer.path.rstrip('/')}",
                authority=issuer.netloc,
            ),
        )


def _reachable(address: Address) -> Address:
    """Where a probe finds a face: one that listens on every address is asked on loopback."""
    unspecified = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - it is compared, not bound.
    return Address(unspecified.get(address.host, address.host), address.port)
