"""A supervisor with small children, started as a process of its own by the tests beside it."""

import ctypes
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from broker.lifeline import Lifeline
from broker.logs import configure_logs
from broker.monitor import Hooks, WorkerMonitor
from broker.orders import Order
from broker.supervisor import ChildSpec, RestartLimits, Supervisor

QUICK = RestartLimits(
    first_pause=timedelta(milliseconds=20),
    longest_pause=timedelta(milliseconds=80),
    # No life that is meant to be a short one lasts so long, on whatever machine.
    steady=timedelta(minutes=5),
    failures_at_start=4,
)
SOON_STEADY = replace(QUICK, steady=timedelta(milliseconds=300))
PR_SET_CHILD_SUBREAPER = 36
LOADED = ["at first"]


def load() -> Order:
    """As the broker does: what is good replaces what the next children begin with."""
    LOADED.append(f"load {len(LOADED)}")
    return Order(in_force=LOADED[-1].encode())


def tell(worker: str, event: str, **facts: object) -> None:
    """One short line is written at once, so lines of several processes never mix."""
    line = json.dumps({"worker": worker, "event": event, "pid": os.getpid(), **facts})
    os.write(1, line.encode() + b"\n")


def serve(lifeline: Lifeline) -> None:
    tell(lifeline.name, "up", group=os.getpgid(0))
    lifeline.wait()
    tell(lifeline.name, "asked", draining=lifeline.draining)


def wait_in_a_thread(lifeline: Lifeline) -> None:
    """As a server whose own loop keeps the main thread."""
    thread = threading.Thread(target=serve, args=(lifeline,))
    thread.start()
    thread.join()


def hang(lifeline: Lifeline) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tell(lifeline.name, "up")
    while True:
        signal.pause()


def serve_by_fork(lifeline: Lifeline) -> None:
    """As granian does: the process that was asked for only watches over one that it forks."""
    worker = multiprocessing.Process(target=be_forked, args=(lifeline,))
    worker.start()
    signal.signal(signal.SIGTERM, lambda *_: worker.terminate())
    worker.join()


def be_forked(lifeline: Lifeline) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    monitor = WorkerMonitor(lifeline, [])
    monitor.start()
    tell(lifeline.name, "up", parent=os.getppid())
    while True:
        signal.pause()


def crash(lifeline: Lifeline) -> None:
    tell(lifeline.name, "up")
    sys.exit(3)


def raise_secret(_lifeline: Lifeline) -> None:
    raise RuntimeError("hvs.CANARYcanary0123456789abcdefghijklmnop")


def crash_after_steady(lifeline: Lifeline) -> None:
    tell(lifeline.name, "up")
    marker = Path(sys.argv[2]) / "was-steady"
    if not marker.exists():
        marker.touch()
        time.sleep(SOON_STEADY.steady.total_seconds() * 1.5)
    sys.exit(4)


def leave_orphan(lifeline: Lifeline) -> None:
    """A process that nobody waits for falls to the supervisor when it is the first of a container."""
    middle = os.fork()
    if middle == 0:
        if os.fork() == 0:
            os.setsid()
            tell("orphan", "up")
            os.read(0, 1)
            os._exit(0)
        os._exit(0)
    os.waitpid(middle, 0)
    serve(lifeline)


def reload(lifeline: Lifeline) -> None:
    def carry_out(order: Order) -> None:
        in_force = order.in_force.decode()
        tell(lifeline.name, "reload", generation=order.generation, in_force=in_force)

    monitor = WorkerMonitor(
        lifeline,
        [],
        hooks=Hooks(reload=carry_out, drain=lambda: tell(lifeline.name, "drain")),
    )
    monitor.start()
    tell(lifeline.name, "starts", loaded=LOADED[-1], first=lifeline.first)
    serve(lifeline)
    monitor.stop()
    # Whatever was ordered since the last look is carried out now.
    monitor.step()
    tell(lifeline.name, "ended", generation=lifeline.generation)


def only_the_pipe(run: Callable[[Lifeline], None]) -> Callable[[Lifeline], None]:
    """As on a system where the kernel cannot be asked to end a process with its parent."""

    def run_without(lifeline: Lifeline) -> None:
        ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
        run(lifeline)

    return run_without


def control(run: Callable[[Lifeline], None] = serve) -> ChildSpec:
    return ChildSpec("control", run, is_last=True)


def supervisor(
    *children: ChildSpec, grace: float = 60, drain_delay: float = 0, limits: RestartLimits = QUICK
) -> Supervisor:
    return Supervisor(
        children,
        grace=timedelta(seconds=grace),
        reload=load,
        drain_delay=timedelta(seconds=drain_delay),
        limits=limits,
    )


SCENARIOS: dict[str, Callable[[], Supervisor]] = {
    "steady": lambda: supervisor(ChildSpec("grpc", serve), ChildSpec("http", serve), control()),
    "thread": lambda: supervisor(ChildSpec("grpc", wait_in_a_thread), control()),
    "drain": lambda: supervisor(ChildSpec("grpc", serve), control(), drain_delay=0.5),
    "drain for long": lambda: supervisor(
        ChildSpec("grpc", reload), control(reload), drain_delay=600
    ),
    "hang": lambda: supervisor(ChildSpec("grpc", hang), control(), grace=1),
    "all hang": lambda: supervisor(ChildSpec("grpc", hang), control(hang), grace=1),
    "hang for long": lambda: supervisor(ChildSpec("grpc", hang), control(), grace=600),
    "forking": lambda: supervisor(ChildSpec("http", serve_by_fork), control()),
    "pipe": lambda: supervisor(
        ChildSpec("grpc", only_the_pipe(reload)), control(only_the_pipe(serve))
    ),
    "crash": lambda: supervisor(ChildSpec("grpc", crash), control()),
    "return": lambda: supervisor(ChildSpec("grpc", lambda _: None), control()),
    "secret": lambda: supervisor(ChildSpec("grpc", raise_secret), control()),
    "steady first": lambda: supervisor(
        ChildSpec("grpc", crash_after_steady), control(), limits=SOON_STEADY
    ),
    "orphan": lambda: supervisor(ChildSpec("grpc", leave_orphan), control()),
    "reload": lambda: supervisor(
        ChildSpec("grpc", reload), ChildSpec("http", reload), control(reload)
    ),
}


if __name__ == "__main__":
    configure_logs()
    if sys.argv[1] == "orphan":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    sys.exit(SCENARIOS[sys.argv[1]]().run())
