"""What a worker's monitor does when, by a clock that the tests hold."""

import os
from collections.abc import Iterator
from datetime import timedelta

import pytest

from broker.errors import Reason, TemporarilyUnavailable
from broker.lifeline import REPORT_LIMIT, Anchor, Lifeline, WorkerStatus
from broker.monitor import Check, Hooks, WorkerMonitor


class Clock:
    """A monotonic clock that moves only when it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Dependency:
    """Something to check, that counts how often it was asked."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.asked = 0

    def check(self) -> None:
        self.asked += 1
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def anchor() -> Iterator[Anchor]:
    anchor = Anchor()
    yield anchor
    anchor.close()


@pytest.fixture
def lifeline(anchor: Anchor) -> Lifeline:
    return anchor.lifeline("grpc")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def reports(lifeline: Lifeline) -> list[WorkerStatus]:
    found = []
    while True:
        try:
            found.append(WorkerStatus.decode(lifeline.inbox.recv(REPORT_LIMIT)))
        except BlockingIOError:
            return found


def run(monitor: WorkerMonitor, clock: Clock, *, seconds: float) -> None:
    """Let the monitor's thread tick for so long, without the thread."""
    end = clock.now + seconds
    while clock.now < end:
        clock.now += 0.2
        monitor.step()


def test_it_reports_every_second_what_its_checks_say(lifeline: Lifeline, clock: Clock) -> None:
    monitor = WorkerMonitor(lifeline, [Check("audit", Dependency().check)], clock=clock)

    run(monitor, clock, seconds=5)

    assert len(reports(lifeline)) == 5


def test_a_change_is_reported_at_once_and_says_since_when(lifeline: Lifeline, clock: Clock) -> None:
    audit = Dependency()
    monitor = WorkerMonitor(
        lifeline, [Check("audit", audit.check, every=timedelta(milliseconds=200))], clock=clock
    )
    run(monitor, clock, seconds=3)
    reports(lifeline)

    audit.failure = TemporarilyUnavailable(Reason.AUDIT_UNAVAILABLE, detail="/var/lib/x: No space")
    run(monitor, clock, seconds=0.2)

    (report,) = reports(lifeline)
    assert report.checks[0].reason == "audit_unavailable"
    assert report.checks[0].since == clock.now
    run(monitor, clock, seconds=4)
    assert reports(lifeline)[-1].checks[0].since == report.checks[0].since


def test_an_unforeseen_failure_tells_no_more_than_that(lifeline: Lifeline, clock: Clock) -> None:
    state = Dependency()
    state.failure = ValueError("hvs.CANARYcanary0123456789abcdefghijklmnop")
    monitor = WorkerMonitor(lifeline, [Check("state", state.check)], clock=clock)

    monitor.step()

    assert reports(lifeline)[0].checks[0].reason == "internal_error"


def test_a_dependency_in_trouble_is_not_pressed_harder(lifeline: Lifeline, clock: Clock) -> None:
    """The pauses between canary signatures double, but recovery is still seen within five seconds."""
    keys = Dependency()
    check = Check("keys", keys.check, every=timedelta(seconds=2))
    monitor = WorkerMonitor(lifeline, [check], clock=clock)
    run(monitor, clock, seconds=60)
    assert 29 <= keys.asked <= 31

    keys.failure = TemporarilyUnavailable(Reason.SIGNER_UNAVAILABLE)
    keys.asked = 0
    run(monitor, clock, seconds=60)
    assert 14 <= keys.asked <= 16
    reports(lifeline)

    keys.failure = None
    run(monitor, clock, seconds=4.2)
    assert reports(lifeline)[-1].checks[0].reason == ""


def test_checks_run_at_their_own_pace(lifeline: Lifeline, clock: Clock) -> None:
    audit, keys = Dependency(), Dependency()
    checks = [Check("audit", audit.check), Check("keys", keys.check, every=timedelta(seconds=2))]
    monitor = WorkerMonitor(lifeline, checks, clock=clock)

    run(monitor, clock, seconds=10)

    assert 9 <= audit.asked <= 11
    assert 4 <= keys.asked <= 6


@pytest.mark.requirement("R-27")
def test_many_orders_make_one_reload_and_the_newest_counts(
    anchor: Anchor, lifeline: Lifeline, clock: Clock
) -> None:
    results: list[str] = []
    hooks = Hooks(reload=lambda: results.append("reload"), reloaded=results.append)
    monitor = WorkerMonitor(lifeline, [], hooks=hooks, clock=clock)
    monitor.step()
    assert results == []

    for _ in range(1000):
        anchor.order_reload()
    run(monitor, clock, seconds=5)

    assert results == ["reload", "ok"]
    assert reports(lifeline)[-1].generation == 1000


@pytest.mark.requirement("R-27")
def test_an_order_that_arrives_during_a_reload_is_carried_out_too(
    anchor: Anchor, lifeline: Lifeline, clock: Clock
) -> None:
    generations: list[int] = []

    def reload() -> None:
        generations.append(lifeline.generation)
        if len(generations) == 1:
            anchor.order_reload()

    monitor = WorkerMonitor(lifeline, [], hooks=Hooks(reload=reload), clock=clock)

    anchor.order_reload()
    run(monitor, clock, seconds=1)

    assert generations == [1, 2]


@pytest.mark.requirement("R-28")
def test_a_reload_that_fails_is_told_and_not_tried_over_and_over(
    anchor: Anchor, lifeline: Lifeline, clock: Clock
) -> None:
    results: list[str] = []

    def fail() -> None:
        results.append("tried")
        raise ValueError("policies/a.cedar:3: unexpected token")

    monitor = WorkerMonitor(
        lifeline, [], hooks=Hooks(reload=fail, reloaded=results.append), clock=clock
    )

    anchor.order_reload()
    run(monitor, clock, seconds=10)
    assert results == ["tried", "failed"]

    anchor.order_reload()
    run(monitor, clock, seconds=1)
    assert results == ["tried", "failed"] * 2


def test_the_order_to_drain_is_passed_on_once(
    anchor: Anchor, lifeline: Lifeline, clock: Clock
) -> None:
    drained: list[bool] = []
    monitor = WorkerMonitor(
        lifeline, [], hooks=Hooks(drain=lambda: drained.append(True)), clock=clock
    )
    run(monitor, clock, seconds=1)
    assert drained == []

    anchor.drain()
    run(monitor, clock, seconds=5)

    assert drained == [True]


def test_a_hook_that_fails_does_not_silence_the_worker(
    anchor: Anchor, lifeline: Lifeline, clock: Clock
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    hooks = Hooks(reload=fail, reloaded=fail, drain=fail, beat=fail)
    monitor = WorkerMonitor(lifeline, [], hooks=hooks, clock=clock)
    anchor.order_reload()
    anchor.drain()

    run(monitor, clock, seconds=3)

    assert len(reports(lifeline)) == 3


def test_everything_due_is_done_before_the_worker_serves(
    anchor: Anchor, lifeline: Lifeline
) -> None:
    done: list[str] = []
    anchor.order_reload()
    monitor = WorkerMonitor(
        lifeline,
        [Check("audit", lambda: done.append("check"))],
        hooks=Hooks(reload=lambda: done.append("reload")),
    )

    monitor.start()
    seen = done[:2]
    monitor.stop()

    assert seen == ["reload", "check"]
    assert reports(lifeline)[0].pid == os.getpid()
