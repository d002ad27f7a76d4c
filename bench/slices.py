"""Short slices of load, interleaved over everything that is compared, and what they come to."""

import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

from bench.floor import floor_microseconds, on_cores
from bench.generator import Job, Report, write_requests
from bench.progress import tell
from bench.requests import Stream
from bench.server import Server
from bench.setting import ROOT

_FIRST_GUESS: Final = 6000
"""How many requests in a second are prepared for a server that nobody has measured yet."""

_MOST_PREPARED: Final = 40_000


@dataclass(frozen=True, slots=True)
class Plan:
    """
    How a run goes: where it works, how long, and on which cores.

    ``server`` are the cores of what is measured, ``caller`` those of the load generator. With a larger
    share of wrong answers than ``most_wrong`` a turn counts for nothing, and the run ends.
    """

    folder: Path
    rounds: int
    seconds: float
    connections: int
    server: tuple[int, ...]
    caller: tuple[int, ...]
    is_quick: bool = False
    most_wrong: float = 0.001

    @property
    def floor_milliseconds(self) -> float:
        """How long the floor is measured, each time."""
        return 20.0 if self.is_quick else 120.0

    @property
    def every_core(self) -> tuple[int, ...]:
        """The cores of both."""
        return tuple(sorted({*self.server, *self.caller}))


