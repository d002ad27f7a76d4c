"""Work that costs the same for one as for many, done by one waiting thread for all of them."""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

_Job = TypeVar("_Job")


class _Waiting(Generic[_Job]):
    """A job and the thread that waits for it: to be told that it is done, or that it must lead."""

    __slots__ = ("job", "leads", "wake")

    def __init__(self, job: _Job) -> None:
        self.job = job
        self.leads = False
        self.wake = threading.Lock()
        self.wake.acquire()


class Gathering(Generic[_Job]):
    """
    Gathers the jobs of threads that come while the work for earlier ones is being done.

    The first thread to come does its own job alone and at once. Those who come meanwhile wait; then
    one of them does the work for all that have come. ``work`` leaves its answer in each job and
    must not raise. ``patience`` is in seconds, ``limit`` is the most jobs that are done together.
    """

    def __init__(
        self, work: Callable[[Sequence[_Job]], None], *, patience: float, limit: int = 256
    ) -> None:
        self._work = work
        self._patience = patience
        self._limit = limit
        self._lock = threading.Lock()
        self._waiting: list[_Waiting[_Job]] = []
        self._has_leader = False

    def do(self, job: _Job) -> None:
        """
        Return once the job has been done.

        Raises ``TimeoutError`` when that takes too long: then it may yet be done, or not.
        """
        with self._lock:
            is_first = not self._has_leader
            if is_first:
                self._has_leader = True
            else:
                mine = _Waiting(job)
                self._waiting.append(mine)
        if is_first:
            self._lead([job], [])
            return
        if not mine.wake.acquire(timeout=self._patience):
            self._give_up(mine)
        if mine.leads:
            with self._lock:
                batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
            self._lead([waiting.job for waiting in batch], batch)

    def _give_up(self, mine: _Waiting[_Job]) -> None:
        """Leave, unless the lead has just been passed to this thread: others wait for it then."""
        with self._lock:
            if mine.leads:
                return
            if mine in self._waiting:
                self._waiting.remove(mine)
        raise TimeoutError

    def _lead(self, jobs: Sequence[_Job], batch: Sequence[_Waiting[_Job]]) -> None:
        """Do the jobs, which ``batch`` waits for, then let one of those who came meanwhile lead."""
        try:
            self._work(jobs)
        finally:
            with self._lock:
                self._has_leader = bool(self._waiting)
                if self._waiting:
                    self._waiting[0].leads = True
                    self._waiting[0].wake.release()
            for waiting in batch:
                if not waiting.leads:
                    waiting.wake.release()
