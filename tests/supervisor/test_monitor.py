"""What a worker's monitor does when, by a clock that the tests hold."""

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import NoReturn

import pytest

from broker.errors import Reason, TemporarilyUnavailable
from broker.lifeline import REPORT_LIMIT, Anchor, Lifeline, WorkerStatus
from broker.monitor import BEHIND, Check, Hooks, WorkerMonitor
from broker.orders import Order


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

    def reload(_order: Order) -> None:
        results.append("reload")

    hooks = Hooks(reload=reload, reloaded=results.append)
    monitor = WorkerMonitor(lifeline, [], hooks=hooks, clock=clock)
    monitor.step()
    assert results == []

    for _ in range(1000):
        anchor.order_reload(Order())
    run(monitor, clock, seconds=5)

    assert results == ["reload", "ok"]
    assert reports(lifeline)[-1].generation == 1000


@pytest.mark.requirement("R-27")
def test_an_order_that_arrives_during_a_reload_is_carried_out_too(
    anchor: Anchor, lifeline: Lifeline, clock: Clock
) -> None:
    generations: list[int] = []

    def reload(order: Order) -> None:
        generations.append(order.generation)
        if len(generations) == 1:
            anchor.order_reload(Order())

    monitor = WorkerMonitor(lifeline, [], hooks=Hooks(reload=reload), clock=clock)

    anchor.order_reload(Order())
    run(monitor, clock, seconds=1)

    assert generations == [1, 2]


@pytest.mark.requirement("R-28")
def test_a_refusal_is_told_to_the_worker_once(
    anchor: Anchor, lifeline: Lifeline, clock: Clock
) -> None:
    results: list[str] = []

    def reload(order: Order) -> None:
        results.append(f"{order.in_force.decode()}: {order.problem}")

    hooks = Hooks(reload=reload, reloaded=results.append)
    monitor = WorkerMonitor(lifeline, [], hooks=hooks, clock=clock)

    anchor.order_reload(Order(b"last good", "policies/a.cedar:3: unexpected token"))
    run(monitor, clock, seconds=10)

    assert results == ["last good: policies/a.cedar:3: unexpected token", "failed"]


class Straggler:
    """A worker that cannot take what is in force until it is let."""

    def __init__(self) -> None:
        self.is_able = False
        self.tries = 0
        self.left = 0
        self.results: list[str] = []

    def reload(self, _order: Order) -> None:
        self.tries += 1
        if not self.is_able:
            raise MemoryError

    def leave(self) -> None:
        self.left += 1

    @property
    def hooks(self) -> Hooks:
        return Hooks(reload=self.reload, leave=self.leave, reloaded=self.results.append)


@pytest.mark.requirement("R-27")
def test_a_worker_that_is_behind_tries_again_and_catches_up(
    anchor: Anchor, lifeline: Lifeline, clock: Clock
) -> None:
    straggler = Straggler()
    monitor = WorkerMonitor(lifeline, [], hooks=straggler.hooks, clock=clock)
    anchor.order_reload(Order())
    run(monitor, clock, seconds=0.7)
    assert straggler.tries > 1
    assert straggler.results == []

    straggler.is_able = True
    run(monitor, clock, seconds=10)

    assert straggler.results == ["ok"]
    assert straggler.left == 0
    assert reports(lifeline)[-1].generation == 1


@pytest.mark.requirement("R-27")
def test_a_worker_that_stays_behind_leaves_once(
    anchor: Anchor, lifeline: Lifeline, clock: Clock
) -> None:
    """Its successor begins with what is in force; it would go on serving what was withdrawn."""
    straggler = Straggler()
    monitor = WorkerMonitor(lifeline, [], hooks=straggler.hooks, clock=clock)

    anchor.order_reload(Order())
    run(monitor, clock, seconds=1.5)
    assert straggler.left == 1

    anchor.order_reload(Order())
    run(monitor, clock, seconds=10)
    assert straggler.left == 1
    assert straggler.results == []
    assert {report.generation for report in reports(lifeline)} == {0}


@pytest.mark.requirement("R-27")
def test_a_worker_that_is_behind_before_it_serves_does_not_serve(
    anchor: Anchor, lifeline: Lifeline
) -> None:
    anchor.order_reload(Order())

    with pytest.raises(SystemExit) as ended:
        WorkerMonitor(lifeline, [], hooks=Straggler().hooks).start()

    assert ended.value.code == BEHIND


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
    def fail(*_: object) -> NoReturn:
        raise RuntimeError

    hooks = Hooks(reload=fail, leave=fail, reloaded=fail, drain=fail, beat=fail)
    monitor = WorkerMonitor(lifeline, [], hooks=hooks, clock=clock)
    anchor.order_reload(Order())
    anchor.drain()

    run(monitor, clock, seconds=3)

    assert len(reports(lifeline)) == 3


def test_everything_due_is_done_before_the_worker_serves(
    anchor: Anchor, lifeline: Lifeline
) -> None:
    done: list[str] = []

    def reload(_order: Order) -> None:
        done.append("reload")

    anchor.order_reload(Order())
    monitor = WorkerMonitor(
        lifeline,
        [Check("audit", lambda: done.append("check"))],
        hooks=Hooks(reload=reload),
    )

    monitor.start()
    seen = done[:2]
    monitor.stop()

    assert seen == ["reload", "check"]
    assert reports(lifeline)[0].pid == os.getpid()


def test_a_report_says_when_a_check_will_be_well_by_itself(
    lifeline: Lifeline, clock: Clock
) -> None:
    state = Dependency()
    state.failure = TemporarilyUnavailable(Reason.REPLAY_STORE_UNAVAILABLE)
    monitor = WorkerMonitor(lifeline, [Check("state", state.check)], clock=clock)
    run(monitor, clock, seconds=1)
    # It was away at first, for the same reason, and nobody knew for how long.
    state.failure = TemporarilyUnavailable(Reason.REPLAY_STORE_UNAVAILABLE, well_in=30)
    run(monitor, clock, seconds=6)

    first, *_, last = (report.checks[0] for report in reports(lifeline))

    assert first.well_at is None
    assert last.well_at is not None
    assert 30 <= last.well_at - first.since < 40
    assert last.since == first.since
