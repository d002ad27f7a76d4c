"""Whether the broker can do its work: what its workers say, and what its own ports answer."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from broker.errors import Reason
from broker.lifeline import WorkerStatus

FRESH = 5.0
"""Seconds after which a worker that said nothing more counts as silent."""

PROBE_DEADLINE = 1.0
# A good answer holds for a second; a bad one is doubted sooner, so that a start is noticed at once.
_ANSWERS_HOLD = 1.0
_FAILURES_HOLD = 0.1

_REASONS = frozenset(reason.code for reason in Reason)


class Unready(StrEnum):
    """Why something is not ready, beyond the reasons that workers give themselves."""

    DRAINING = "draining"
    SILENT = "silent"
    UNREACHABLE = "unreachable"
    DEADLINE = "deadline_exceeded"
    NOT_SERVING = "not_serving"
    WRONG_ANSWER = "wrong_answer"


class ProbeFailed(Exception):
    """A port did not answer as a working face does."""

    def __init__(self, why: Unready) -> None:
        super().__init__(why)
        self.why = why


Probe = Callable[[], Awaitable[None]]
"""Asks a face on its port; raises ``ProbeFailed`` unless it answered as it should."""


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One line of the answer. ``failure`` comes from a closed list and is empty when all is well.

    ``seconds`` is for how long it has failed, where that is known, and ``well_in`` in how many it will
    be well by itself. ``worker`` is the worker that said so, and is empty for what was found here.
    """

    name: str
    failure: str = ""
    seconds: int | None = None
    worker: str = ""
    well_in: int | None = None

    def __str__(self) -> str:
        if not self.failure:
            return f"[+]{self.name} ok"
        age = "" if self.seconds is None else f"for {self.seconds} s"
        rest = "" if self.well_in is None else f", well by itself in {self.well_in} s"
        times = f" ({age}{rest})" if age else ""
        return f"[-]{self.name} failed: {self.failure}{times}"

    @property
    def check(self) -> tuple[str, str]:
        """The worker, and what it looked at."""
        return self.worker, self.name.removeprefix(f"{self.worker}/")


class Readiness:
    """
    Ready means: not draining, every expected worker spoke within ``FRESH`` seconds and all its
    checks are well, and every probe got its answer.

    It is lived in by one event loop. ``clock`` is monotonic, in seconds, and that of the workers.
    """

    def __init__(
        self,
        workers: Collection[str],
        *,
        is_draining: Callable[[], bool],
        probes: Mapping[str, Probe],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._latest: dict[str, WorkerStatus | None] = dict.fromkeys(workers)
        self._is_draining = is_draining
        self._probes = dict(probes)
        self._clock = clock
        self._probing = asyncio.Lock()
        self._probed: tuple[Finding, ...] = ()
        self._probed_until = float("-inf")

    def hear(self, report: bytes) -> None:
        """Take in a worker's report; anything else is dropped."""
        try:
            status = WorkerStatus.decode(report)
        except ValueError:
            return
        if status.worker not in self._latest or status.at > self._clock():
            return
        before = self._latest[status.worker]
        if before is None or before.at <= status.at:
            self._latest[status.worker] = status

    def workers_up(self) -> dict[str, bool]:
        """Which of the expected workers spoke lately."""
        return {name: self._fresh(name) is not None for name in self._latest}

    async def findings(self) -> list[Finding]:
        """Everything that readiness depends on, each with what is wrong with it, if anything."""
        if self._is_draining():
            # Whether the rest still works is of no interest to anybody any more.
            return [Finding("shutdown", Unready.DRAINING)]
        probed = await self._probe()
        found = [Finding("shutdown"), *self._said(), *probed]
        return found if not self._is_draining() else [Finding("shutdown", Unready.DRAINING)]

    def _fresh(self, worker: str) -> WorkerStatus | None:
        status = self._latest[worker]
        if status is None or self._clock() - status.at > FRESH:
            return None
        return status

    def _said(self) -> Iterator[Finding]:
        now = self._clock()
        for worker in self._latest:
            status = self._fresh(worker)
            yield Finding(worker, "" if status else Unready.SILENT)
            for check in status.checks if status else ():
                name = f"{worker}/{check.name}"
                if not check.reason:
                    yield Finding(name, worker=worker)
                    continue
                reason = check.reason if check.reason in _REASONS else Reason.INTERNAL_ERROR.code
                left = None if check.well_at is None else max(0, math.ceil(check.well_at - now))
                yield Finding(name, reason, max(0, int(now - check.since)), worker, left)

    async def _probe(self) -> tuple[Finding, ...]:
        # However often readiness is asked for, the ports are asked no more often than this.
        async with self._probing:
            if self._clock() >= self._probed_until:
                asked = (_ask(name, probe) for name, probe in self._probes.items())
                self._probed = tuple(await asyncio.gather(*asked))
                has_failed = any(finding.failure for finding in self._probed)
                hold = _FAILURES_HOLD if has_failed else _ANSWERS_HOLD
                self._probed_until = self._clock() + hold
            return self._probed


async def _ask(name: str, probe: Probe) -> Finding:
    try:
        async with asyncio.timeout(PROBE_DEADLINE):
            await probe()
    except ProbeFailed as failure:
        return Finding(name, failure.why)
    except TimeoutError:
        return Finding(name, Unready.DEADLINE)
    except Exception:  # noqa: BLE001 - Whatever else a probe meets, it was not the right answer.
        return Finding(name, Unready.WRONG_ANSWER)
    return Finding(name)
