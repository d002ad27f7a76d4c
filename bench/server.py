"""A server under measurement: started on its core, watched from outside, and ended in order."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import urllib3

from bench.floor import on_cores
from bench.requests import Stream
from bench.setting import ROOT, Setting

_START_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 30.0
_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None)
_http = urllib3.PoolManager(retries=False, timeout=1)


@dataclass(frozen=True, slots=True)
class Memory:
    """
    Of some processes, in MB.

    ``rss_mb`` is what is resident of the largest of them, ``pss_mb`` the sum of all, in which a page that
    several share counts once.
    """

    rss_mb: float
    pss_mb: float


class Server:
    """
    A running server and everything below it.

    ``started`` is how many seconds passed from its start until it answered.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], started: float) -> None:
        self.name = name
        self.started = started
        self._process = process

    def processes(self) -> list[int]:
        """Its processes, each after its parent."""
        return tree(self._process.pid)

    def cpu_seconds(self) -> float:
        """CPU time of all its threads, those that have ended too, in seconds."""
        return sum(map(_cpu_seconds, self.processes()))

    def memory(self) -> Memory:
        """What it has in memory now."""
        return memory_of(self.processes())


def tree(process: int) -> list[int]:
    """A process and everything below it, each after its parent."""
    found = [process]
    for one in found:
        for children in _read_all(f"/proc/{one}/task", "*/children"):
            found.extend(int(child) for child in children.split())
    return found


def memory_of(processes: Sequence[int]) -> Memory:
    """What these processes have in memory now."""
    rss, pss = 0, 0
    for process in processes:
        for text in _read_all(f"/proc/{process}", "smaps_rollup"):
            sizes = dict(line.split(":", 1) for line in text.splitlines()[1:])
            rss = max(rss, int(sizes["Rss"].split()[0]))
            pss += int(sizes["Pss"].split()[0])
    return Memory(rss / 1024, pss / 1024)


@contextmanager
def running(
    command: Sequence[str],
    *,
    log: Path,
    is_ready: Callable[[], bool],
    cores: Sequence[int],
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A server by its command, from when it is ready until the block ends. What it prints is in ``log``."""
    begun = time.perf_counter()
    with log.open("wb") as sink, on_cores(cores):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            cwd=log.parent,
            env={**_environment(), **(environment or {})},
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - no other thread holds a lock now.
        )
    try:
        _wait(process, is_ready, log)
        yield Server(log.stem, process, time.perf_counter() - begun)
    finally:
        _end(process)


@contextmanager
def running_broker(
    setting: Setting, cores: Sequence[int], *, first: Stream | None = None
) -> Iterator[Server]:
    """The broker of a setting, from when it says that it is ready or has granted a ``first`` request."""
    ready = f"http://127.0.0.1:{setting.ports.admin}/readyz"
    command = [sys.executable, "-m", "broker", "serve", "--config", str(setting.file)]
    with running(
        command,
        log=setting.directory / "broker.log",
        is_ready=lambda: answers(ready) if first is None else grants(first),
        cores=cores,
    ) as server:
        yield server


def answers(url: str) -> bool:
    """Whether somebody answers there with 200."""
    with suppress(urllib3.exceptions.HTTPError):
        return _http.request("GET", url).status == 200
    return False


def grants(stream: Stream) -> bool:
    """Whether a server over HTTP grants the next request of a stream."""
    url = f"http://127.0.0.1:{stream.port}{stream.path}"
    body = next(stream.make())
    with suppress(urllib3.exceptions.HTTPError):
        headers = dict(stream.headers)
        return _http.request(stream.verb, url, body=body, headers=headers).status == 200
    return False


def _cpu_seconds(process: int) -> float:
    """The CPU clock of a process (clock_getcpuclockid(3)), which counts in nanoseconds."""
    with suppress(OSError):
        return time.clock_gettime(~process << 3 | 2)
    return 0.0


def _wait(process: subprocess.Popen[bytes], is_ready: Callable[[], bool], log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while not is_ready():
        if process.poll() is not None or time.monotonic() > until:
            tail = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{log.stem} did not become ready:\n{tail}")
        time.sleep(0.005)


def _end_with_parent() -> None:
    """In the child: be killed when this process ends, however that happens (prctl(2))."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _environment() -> dict[str, str]:
    # Whoever installs the broker has it compiled, whatever is usual on the machine that measures.
    own = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith("BROKER_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    return {**own, "PYTHONPATH": str(ROOT)}


def _read_all(directory: str, pattern: str) -> Iterator[str]:
    """The files of a process that are still there; it may end while they are read."""
    with suppress(OSError):
        for path in Path(directory).glob(pattern):
            with suppress(OSError):
                yield path.read_text()
