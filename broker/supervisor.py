"""The parent of all processes: it forks them, restarts them, passes on orders and ends them in order."""

import contextlib
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import NoReturn

import structlog

from broker.lifeline import Anchor, Lifeline
from broker.orders import Order

_STOP = {signal.SIGTERM, signal.SIGINT}
_OURS = {*_STOP, signal.SIGHUP, signal.SIGCHLD}

_log = structlog.get_logger("broker.supervisor")


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """
    A process to keep running. ``run`` is called in it, and builds all it needs there.

    ``run`` returns once ``lifeline.wait`` tells that the process is asked to stop, and after what
    it had accepted is answered; returning earlier counts as a failure. ``is_last`` marks the
    process that answers for the others' readiness: it is stopped when they are gone.
    """

    name: str
    run: Callable[[Lifeline], None]
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class RestartLimits:
    """
    How a dead child is brought back.

    The pause before a restart doubles from ``first_pause`` to ``longest_pause`` with every life
    shorter than ``steady``. A child that fails ``failures_at_start`` times without ever having
    been steady will not heal by trying, so the supervisor gives up; one that was is tried for ever.
    """

    first_pause: timedelta = timedelta(milliseconds=100)
    longest_pause: timedelta = timedelta(seconds=5)
    steady: timedelta = timedelta(seconds=10)
    failures_at_start: int = 5


@dataclass(slots=True)
class _Child:
    """A process that should run: ``pid`` is 0 while it does not, ``due`` when to start it then."""

    spec: ChildSpec
    pid: int = 0
    started: float = 0.0
    due: float = 0.0
    failures: int = 0
    was_steady: bool = False
    last_end: str = ""


