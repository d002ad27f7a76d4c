"""Threads that come while work is being done have theirs done together."""

import threading
from collections.abc import Sequence
from typing import cast

import pytest

from broker.state.gathering import Gathering, _Waiting
from tests.e2e.patience import until


class Work:
    """Work that a test can hold up; it tells which jobs were done together."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = threading.Semaphore(0)
        self.allowed = threading.Semaphore(0)

    def __call__(self, jobs: Sequence[int]) -> None:
        self.begun.release()
        assert self.allowed.acquire(timeout=60)
        self.batches.append(list(jobs))


def in_thread(gathering: Gathering[int], job: int) -> threading.Thread:
    thread = threading.Thread(target=gathering.do, args=(job,))
    thread.start()
    return thread


def wait_until_waiting(gathering: Gathering[int], count: int) -> None:
    """Return once that many threads wait; the work is held up, so they cannot leave."""
    until(lambda: len(gathering._waiting) >= count, seconds=60, what=f"{count} wait")


def test_one_caller_alone_is_served_at_once() -> None:
    work = Work()
    work.allowed.release()

    Gathering(work, patience=60).do(1)

    assert work.batches == [[1]]


def test_those_who_come_meanwhile_are_served_together() -> None:
    work = Work()
    gathering = Gathering(work, patience=60)
    threads = [in_thread(gathering, 0)]
    work.begun.acquire()
    for job in (1, 2, 3):
        threads.append(in_thread(gathering, job))
        wait_until_waiting(gathering, job)

    work.allowed.release(2)
    for thread in threads:
        thread.join()

    assert work.batches == [[0], [1, 2, 3]]


def test_no_more_than_the_limit_are_served_together() -> None:
    work = Work()
    gathering = Gathering(work, patience=60, limit=2)
    threads = [in_thread(gathering, 0)]
    work.begun.acquire()
    for job in (1, 2, 3):
        threads.append(in_thread(gathering, job))
        wait_until_waiting(gathering, job)

    work.allowed.release(3)
    for thread in threads:
        thread.join()

    assert work.batches == [[0], [1, 2], [3]]


def test_who_waits_too_long_leaves_and_is_not_served() -> None:
    work = Work()
    gathering = Gathering(work, patience=0.01)
    first = in_thread(gathering, 0)
    work.begun.acquire()

    with pytest.raises(TimeoutError):
        gathering.do(1)

    work.allowed.release(2)
    first.join()
    gathering.do(2)
    assert work.batches == [[0], [2]]


class Impatient(_Waiting[int]):
    """A job whose thread has no patience left from the moment ``is_over`` on."""

    is_over = threading.Event()

    def __init__(self, job: int) -> None:
        super().__init__(job)
        self.wake = cast("threading.Lock", self)

    def acquire(self, timeout: float) -> bool:
        assert timeout == 60
        assert self.is_over.wait(timeout)
        return False

    def release(self) -> None:
        """Wake nobody."""


def test_who_is_being_served_while_patience_ends_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = Work()
    gathering = Gathering(work, patience=60)
    failures: list[type[Exception]] = []

    def impatient() -> None:
        try:
            gathering.do(2)
        except TimeoutError:
            failures.append(TimeoutError)

    leader = in_thread(gathering, 0)
    work.begun.acquire()
    second = in_thread(gathering, 1)
    wait_until_waiting(gathering, 1)
    monkeypatch.setattr("broker.state.gathering._Waiting", Impatient)
    third = threading.Thread(target=impatient)
    third.start()
    wait_until_waiting(gathering, 2)
    work.allowed.release()
    work.begun.acquire()
    Impatient.is_over.set()
    third.join()
    work.allowed.release()
    leader.join()
    second.join()

    assert failures == [TimeoutError]
    assert work.batches == [[0], [1, 2]]


def test_work_that_raises_does_not_leave_the_others_without_a_leader() -> None:
    done: list[int] = []

    def work(jobs: Sequence[int]) -> None:
        if 0 in jobs:
            raise MemoryError
        done.extend(jobs)

    gathering = Gathering(work, patience=60)

    with pytest.raises(MemoryError):
        gathering.do(0)
    gathering.do(1)

    assert done == [1]


def test_every_job_of_many_threads_is_done_exactly_once() -> None:
    done: list[int] = []
    gathering: Gathering[int] = Gathering(done.extend, patience=60)

    def worker(offset: int) -> None:
        for number in range(200):
            gathering.do(offset * 200 + number)

    threads = [threading.Thread(target=worker, args=(offset,)) for offset in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(done) == list(range(16 * 200))
