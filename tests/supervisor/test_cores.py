"""Which cores workers get, when they get none, and that all threads of a worker stay on its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from broker import cores
from broker.cores import Cores, chosen, cores_for, has_quota

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can hold a process")

THREADS_AFTER_FORK = """
import os, sys, threading
from broker.cores import Cores
core = min(os.sched_getaffinity(0))
pid = os.fork()
if pid == 0:
    Cores((core,)).hold(0)
    import grpc
    grpc.server(__import__("concurrent.futures").futures.ThreadPoolExecutor(2)).start()
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    threads = os.listdir("/proc/self/task")
    assert len(threads) > 2, threads
    held = {frozenset(os.sched_getaffinity(int(thread))) for thread in threads}
    os._exit(0 if held == {frozenset({core})} else 1)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert os.sched_getaffinity(0) == set(map(int, sys.argv[1:]))
sys.exit(status)
"""


@pytest.fixture
def _no_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "has_quota", lambda: False)


@linux_only
@pytest.mark.usefixtures("_no_quota")
def test_each_worker_gets_an_allowed_core_that_no_other_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {1, 3, 4, 7})

    for workers in (1, 2, 4):
        each = cores_for(workers).each
        assert len({*each}) == workers
        assert {*each} <= {1, 3, 4, 7}


@linux_only
@pytest.mark.usefixtures("_no_quota")
def test_with_fewer_cores_than_workers_nobody_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 5})

    held = cores_for(3)

    assert held.each == ()
    assert held.reason == "there are 3 workers and 2 cores"


@linux_only
def test_under_a_quota_nobody_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)))
    monkeypatch.setattr(cores, "has_quota", lambda: True)

    assert cores_for(2) == Cores(reason="processor time is limited by a quota")


def test_where_the_kernel_cannot_hold_a_process_nobody_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")

    held = cores_for(1)

    assert held.each == ()
    assert "Linux" in held.reason
    held.hold(0)


def test_threads_of_one_physical_core_are_shared_only_when_there_is_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cores, "_rank", lambda core: core % 2)

    for first in range(4):
        assert {*chosen([0, 1, 2, 3], 2, first=first)} == {0, 2}
        assert {*chosen([0, 1, 2, 3], 3, first=first)} < {0, 1, 2, 3}
        assert {*chosen([0, 1, 2, 3], 4, first=first)} == {0, 1, 2, 3}


def test_two_brokers_need_not_begin_with_the_same_core() -> None:
    assert chosen([0, 1, 2, 3], 1, first=1) != chosen([0, 1, 2, 3], 1, first=2)


@pytest.mark.parametrize(
    ("own", "files", "is_limited"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, False),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, True),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, True),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "max 100000"}, False),
        ("0::/../../host/path\n", {"cpu.max": "1000 100000"}, True),
        ("4:cpu,cpuacct:/x\n", {"cpu,cpuacct/x/cpu.cfs_quota_us": "50000\n"}, True),
        ("4:cpu,cpuacct:/x\n", {"cpu,cpuacct/x/cpu.cfs_quota_us": "-1\n"}, False),
        ("4:cpu,cpuacct:/host/x\n", {"cpu,cpuacct/cpu.cfs_quota_us": "50000\n"}, True),
        ("9:memory:/x\n", {"memory/x/cpu.cfs_quota_us": "50000\n"}, False),
        ("", {}, False),
        ("0::/\n", {"cpu.max": ""}, False),
    ],
)
def test_a_quota_of_our_group_or_of_any_above_it_is_found(
    tmp_path: Path,
    own: str,
    files: dict[str, str],
    is_limited: bool,  # noqa: FBT001 - a parameter of the test.
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").write_text(own)

    assert has_quota(tmp_path, tmp_path / "own") is is_limited


@linux_only
def test_every_thread_that_a_worker_starts_stays_on_its_core_and_the_parent_is_free() -> None:
    allowed = [str(core) for core in sorted(os.sched_getaffinity(0))]

    done = subprocess.run(
        [sys.executable, "-c", THREADS_AFTER_FORK, *allowed],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr


@linux_only
def test_a_core_that_was_taken_away_does_not_keep_a_worker_from_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_pid: int, _cores: set[int]) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)

    Cores((2,)).hold(0)
