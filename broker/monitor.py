"""The thread in a worker that carries out reload orders, checks the worker's health and reports it."""

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from broker.errors import OAuthError, Reason, TemporarilyUnavailable, TokenRejected
from broker.lifeline import ORPHANED, CheckStatus, Lifeline, WorkerStatus
from broker.orders import Order

BEHIND = 72
"""The exit status of a worker that could not take what is in force before it was to serve."""

_TICK = 0.2
_REPORT_EVERY = 1.0
# A worker that is restarted begins with what is in force, so it is not waited for any longer.
_LONGEST_BEHIND = 1.0

_log = structlog.get_logger("broker.monitor")


@dataclass(frozen=True, slots=True)
class Check:
    """
    One thing that must be well for a worker to be ready. ``run`` raises when it is not.

    It runs ``every`` so often. While it fails the pauses double up to ``longest``, so that a
    dependency in trouble is not pressed harder by being asked how it is; ``longest`` stays under
    five seconds, so that recovery is noticed in time. ``run`` keeps a deadline of its own: while
    it blocks the worker does not report, and after five seconds it counts as not ready.
    """

    name: str
    run: Callable[[], None]
    every: timedelta = timedelta(seconds=1)
    longest: timedelta = timedelta(seconds=4)


@dataclass(slots=True)
class _Watch:
    check: Check
    due: float
    pause: float
    status: CheckStatus | None = None


def _nothing() -> None:
    return


def _ignore(_result: str) -> None:
    return


def _has_nothing_to_load(_order: Order) -> None:
    return


@dataclass(frozen=True, slots=True)
class Hooks:
    """
    What a worker does when told.

    ``reload`` takes what the order says is in force. If it raises, it is called again at every look,
    and after a second ``leave`` is, once, which ends the worker in order.
    ``reloaded`` is told ``ok``, or ``failed`` where the files were refused. ``drain`` is called once,
    when the broker is about to stop. ``beat`` is called before every report, for measures that change
    by themselves.
    """

    reload: Callable[[Order], None] = _has_nothing_to_load
    leave: Callable[[], None] = _nothing
    reloaded: Callable[[str], None] = _ignore
    drain: Callable[[], None] = _nothing
    beat: Callable[[], None] = _nothing


class WorkerMonitor:
    """
    Looks for orders every 200 ms, runs the checks that are due, and reports every second.

    A check whose answer changes is reported at once. ``clock`` is monotonic, in seconds.
    """

    def __init__(
        self,
        lifeline: Lifeline,
        checks: Sequence[Check],
        *,
        hooks: Hooks = Hooks(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lifeline = lifeline
        self._hooks = hooks
        self._clock = clock
        self._watches = [_Watch(check, 0.0, check.every.total_seconds()) for check in checks]
        # A worker starts from what the supervisor had accepted when it forked it.
        self._generation = lifeline.first
        self._behind_since: float | None = None
        self._has_left = False
        self._is_drained = False
        self._report_due = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def start(self) -> None:
        """
        Carry out what was ordered so far, check and report once, then go on in a thread.

        Called in the main thread of the process that serves, before it takes requests: a worker
        that starts after a reload then never answers from what was before. Raises ``SystemExit``
        when it cannot take what is in force.
        """
        self._lifeline.share_fate()
        self.step()
        if self._behind_since is not None:
            sys.exit(BEHIND)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; it is waited for no longer than a check may take."""
        self._stopped.set()
        self._thread.join(timeout=5)

    def step(self) -> None:
        """Do what is due now."""
        self._obey()
        now = self._clock()
        has_changed = False
        for watch in self._watches:
            if now >= watch.due:
                has_changed |= self._look(watch)
        now = self._clock()
        if has_changed or now >= self._report_due:
            self._report_due = now + _REPORT_EVERY
            self._guard("beat", self._hooks.beat)
            self._lifeline.report(self._status(now))

    def _run(self) -> None:
        while not self._stopped.wait(_TICK):
            if self._lifeline.is_orphaned:
                os._exit(ORPHANED)
            self.step()

    def _obey(self) -> None:
        if self._lifeline.generation != self._generation:
            order = self._lifeline.order
            if order is not None:
                self._carry_out(order)
        if self._lifeline.draining and not self._is_drained:
            self._is_drained = True
            self._guard("drain", self._hooks.drain)

    def _carry_out(self, order: Order) -> None:
        if self._guard("reload", lambda: self._hooks.reload(order)):
            self._generation = order.generation
            self._behind_since = None
            result = "failed" if order.problem else "ok"
            self._guard("reloaded", lambda: self._hooks.reloaded(result))
            return
        now = self._clock()
        if self._behind_since is None:
            self._behind_since = now
            _log.warning("configuration_behind", worker=self._lifeline.name)
        if now - self._behind_since >= _LONGEST_BEHIND and not self._has_left:
            self._has_left = True
            self._guard("leave", self._hooks.leave)

    def _guard(self, hook: str, call: Callable[[], None]) -> bool:
        # A monitor that died of a hook would take the worker's reports with it.
        try:
            call()
        except Exception:  # noqa: BLE001 - Whatever a hook raises ends in the log.
            _log.exception("hook_failed", worker=self._lifeline.name, hook=hook)
            return False
        return True

    def _look(self, watch: _Watch) -> bool:
        """Run a check and set when it is due again; tell whether its answer changed."""
        failure = _failure(watch.check.run)
        reason = "" if failure is None else _code(failure)
        now = self._clock()
        every = watch.check.every.total_seconds()
        watch.due = now + (watch.pause if reason else every)
        watch.pause = min(watch.pause * 2, watch.check.longest.total_seconds()) if reason else every
        before = watch.status
        well_at = _well_at(failure, now)
        if before is not None and before.reason == reason:
            watch.status = replace(before, well_at=well_at)
            return False
        watch.status = CheckStatus(watch.check.name, reason, now, well_at)
        if failure is not None:
            self._log_failure(watch.check.name, failure)
        elif before is not None:
            _log.info("check_recovered", worker=self._lifeline.name, check=watch.check.name)
        return True

    def _log_failure(self, check: str, failure: Exception) -> None:
        facts = {"worker": self._lifeline.name, "check": check, "reason": _code(failure)}
        if isinstance(failure, OAuthError | TokenRejected):
            _log.warning("check_failed", **facts, detail=failure.detail)
        else:
            _log.error("check_failed", **facts, exc_info=failure)

    def _status(self, now: float) -> WorkerStatus:
        return WorkerStatus(
            worker=self._lifeline.name,
            pid=os.getpid(),
            at=now,
            generation=self._generation,
            checks=tuple(watch.status for watch in self._watches if watch.status is not None),
        )


def _failure(run: Callable[[], None]) -> Exception | None:
    try:
        run()
    except Exception as failure:  # noqa: BLE001 - Whatever a check raises, it has failed.
        return failure
    return None


def _well_at(failure: Exception | None, now: float) -> float | None:
    """When the check will pass by itself, if its failure says so."""
    if isinstance(failure, TemporarilyUnavailable) and failure.well_in is not None:
        return now + failure.well_in
    return None


def _code(failure: Exception) -> str:
    """Why a check failed, from the closed list of reasons."""
    if isinstance(failure, OAuthError | TokenRejected):
        return failure.reason.code
    return Reason.INTERNAL_ERROR.code
