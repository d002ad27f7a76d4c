"""
The load generator, a process of its own: ``python -m bench.generator``.

It is told what to do in one line of JSON, says ``ready`` once it is connected, begins at the line ``go``,
and answers with what it saw. The requests are prepared: a new one for each call, since assertions are good
for one use only. It is bounded in time and count, and speaks to loopback alone.
"""

import json
import os
import resource
import select
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench.wire import Connection, GrpcConnection, HttpConnection

_LONGEST: Final = 60.0
_PATIENCE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Job:
    """
    What to do. ``requests`` is a file that ``write_requests`` wrote.

    With a ``rate``, in requests per second, the loop is open: requests are due by the clock and their
    latency counts from then, so a server that stalls cannot hide it by slowing the caller. Without one
    it is closed: every connection sends the next request as soon as it has its answer.
    """

    face: str
    port: int
    verb: str
    path: str
    headers: tuple[tuple[str, str], ...]
    requests: str
    is_repeatable: bool
    is_granted: bool
    connections: int
    seconds: float
    rate: float
    cores: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """
    What came of it; a wrong answer is one that was granted or refused against what is right.

    ``wrong_answer`` is how the last of them ended.
    """

    calls: int
    wrong: int
    seconds: float
    per_second: float
    p50_ms: float
    p99_ms: float
    caller_us: float
    wrong_answer: str


def write_requests(path: Path, bodies: Sequence[bytes]) -> None:
    """Keep prepared requests in a file."""
    with path.open("wb") as file:
        for body in bodies:
            file.write(struct.pack(">I", len(body)) + body)


def read_requests(path: Path) -> list[bytes]:
    """The requests that ``write_requests`` kept."""
    data, position, found = path.read_bytes(), 0, []
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        found.append(data[position + 4 : position + 4 + length])
        position += 4 + length
    return found


class Generator:
    """Runs one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._connections = [_connect(job) for _ in range(job.connections)]
        self._requests = _requests(job)
        self._latencies: list[float] = []
        self._wrong = 0
        self._wrong_answer = b""
        self._waiting: dict[Connection, float] = {}
        self._end = 0.0

    def run(self) -> Report:
        """Send until the time is over or nothing is left, and wait for the last answers."""
        before = _cpu_seconds()
        begun = time.perf_counter()
        self._end = begun + min(self._job.seconds, _LONGEST)
        if self._job.rate:
            self._run_open(begun)
        else:
            for connection in self._connections:
                self._send(connection, time.perf_counter())
            while self._waiting:
                for connection in self._answered(_PATIENCE):
                    self._send(connection, time.perf_counter())
        return self._report(time.perf_counter() - begun, _cpu_seconds() - before)

    def close(self) -> None:
        """Close every connection."""
        for connection in self._connections:
            connection.close()

    def _run_open(self, begun: float) -> None:
        between = len(self._connections) / self._job.rate
        due = {
            connection: begun + between * number / len(self._connections)
            for number, connection in enumerate(self._connections)
        }
        while True:
            now = time.perf_counter()
            for connection in [one for one in due if one not in self._waiting and due[one] <= now]:
                moment = due.pop(connection)
                if self._send(connection, moment):
                    due[connection] = moment + between
            idle = [moment for one, moment in due.items() if one not in self._waiting]
            if not idle and not self._waiting:
                return
            self._answered(max(0.0, min(idle) - time.perf_counter()) if idle else _PATIENCE)

    def _send(self, connection: Connection, moment: float) -> bool:
        body = next(self._requests, None) if moment < self._end else None
        if body is None:
            return False
        connection.send(body)
        self._waiting[connection] = moment
        return True

    def _answered(self, seconds: float) -> list[Connection]:
        """Those whose answer has come; waits for so long at most."""
        sockets = {connection.socket: connection for connection in self._waiting}
        readable, _, _ = select.select(list(sockets), [], [], seconds)
        if not readable and seconds >= _PATIENCE:
            raise TimeoutError("the server does not answer")
        answered = []
        for one in readable:
            connection = sockets[one]
            is_granted = connection.receive()
            if is_granted is None:
                continue
            self._latencies.append(time.perf_counter() - self._waiting.pop(connection))
            if is_granted != self._job.is_granted:
                self._wrong += 1
                self._wrong_answer = connection.answer
            answered.append(connection)
        return answered

    def _report(self, seconds: float, cpu: float) -> Report:
        latencies = sorted(self._latencies)
        calls = len(latencies)
        if not calls:
            raise ValueError("no request was answered")
        return Report(
            calls=calls,
            wrong=self._wrong,
            seconds=seconds,
            per_second=calls / seconds,
            p50_ms=latencies[calls // 2] * 1000,
            p99_ms=latencies[int(calls * 0.99)] * 1000,
            caller_us=cpu / calls * 1e6,
            wrong_answer=self._wrong_answer[-300:].decode("ascii", "backslashreplace"),
        )


def _connect(job: Job) -> Connection:
    if job.face == "grpc":
        return GrpcConnection(job.port, path=job.path, headers=job.headers)
    return HttpConnection(job.port, verb=job.verb, path=job.path, headers=job.headers)


def _requests(job: Job) -> Iterator[bytes]:
    requests = read_requests(Path(job.requests))
    while requests:
        yield from requests
        if not job.is_repeatable:
            return


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Do one job."""
    members = json.loads(sys.stdin.readline())
    job = Job(**{**members, "headers": tuple(map(tuple, members["headers"]))})
    os.sched_setaffinity(0, job.cores)
    generator = Generator(job)
    print("ready", flush=True)
    if sys.stdin.readline() == "go\n":
        print(json.dumps(asdict(generator.run())), flush=True)


if __name__ == "__main__":
    main()
