"""A broker of three processes around empty faces, started as a process of its own by a test beside it."""

import signal
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
from granian.constants import Interfaces
from granian.server import Server as Granian
from grpc_health.v1 import health, health_pb2_grpc

from broker.errors import Reason, TemporarilyUnavailable
from broker.lifeline import Lifeline
from broker.logs import GRANIAN_LOGGING, configure_logs
from broker.metrics import Exposition, Metrics, prepare_directory
from broker.monitor import Check, Hooks, WorkerMonitor
from broker.orders import Order
from broker.supervisor import ChildSpec, Supervisor
from broker.web.admin import run_control
from broker.web.probes import grpc_probe, http_probe
from broker.web.readiness import Readiness

FOLDER = Path(sys.argv[1])
GRPC, HTTP, ADMIN = map(int, sys.argv[2:])
METRICS = FOLDER / "metrics"


def monitor(lifeline: Lifeline) -> WorkerMonitor:
    """A worker whose audit log fails while a file says so."""
    metrics = Metrics(METRICS, lifeline.name)

    def check() -> None:
        if (FOLDER / f"{lifeline.name}-fails").exists():
            raise TemporarilyUnavailable(Reason.AUDIT_UNAVAILABLE)

    def count(_order: Order) -> None:
        metrics.count_reload("ok")

    return WorkerMonitor(
        lifeline,
        [Check("audit", check, every=timedelta(milliseconds=200))],
        hooks=Hooks(reload=count, beat=metrics.flush),
    )


def serve_grpc(lifeline: Lifeline) -> None:
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    server.add_insecure_port(f"127.0.0.1:{GRPC}")
    watch = monitor(lifeline)
    watch.start()
    server.start()
    lifeline.wait()
    server.stop(1).wait()
    watch.stop()


def application(_environ: dict[str, Any], respond: Callable[..., object]) -> Iterable[bytes]:
    respond("200 OK", [("Content-Type", "application/json")])
    return [b"{}"]


def serve_http(lifeline: Lifeline) -> None:
    def load(_target: str) -> Callable[..., Iterable[bytes]]:
        # This runs in the worker that granian forks.
        monitor(lifeline).start()
        (FOLDER / "granian-worker").write_text(str(lifeline.generation))
        return application

    Granian(
        "unused",
        port=HTTP,
        interface=Interfaces.WSGI,
        blocking_threads=2,
        log_dictconfig=dict(GRANIAN_LOGGING),
        workers_kill_timeout=20,
    ).serve(target_loader=load)


def serve_control(lifeline: Lifeline) -> None:
    run_control(
        lifeline,
        listener=("127.0.0.1", ADMIN),
        readiness=lambda: Readiness(
            ["grpc", "http"],
            is_draining=lambda: lifeline.draining,
            probes={
                "face/grpc": grpc_probe(f"127.0.0.1:{GRPC}"),
                "face/http": http_probe("127.0.0.1", HTTP, path="/", authority="broker.example"),
            },
        ),
        exposition=Exposition(METRICS).render,
    )


if __name__ == "__main__":
    configure_logs()
    prepare_directory(METRICS)
    signal.alarm(300)
    sys.exit(
        Supervisor(
            [
                ChildSpec("grpc", serve_grpc),
                ChildSpec("http", serve_http),
                ChildSpec("control", serve_control, is_last=True),
            ],
            grace=timedelta(seconds=30),
            drain_delay=timedelta(seconds=4),
        ).run()
    )
