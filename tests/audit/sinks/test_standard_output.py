"""Records on standard output: whole lines by several processes, and nobody waits for a reader for long."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.audit.sinks.destination import SinkFailed
from broker.audit.sinks.standard_output import StandardOutput
from tests.audit.sinks.collecting import in_time, seconds_for, some_lines
from tests.e2e.patience import until

ROOT = Path(__file__).parents[3]
LONG = b'{"long": "' + b"x" * 100_000 + b'"}'


class Reader:
    """Reads a pipe to its end, but only while it may."""

    def __init__(self) -> None:
        self.source, self.pipe = os.pipe()
        self.is_reading = threading.Event()
        self.content = b""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while self.is_reading.wait() and (part := os.read(self.source, 65_536)):
            self.content += part
        os.close(self.source)

    def end(self) -> list[bytes]:
        """Close the pipe; all lines that came."""
        self.is_reading.set()
        if self.pipe >= 0:
            os.close(self.pipe)
            self.pipe = -1
        self._thread.join()
        return self.content.splitlines()


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.end()


def test_each_line_is_written_whole(tmp_path: Path, reader: Reader) -> None:
    lines = [*some_lines(tmp_path / "audit"), LONG]
    reader.is_reading.set()

    StandardOutput(tmp_path / "lock", descriptor=reader.pipe).take(lines, in_time())

    assert reader.end() == lines


PROCESS = """
import sys
from pathlib import Path
from broker.audit.sinks.standard_output import StandardOutput
from broker.fetch.deadline import Deadline

output = StandardOutput(Path(sys.argv[1]))
line = sys.argv[2].encode() * 9_000
for _ in range(20):
    output.take([line], Deadline.after(60))
"""


def test_processes_that_share_it_tear_no_line_apart(tmp_path: Path, reader: Reader) -> None:
    reader.is_reading.set()
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "lock")]
    running = [
        subprocess.Popen([*command, letter], cwd=ROOT, stdout=reader.pipe) for letter in "ab"
    ]
    assert [one.wait(120) for one in running] == [0, 0]

    lines = reader.end()

    assert sorted(lines) == [b"a" * 9_000] * 20 + [b"b" * 9_000] * 20


@pytest.mark.requirement("R-31")
def test_a_reader_that_stands_still_is_left_at_the_deadline_and_the_torn_line_stands_alone(
    tmp_path: Path, reader: Reader
) -> None:
    output = StandardOutput(tmp_path / "lock", descriptor=reader.pipe)

    def wait() -> None:
        with pytest.raises(SinkFailed, match="timeout"):
            output.take([LONG], in_time(0.2))

    assert seconds_for(wait) < 20
    reader.is_reading.set()
    StandardOutput(tmp_path / "lock", descriptor=reader.pipe).take([LONG], in_time())
    torn, whole = reader.end()
    assert LONG.startswith(torn)
    assert whole == LONG


@pytest.mark.requirement("R-31")
def test_one_process_does_not_wait_longer_for_another(tmp_path: Path, reader: Reader) -> None:
    first = StandardOutput(tmp_path / "lock", descriptor=reader.pipe)
    second = StandardOutput(tmp_path / "lock", descriptor=reader.pipe)
    held = threading.Thread(target=lambda: first.take([LONG], in_time(60)))
    held.start()
    until(lambda: is_locked(tmp_path / "lock"), seconds=30, what="the first holds the lock")

    assert seconds_for(lambda: failing(second, 0.2)) < 20
    reader.is_reading.set()
    held.join()
    assert reader.end() == [LONG]


def is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def failing(output: StandardOutput, seconds: float) -> None:
    with pytest.raises(SinkFailed, match="timeout"):
        output.take([LONG], in_time(seconds))


@pytest.mark.requirement("R-31")
def test_a_stopped_process_that_reads_is_waited_for_until_the_deadline(tmp_path: Path) -> None:
    source, pipe = os.pipe()
    stopped = subprocess.Popen([sys.executable, "-c", "input()"], stdin=source)
    stopped.send_signal(signal.SIGSTOP)
    try:
        output = StandardOutput(tmp_path / "lock", descriptor=pipe)
        assert seconds_for(lambda: failing(output, 0.2)) < 20
    finally:
        stopped.kill()
        stopped.wait()
        os.close(source)
        os.close(pipe)


def test_a_reader_that_is_gone_is_a_failure_and_no_signal(tmp_path: Path) -> None:
    source, pipe = os.pipe()
    os.close(source)
    output = StandardOutput(tmp_path / "lock", descriptor=pipe)
    try:
        with pytest.raises(SinkFailed, match="EPIPE"):
            output.take([b"{}"], in_time())
    finally:
        os.close(pipe)


def test_a_descriptor_that_is_closed_is_a_failure(tmp_path: Path) -> None:
    _, pipe = sockets = os.pipe()
    for one in sockets:
        os.close(one)

    with pytest.raises(SinkFailed, match="EBADF"):
        StandardOutput(tmp_path / "lock", descriptor=pipe).take([b"{}"], in_time())


@pytest.mark.requirement("R-31")
def test_a_socket_in_its_place_is_not_waited_for_either(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        output = StandardOutput(tmp_path / "lock", descriptor=ours.fileno())
        output.take([b"{}"], in_time())
        assert theirs.recv(100) == b"{}\n"

        for _ in range(4):
            assert seconds_for(lambda: fill(output)) < 20


def fill(output: StandardOutput) -> None:
    with pytest.raises(SinkFailed, match="timeout"):
        output.take([LONG] * 20, in_time(0.1))


def test_a_lock_that_is_a_symbolic_link_is_not_followed(tmp_path: Path, reader: Reader) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "target")

    with pytest.raises(SinkFailed, match="ELOOP"):
        StandardOutput(tmp_path / "lock", descriptor=reader.pipe).take([b"{}"], in_time())

    assert not (tmp_path / "target").exists()
