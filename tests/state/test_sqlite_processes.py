"""One SQLite store, several processes: started together, racing, killed and forked."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.errors import Reason
from broker.model import OneTimeId, Party, PartyKind, Pedigree, Withdrawal
from broker.state.sqlite import SqliteState
from tests.state.spender import NOW

ROOT = Path(__file__).parents[2]


@contextmanager
def spenders(
    path: Path, prefixes: Sequence[str], *, count: int, threads: int
) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that have all opened the store, the first one making it."""
    command = [sys.executable, "-m", "tests.state.spender", str(path)]
    processes = [
        subprocess.Popen(
            [*command, prefix, str(count), str(threads)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for prefix in prefixes
    ]
    try:
        for process in processes:
            assert read_line(process) == "ready"
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def start(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


ALICE = Party(PartyKind.SUBJECT, "alice")


def child_of(parent: str, *parties: Party) -> Pedigree:
    return Pedigree("child", NOW, frozenset(parties), (parent,))


def is_spent(state: SqliteState, jti: str) -> bool:
    one = OneTimeId("client_assertion", "agent-x", jti, NOW + 330)
    return state.spend((one,)) == one


@pytest.mark.requirement("RPL-02")
def test_of_64_callers_in_two_processes_one_wins_each_id(tmp_path: Path) -> None:
    with spenders(tmp_path / "state.db", ["", ""], count=60, threads=32) as processes:
        start(processes)
        outputs = [process.communicate()[0].split() for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    won = [jti for output in outputs for jti in output]
    assert sorted(won) == sorted(str(number) for number in range(60))


def test_four_processes_open_a_new_store_at_once(tmp_path: Path) -> None:
    with spenders(tmp_path / "state.db", ["a", "b", "c", "d"], count=10, threads=2) as processes:
        start(processes)
        outputs = [process.communicate()[0].split() for process in processes]

    assert [len(output) for output in outputs] == [10, 10, 10, 10]


@pytest.mark.requirement("RPL-06")
@pytest.mark.requirement("R-15")
@pytest.mark.parametrize("acknowledged", [1, 17, 120, 400])
def test_a_killed_process_forgets_nothing_that_it_had_acknowledged(
    tmp_path: Path, acknowledged: int
) -> None:
    path = tmp_path / "state.db"
    with spenders(path, ["jti-"], count=1_000_000, threads=4) as (process,):
        start([process])
        told = [read_line(process) for _ in range(acknowledged)]
        process.kill()
        told += process.communicate()[0].split()

    state = SqliteState(path, now=lambda: NOW)
    assert [jti for jti in told if not is_spent(state, jti)] == []
    assert not is_spent(state, "never")
    state.close()


@pytest.mark.requirement("RPL-06")
def test_a_restart_remembers_spent_ids_and_revocations(tmp_path: Path) -> None:
    first = SqliteState(tmp_path / "state.db", now=lambda: NOW)
    is_spent(first, "jti-1")
    first.revoke("jti-2", NOW + 300)
    first.withdraw(Withdrawal(ALICE, 0, NOW + 30, NOW + 86_460))
    first.close()

    second = SqliteState(tmp_path / "state.db", now=lambda: NOW)

    assert is_spent(second, "jti-1")
    assert second.reason_against(child_of("jti-2")) is Reason.ANCESTOR_REVOKED
    assert second.reason_against(child_of("jti-3", ALICE)) is Reason.REVOKED
    second.close()


ANSWER = """
import sys
from pathlib import Path
from broker.model import Party, PartyKind, Pedigree
from broker.state.sqlite import SqliteState

state = SqliteState(Path(sys.argv[1]), now=lambda: int(sys.argv[2]))
print("ready", flush=True)
for line in sys.stdin:
    jti, parent, subject = line.split()
    party = Party(PartyKind.SUBJECT, subject)
    reason = state.reason_against(Pedigree(jti, int(sys.argv[2]), frozenset({party}), (parent,)))
    print("counts" if reason is None else reason.code, flush=True)
"""


@pytest.mark.requirement("RPL-07")
def test_what_is_withdrawn_here_counts_at_once_in_another_process(tmp_path: Path) -> None:
    here = SqliteState(tmp_path / "state.db", now=lambda: NOW)
    command = [sys.executable, "-c", ANSWER, str(tmp_path / "state.db"), str(NOW)]
    there = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def ask(jti: str, parent: str, subject: str) -> str:
        assert there.stdin is not None
        there.stdin.write(f"{jti} {parent} {subject}\n")
        there.stdin.flush()
        return read_line(there)

    try:
        assert read_line(there) == "ready"
        assert ask("child", "parent", "alice") == "counts"
        here.withdraw(Withdrawal(ALICE, 0, NOW + 30, NOW + 86_460))
        assert ask("child", "parent", "alice") == "revoked"
        assert ask("child", "parent", "bob") == "counts"
        here.revoke("parent", NOW + 300)
        assert ask("child", "parent", "bob") == "ancestor_revoked"
        assert ask("parent", "grandparent", "bob") == "revoked"
        assert ask("other", "grandparent", "bob") == "counts"
    finally:
        there.kill()
        there.communicate()
        here.close()


FORK = """
import os, sys
from pathlib import Path
from broker.errors import TemporarilyUnavailable
from broker.errors import Reason
from broker.model import OneTimeId, Party, PartyKind, Pedigree, Withdrawal
from broker.state.sqlite import SqliteState

state = SqliteState(Path(sys.argv[1]), now=lambda: 100)

def spend(jti):
    try:
        return "no" if state.spend((OneTimeId("k", "i", jti, 200),)) else "yes"
    except TemporarilyUnavailable as error:
        return error.detail

def is_revoked():
    try:
        return state.reason_against(Pedigree("jti", 100, frozenset())) is not None
    except TemporarilyUnavailable as error:
        return error.detail

if sys.argv[2] == "used":
    spend("before"), is_revoked()
pid = os.fork()
if pid == 0:
    print("child", spend("one"), is_revoked(), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print("parent", spend("one"), is_revoked())
"""


@pytest.mark.parametrize(
    ("use", "told"),
    [
        ("unused", ["child yes False", "parent no False"]),
        (
            "used",
            [
                "child "
                + " ".join(["state: in use by the process that this one was forked from"] * 2),
                "parent yes False",
            ],
        ),
    ],
)
def test_a_store_belongs_to_the_process_that_first_uses_it(
    tmp_path: Path, use: str, told: list[str]
) -> None:
    command = [sys.executable, "-c", FORK, str(tmp_path / "state.db"), use]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)

    assert done.stdout.splitlines() == told
