"""A process that is killed at any moment has lost no record of a request that it answered."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.audit.reader import verify_directory
from broker.audit.segments import AuditLogRefused
from tests.audit.requests import open_log, recorded, write

ROOT = Path(__file__).parents[2]


@contextmanager
def writer_process(directory: Path, prefix: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has opened the log and waits to begin."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.audit.writer_process", str(directory), prefix],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def killed_after(directory: Path, prefix: str, *, answered: int) -> list[str]:
    """The requests that a process answered before it was killed, at least that many."""
    with writer_process(directory, prefix) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        told = [process.stdout.readline().strip() for _ in range(answered)]
        process.kill()
        return [*told, *process.communicate()[0].split()]


@pytest.mark.requirement("R-23")
@pytest.mark.requirement("R-15")
def test_twenty_processes_killed_one_after_the_other_leave_one_sound_chain(tmp_path: Path) -> None:
    told: list[str] = []
    for number in range(20):
        told += killed_after(tmp_path, f"life-{number}", answered=1 + number * number)
        report = verify_directory(tmp_path)
        assert report.is_intact, report.chains[0].fault

    assert set(told) <= set(recorded(tmp_path))
    assert len(told) == len(set(told))
    assert len(recorded(tmp_path)) == len(set(recorded(tmp_path)))

    log = open_log(tmp_path)
    write(log, "afterwards")
    log.close()
    (chain,) = verify_directory(tmp_path).chains
    assert chain.fault is None
    assert chain.is_closed
    assert recorded(tmp_path)[-1:] == ["afterwards"]


def test_a_second_process_with_the_same_writer_id_is_refused(tmp_path: Path) -> None:
    with writer_process(tmp_path, "first"):
        with pytest.raises(AuditLogRefused, match="a writer id of its own"):
            open_log(tmp_path)
        other = open_log(tmp_path, writer="w2")
        write(other, "req-1")
        other.close()

    log = open_log(tmp_path)
    log.close()


FORK = """
import os, sys
from pathlib import Path
from tests.audit.requests import open_log, recorded, try_to_write, is_serving

log = open_log(Path(sys.argv[1]))
pid = os.fork()
if pid == 0:
    print("child", try_to_write(log, "req-child"), is_serving(log), flush=True)
    log.close()
    os._exit(0)
os.waitpid(pid, 0)
print("parent", try_to_write(log, "req-parent"), is_serving(log))
log.close()
print(recorded(Path(sys.argv[1])))
"""


def test_a_log_belongs_to_the_process_that_opened_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORK, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)

    assert done.stdout.splitlines() == ["child False False", "parent True True", "['req-parent']"]