@dataclass(frozen=True, slots=True)
class Lane:
    """
    Something that is compared: requests to a server.

    ``about`` are facts for the results, such as the name of its face. ``connections`` and ``cores``
    are those of the plan unless they are given.
    """

    name: str
    server: Server
    stream: Stream
    about: Mapping[str, Any]
    connections: int = 0
    cores: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Slice:
    """
    One lane's turn.

    ``cpu_us`` is the server's CPU time of a request, ``floor_us`` that of the cryptography on the same
    core right before and after, and ``ratio`` the one over the other.
    """

    calls: int
    wrong: int
    per_second: float
    p50_ms: float
    p99_ms: float
    caller_us: float
    cpu_us: float
    floor_us: float
    ratio: float
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, and the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """The spread of some values, to four digits."""
        ordered = sorted(values)
        return cls(
            *(_rounded(one) for one in (statistics.median(ordered), ordered[0], ordered[-1]))
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """How much more something was, turn by turn: the median of the differences, and their quartiles."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float], others: Sequence[float]) -> Self:
        """What the values have more than the others, which were measured in the same turns."""
        lower, median, upper = statistics.quantiles(
            [one - other for one, other in zip(values, others, strict=True)], method="inclusive"
        )
        return cls(_rounded(median), _rounded(lower), _rounded(upper))


_serial = itertools.count()


class Race:
    """
    Lanes that take turns, round by round, so that what else the machine does concerns all of them alike.

    The first turn of each warms up, tells how fast it is, and is not counted.
    """

    def __init__(self, plan: Plan, lanes: Sequence[Lane], *, warm_up: float = 1.0) -> None:
        self._plan = plan
        self._lanes = lanes
        self._capacity: dict[str, float] = {}
        for lane in lanes:
            tell(f"{lane.name}: warming up")
            slice_ = self._turn(lane, seconds=min(warm_up, plan.seconds * 2))
            self._capacity[lane.name] = slice_.per_second

    def at_capacity(self) -> dict[str, list[Slice]]:
        """Closed loop: as many requests as the connections carry."""
        found = self._rounds(self._lanes, {})
        for name, slices in found.items():
            self._capacity[name] = statistics.median(one.per_second for one in slices)
        return found

    def at_half(self, lanes: Sequence[Lane]) -> dict[str, list[Slice]]:
        """Some of the lanes in an open loop, at half of what each carried before."""
        return self._rounds(lanes, {lane.name: self._capacity[lane.name] / 2 for lane in lanes})

    def at_half_of_the_slowest(
        self, lanes: Sequence[Lane], *, often: int = 1
    ) -> dict[str, list[Slice]]:
        """
        Some of the lanes in an open loop, all at half of what the slowest of them carried before.

        They take ``often`` as many turns.
        """
        rate = min(self._capacity[lane.name] for lane in lanes) / 2
        return self._rounds(lanes, {lane.name: rate for lane in lanes}, often=often)

    def _rounds(
        self, lanes: Sequence[Lane], rates: Mapping[str, float], *, often: int = 1
    ) -> dict[str, list[Slice]]:
        found: dict[str, list[Slice]] = {lane.name: [] for lane in lanes}
        rounds = self._plan.rounds * often
        for number in range(rounds):
            for lane in lanes:
                tell(f"round {number + 1} of {rounds}: {lane.name}")
                rate = rates.get(lane.name, 0.0)
                found[lane.name].append(self._turn(lane, seconds=self._plan.seconds, rate=rate))
        return found

    def _turn(self, lane: Lane, *, seconds: float, rate: float = 0.0) -> Slice:
        requests = self._prepare(lane, seconds=seconds, rate=rate)
        with _Caller(self._job(lane, requests, seconds=seconds, rate=rate)) as caller:
            before = _floor(self._plan)
            used = lane.server.cpu_seconds()
            report = caller.go()
            used = lane.server.cpu_seconds() - used
            floor = (before + _floor(self._plan)) / 2
        requests.unlink()
        if report.wrong > report.calls * self._plan.most_wrong:
            sentence = f"{report.wrong} of {report.calls} answers were wrong"
            raise RuntimeError(f"{lane.name}: {sentence}: {report.wrong_answer}")
        cpu = used / report.calls * 1e6
        return Slice(
            calls=report.calls,
            wrong=report.wrong,
            per_second=report.per_second,
            p50_ms=report.p50_ms,
            p99_ms=report.p99_ms,
            caller_us=report.caller_us,
            cpu_us=cpu,
            floor_us=floor,
            ratio=cpu / floor,
            rate=rate,
        )

    def _prepare(self, lane: Lane, *, seconds: float, rate: float) -> Path:
        """Enough requests for the time; a lane that has used them all is done early."""
        expected = rate or self._capacity.get(lane.name, 0.0) * 1.4 or _FIRST_GUESS
        count = 1 if lane.stream.is_repeatable else int(expected * seconds) + 100
        path = self._plan.folder / f"requests-{next(_serial)}"
        write_requests(path, list(itertools.islice(lane.stream.make(), min(count, _MOST_PREPARED))))
        return path

    def _job(self, lane: Lane, requests: Path, *, seconds: float, rate: float) -> Job:
        stream = lane.stream
        return Job(
            face=stream.face,
            port=stream.port,
            verb=stream.verb,
            path=stream.path,
            headers=stream.headers,
            requests=str(requests),
            is_repeatable=stream.is_repeatable,
            is_granted=stream.is_granted,
            connections=lane.connections or self._plan.connections,
            seconds=seconds,
            rate=rate,
            cores=lane.cores or self._plan.caller,
        )


class _Caller:
    """A load generator that is connected and waits for its start."""

    def __init__(self, job: Job) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.generator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._say(json.dumps(asdict(job)))
        assert self._hear() == "ready"

    def go(self) -> Report:
        """Start it and wait for what it saw."""
        self._say("go")
        return Report(**json.loads(self._hear()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process as process:
            process.kill()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError("the load generator ended early; what it said stands above")
        return line


def summary(slices: Sequence[Slice]) -> dict[str, dict[str, float]]:
    """Every figure of some slices as a median with the least and the most."""
    return {
        one.name: asdict(Spread.of(getattr(slice_, one.name) for slice_ in slices))
        for one in fields(Slice)
    }


def lines(
    lanes: Sequence[Lane],
    at_capacity: Mapping[str, Sequence[Slice]],
    at_half: Mapping[str, Sequence[Slice]] | None = None,
) -> list[dict[str, Any]]:
    """The lanes as lines of the results."""
    half = at_half or {}
    return [
        {
            "name": lane.name,
            **lane.about,
            "at_capacity": summary(at_capacity[lane.name]),
            **({"at_half": summary(half[lane.name])} if lane.name in half else {}),
        }
        for lane in lanes
    ]


def _floor(plan: Plan) -> float:
    with on_cores(plan.server):
        return floor_microseconds(plan.floor_milliseconds)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
