"""A broker as an operator runs it: ``python -m broker serve``, seen from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import urllib3

from broker.supervisor import RestartLimits
from tests.e2e.patience import until
from tests.e2e.setting import ROOT, Setting

PYTHON: Final = sys.executable
START_SECONDS: Final = 90.0
STOP_SECONDS: Final = 60.0
_COMMAND_SECONDS: Final = 180.0
_LEASH: Final = Path(__file__).with_name("leash.py")


def environment() -> dict[str, str]:
    """The environment of whatever is started here: nothing of it speaks to a broker."""
    own = {name: text for name, text in os.environ.items() if not name.startswith("BROKER_")}
    path = f"{Path(PYTHON).parent}{os.pathsep}{own.get('PATH', os.defpath)}"
    return {**own, "PATH": path, "PYTHONPATH": str(ROOT)}


def start(command: list[str], *, directory: Path, log: Path) -> "Session":
    """Start a command in a session of its own, with all that it prints in ``log``."""
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [PYTHON, str(_LEASH), *command],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=environment(),
            start_new_session=True,
        )
    return Session(process, log)


class Session:
    """A process and all that come from it, in whatever groups they are."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def text(self) -> str:
        """All that was printed so far."""
        return self.log.read_text(errors="replace")

    def processes(self) -> dict[int, int]:
        """The live processes of the session, each with its parent."""
        return {pid: parent for pid, parent, session in _processes() if session == self.process.pid}

    def end(self, seconds: float = STOP_SECONDS) -> int:
        """The exit status, once it has ended."""
        return self.process.wait(seconds)

    def close(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(STOP_SECONDS)
        until(lambda: not self.processes(), seconds=STOP_SECONDS, what="every process is gone")


def _processes() -> Iterator[tuple[int, int, int]]:
    """The id, parent and session of every process that is not already dead."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                # What comes after the name, which is in brackets and may hold anything.
                words = (entry / "stat").read_text().rpartition(")")[2].split()
                if words[0] != "Z":
                    yield int(entry.name), int(words[1]), int(words[3])


class RunningBroker:
    """
    The processes of one broker, and the questions that an operator has for them.

    ``program`` is what Python runs, with the arguments that come before the command.
    """

    def __init__(self, setting: Setting, *, program: Sequence[str] = ("-m", "broker")) -> None:
        self.setting = setting
        setting.write()
        self._admin = f"http://127.0.0.1:{setting.ports.admin}"
        self._http = urllib3.PoolManager(retries=False, timeout=15, headers={"Connection": "close"})
        log = setting.directory / "broker.log"
        command = [PYTHON, *program, "serve", "--config", str(setting.file)]
        self.session = start(command, directory=setting.directory, log=log)
        self._ready_since = float("inf")

    def wait_until_steady(self) -> None:
        """
        Return when every worker has lived for so long that its end does not count as one at start.

        Before that, the supervisor gives up after a few.
        """
        self.wait_until_ready()
        steady_at = self._ready_since + RestartLimits().steady.total_seconds()
        until(lambda: time.monotonic() > steady_at, seconds=120, what="the broker is steady")

    def wait_until_ready(self, seconds: float = START_SECONDS) -> None:
        """Return when readiness says so; fails the test when it does not in time, or it ended."""

        def is_ready() -> bool:
            assert self.is_running, self.session.text
            return self.is_ready()

        until(is_ready, seconds=seconds, what="the broker is ready")
        self._ready_since = min(self._ready_since, time.monotonic())

    @property
    def is_running(self) -> bool:
        """Whether the supervisor lives."""
        return self.session.process.poll() is None

    def is_ready(self) -> bool:
        """What ``readyz`` says; nothing is not ready."""
        return is_ready_at(self._admin, self._http)

    def page(self, path: str) -> str:
        """A page of the operators' port, or nothing when nobody answers."""
        with suppress(urllib3.exceptions.HTTPError):
            return self._http.request("GET", self._admin + path).data.decode()
        return ""

    def findings(self) -> str:
        """What ``readyz`` says, in full."""
        return self.page("/readyz?verbose")

    def document(self, path: str) -> dict[str, Any]:
        """A JSON document of the HTTP face; fails the test unless it is there."""
        answer = self._http.request("GET", self.setting.origin + path)
        assert answer.status == 200, f"{path}: {answer.status}"
        read: dict[str, Any] = answer.json()
        return read

    def key_set(self) -> dict[str, Any]:
        """The published keys."""
        return self.document(f"{self.setting.issuer_path}/jwks")

    def send(self, signum: signal.Signals) -> None:
        """Send the supervisor a signal."""
        self.session.process.send_signal(signum)

    def stop(self) -> int:
        """Ask it to stop; returns its exit status."""
        self.send(signal.SIGTERM)
        return self.session.end()

    def worker_process(self, worker: str) -> int:
        """The process that the supervisor started last for this worker, or 0 if it is gone."""
        started = [one["pid"] for one in self.events("worker_started") if one["worker"] == worker]
        return started[-1] if started and started[-1] in self.session.processes() else 0

    def serving_process(self, worker: str) -> int:
        """
        The process that answers for this worker now, or 0 while there is none.

        It is a child of the worker's where the server of the face forks one.
        """
        watcher = self.worker_process(worker)
        family = self.session.processes()
        child = next((pid for pid, parent in family.items() if watcher and parent == watcher), 0)
        return child if worker.startswith("http") else watcher

    def events(self, name: str) -> list[Mapping[str, Any]]:
        """The events of that name in the operational log so far."""
        return [event for event in self._log_lines() if event.get("event") == name]

    def _log_lines(self) -> Iterator[Mapping[str, Any]]:
        for line in self.session.text.splitlines():
            with suppress(ValueError):
                read = json.loads(line)
                if isinstance(read, dict):
                    yield read

    def records(self, event: str = "token.issue") -> list[dict[str, Any]]:
        """The audit records of an event, as they stand on disk."""
        return read_records(self.setting.audit_directory, event)

    def verify_audit(self) -> "subprocess.CompletedProcess[str]":
        """What ``broker audit verify`` says."""
        return run_broker("audit", "verify", str(self.setting.audit_directory))

    def close(self) -> None:
        """End it at once, with everything that it started."""
        self.session.close()
        self._http.clear()


def is_ready_at(admin: str, http: urllib3.PoolManager) -> bool:
    """What ``readyz`` of an operators' port says; nothing is not ready."""
    with suppress(urllib3.exceptions.HTTPError):
        return http.request("GET", f"{admin}/readyz").status == 200
    return False


def read_records(directory: Path, event: str = "token.issue") -> list[dict[str, Any]]:
    """
    The records of an event in a directory of segments.

    A last line without its end is what a crash has left; nobody was told of it.
    """
    lines = [
        json.loads(line)
        for path in sorted(directory.glob("*.jsonl"))
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n")
    ]
    return [line for line in lines if line["event"] == event]


def run_broker(
    *arguments: str, directory: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a command of ours to its end."""
    return run([PYTHON, "-m", "broker", *arguments], directory=directory)


def run(command: list[str], *, directory: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, for a bounded time."""
    return subprocess.run(
        command,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_COMMAND_SECONDS,
        check=False,
        env=environment(),
    )