class Supervisor:
    """
    Keeps children running until told to stop, as an ordinary process or as the first of a container.

    SIGTERM or SIGINT: readiness goes down at once, ``drain_delay`` before anything stops, so that
    load balancers look elsewhere; then the children are asked to stop, and what has not ended
    within ``grace`` is killed. A supervisor that dies itself, however, takes its children along
    (``Lifeline``).

    SIGHUP: ``reload`` is called here, before anywhere else, and keeps what it accepted where the
    children to come will find it; the children that there are get its answer as an order. So a child
    that is restarted begins with what was accepted last, whatever the files say by then. ``reload``
    starts no thread and does not raise.

    Children come from a plain fork, not from ``multiprocessing``: they inherit what is loaded and
    share its memory, nothing needs pickling, and one loop reaps them together with the orphans
    that a first process inherits, which ``multiprocessing`` would lose track of. A fork copies
    only the calling thread, so nothing loaded before may have started one; gRPC above all.
    """

    def __init__(
        self,
        children: Sequence[ChildSpec],
        *,
        grace: timedelta,
        reload: Callable[[], Order] = Order,
        drain_delay: timedelta = timedelta(0),
        limits: RestartLimits = RestartLimits(),
    ) -> None:
        self._children = [_Child(spec) for spec in children]
        self._grace = grace.total_seconds()
        self._reload = reload
        self._drain_delay = drain_delay.total_seconds()
        self._limits = limits
        self._anchor = Anchor()
        self._wake = os.pipe()
        self._pid = 0
        self._is_reload_wanted = False
        self._is_stopping = False
        self._is_impatient = False

    def run(self) -> int:
        """
        Run all children until told to stop; returns the exit status of the broker.

        It is 0 after an ordered stop, and 1 when a child could not be brought up. Called once, in
        the main thread, with no other thread about.
        """
        self._pid = os.getpid()
        try:
            if threading.active_count() > 1:
                raise RuntimeError("The supervisor forks, so it must run before any thread starts.")
            with self._signals():
                return self._supervise()
        finally:
            self._kill(self._running())
            self._anchor.close()
            for descriptor in self._wake:
                os.close(descriptor)

    def _supervise(self) -> int:
        while not self._is_stopping:
            self._reload_if_wanted()
            self._start_due()
            self._sleep(self._until_next_start())
            self._reap()
            hopeless = next(filter(self._is_hopeless, self._children), None)
            if hopeless is not None and not self._is_stopping:
                self._give_up(hopeless)
                return 1
        self._stop(self._drain_delay)
        return 0

    # Signals only take notes and end the sleep; all work is done in the loop above.

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        for descriptor in self._wake:
            os.set_blocking(descriptor, False)
        before = {one: signal.signal(one, self._note) for one in _OURS}
        wakeup = signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for one, handler in before.items():
                signal.signal(one, handler)

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        if signum in _STOP:
            # Only a person presses Ctrl-C twice.
            self._is_impatient |= self._is_stopping and signum == signal.SIGINT
            self._is_stopping = True
        elif signum == signal.SIGHUP:
            self._is_reload_wanted = True

    def _reload_if_wanted(self) -> None:
        # A signal that comes meanwhile asks for another reload.
        if self._is_reload_wanted:
            self._is_reload_wanted = False
            self._anchor.order_reload(self._reload())

    def _sleep(self, timeout: float | None) -> None:
        select.select([self._wake[0]], [], [], timeout)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake[0], 4096)

    # Starting.

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if not child.pid and child.due <= now:
                self._start(child)

    def _until_next_start(self) -> float | None:
        due = [child.due for child in self._children if not child.pid]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _start(self, child: _Child) -> None:
        lifeline = self._anchor.lifeline(child.spec.name)
        _flush()
        # A signal that came between the fork and the child's own handlers would be lost on it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)
        try:
            child.pid = os.fork()
            if child.pid == 0:
                self._be(child.spec, lifeline, mask)
            # Both sides do this, so that the group exists whoever comes first.
            with contextlib.suppress(OSError):
                os.setpgid(child.pid, child.pid)
        except OSError as failure:
            # Out of processes or memory; that may pass.
            child.due = time.monotonic() + self._limits.longest_pause.total_seconds()
            _log.error("fork_failed", worker=child.spec.name, error=failure.strerror)
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        child.started = time.monotonic()
        _log.info("worker_started", worker=child.spec.name, pid=child.pid)

    def _be(self, spec: ChildSpec, lifeline: Lifeline, mask: Iterable[int]) -> NoReturn:
        """Live the child's life; nothing of the supervisor's survives in it."""
        status = 1
        try:
            # A group of its own: a terminal's Ctrl-C reaches the supervisor alone, which keeps the
            # order, and whatever the child forks can be ended together with it.
            os.setpgid(0, 0)
            self._forget_signals()
            self._anchor.let_go()
            lifeline.tie(self._pid)
            # Ties only pass through a fork, so a server that starts workers must fork them too.
            multiprocessing.set_start_method("fork", force=True)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            spec.run(lifeline)
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:  # noqa: BLE001 - Nothing may unwind into the supervisor's code.
            _log.exception("worker_failed", worker=spec.name)
        finally:
            # Exit handlers and buffers that were inherited belong to the supervisor.
            _flush()
            os._exit(status)

    def _forget_signals(self) -> None:
        signal.set_wakeup_fd(-1)
        for descriptor in self._wake:
            os.close(descriptor)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for one in (signal.SIGINT, signal.SIGHUP):
            signal.signal(one, signal.SIG_IGN)

    # Ending.

    def _reap(self) -> None:
        """Take note of every process that ended, adopted ones included."""
        by_pid = {child.pid: child for child in self._children if child.pid}
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if child := by_pid.get(ended[0]):
                    self._note_end(child, ended[1])

    def _note_end(self, child: _Child, status: int) -> None:
        # What the child forked must not serve on beside its successor.
        _signal_group(child.pid, signal.SIGKILL)
        now = time.monotonic()
        child.pid = 0
        child.last_end = _describe(status)
        if now - child.started >= self._limits.steady.total_seconds():
            child.was_steady = True
            child.failures = 0
        child.failures += 1
        pause = min(
            self._limits.first_pause.total_seconds() * 2 ** min(child.failures - 1, 16),
            self._limits.longest_pause.total_seconds(),
        )
        child.due = now + pause
        if self._is_stopping:
            _log.info("worker_stopped", worker=child.spec.name, end=child.last_end)
        else:
            _log.error(
                "worker_died",
                worker=child.spec.name,
                end=child.last_end,
                restart_in=round(pause, 3),
            )

    def _is_hopeless(self, child: _Child) -> bool:
        return not child.was_steady and child.failures >= self._limits.failures_at_start

    def _give_up(self, child: _Child) -> None:
        self._is_stopping = True
        self._stop(drain_delay=0)
        _log.critical(
            "giving_up",
            reason=f"The {child.spec.name} process failed {child.failures} times in a row at start.",
            end=child.last_end,
        )

    def _stop(self, drain_delay: float) -> None:
        # What was taken away is also refused to those who are served while the broker stops.
        self._reload_if_wanted()
        self._anchor.drain()
        _log.info("stopping", drain_delay=drain_delay, grace=self._grace)
        self._wait_for(until=time.monotonic() + drain_delay, is_over=lambda: False)
        end = time.monotonic() + self._grace
        first = [child for child in self._running() if not child.spec.is_last]
        self._stop_all(first, until=end - min(1.0, self._grace / 5))
        self._stop_all(self._running(), until=end)
        _log.info("stopped")

    def _stop_all(self, children: Sequence[_Child], *, until: float) -> None:
        for child in children:
            os.kill(child.pid, signal.SIGTERM)
        self._wait_for(until=until, is_over=lambda: not any(child.pid for child in children))
        self._kill([child for child in children if child.pid])

    def _wait_for(self, *, until: float, is_over: Callable[[], bool]) -> None:
        self._reap()
        while not is_over() and not self._is_impatient and (left := until - time.monotonic()) > 0:
            self._sleep(left)
            self._reload_if_wanted()
            self._reap()

    def _kill(self, children: Sequence[_Child]) -> None:
        for child in children:
            _log.warning("worker_killed", worker=child.spec.name, pid=child.pid)
            _signal_group(child.pid, signal.SIGKILL)
        # Even a killed process can be held up by a device; the broker's end does not wait for it.
        until = time.monotonic() + 1
        while any(child.pid for child in children) and time.monotonic() < until:
            self._sleep(0.1)
            self._reap()

    def _running(self) -> list[_Child]:
        return [child for child in self._children if child.pid]


def _signal_group(pid: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


def _describe(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    # A signal without a name of its own is told by its number.
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
