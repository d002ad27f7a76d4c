"""Worker processes killed under load: at any moment, and at the worst."""

import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from typing import Final

from tests.e2e.load import Load
from tests.e2e.patience import until
from tests.e2e.running import RunningBroker

FACES: Final = ("grpc", "http")
BACK_SECONDS: Final = 90.0

_Process = Callable[[RunningBroker, str], int]


@dataclass
class Storm:
    """
    Kills workers of a broker that has ``workers`` of each face.

    In turn it strikes the process that answers, and for HTTP the one that watches over that. ``kills``
    counts them.
    """

    broker: RunningBroker
    load: Load
    workers: int
    kills: int = 0
    moments: random.Random = field(default_factory=lambda: random.Random(12))  # noqa: S311
    _turns: Iterator[tuple[str, int, _Process]] = field(init=False)

    def __post_init__(self) -> None:
        self._turns = cycle(_turns(self.workers))

    def strike_at_any_moment(self, *, within_calls: int = 20) -> None:
        """Kill the next in turn once a random number of calls was granted."""
        self.load.wait_for(self.moments.randrange(1, within_calls), seconds=BACK_SECONDS)
        face, number, process = next(self._turns)
        self._kill([self._found(f"{face}-{number}", process)])

    def strike_at_an_answer(self, face: str) -> None:
        """Kill whoever answers for a face, the moment that a caller has got an answer over it."""
        names = [f"{face}-{number}" for number in range(self.workers)]
        pids = [self._found(name, RunningBroker.serving_process) for name in names]
        self.load.at_next_answer(face, lambda: self._kill(pids))

    def _found(self, worker: str, process: _Process) -> int:
        return until(
            lambda: process(self.broker, worker), seconds=BACK_SECONDS, what=f"{worker} is back"
        )

    def _kill(self, pids: Sequence[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.kills += 1


def _turns(workers: int) -> Iterator[tuple[str, int, _Process]]:
    for process in (RunningBroker.serving_process, RunningBroker.worker_process):
        for number in range(workers):
            for face in FACES:
                yield face, number, process
