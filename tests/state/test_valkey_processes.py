"""One Valkey, several processes: racing, killed, and told at once what another withdrew."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.errors import Reason
from broker.model import OneTimeId, Party, PartyKind, Withdrawal
from broker.state.valkey import ValkeyState
from broker.state.valkey_keeper import StoreTerms
from tests.state.spender import MET, NOW, ROUND
from tests.valkey import ValkeyServer, new_prefix, open_state, servers_at, settled_state

ROOT = Path(__file__).parents[2]
RACES = int(os.environ.get("BROKER_RACES", "2000"))
"""How many ids two processes race for; ``BROKER_RACES=1000000`` is a long run."""


class Clock:
    """A clock that stands."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> int:
        return self.at


@pytest.fixture
def prefix(valkey_server: ValkeyServer) -> str:
    """A store that has been in use for a while."""
    name = new_prefix()
    settled_state(valkey_server, Clock(), prefix=name).close()
    return name


def open_here(server: ValkeyServer, prefix: str) -> ValkeyState:
    return open_state(servers_at(server.port), now=Clock(), terms=StoreTerms(prefix))


@contextmanager
def spenders(
    server: ValkeyServer, place: str, paces: Sequence[object], *, count: int, name: str = ""
) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that have all opened the store, one for each number of threads, or direction."""
    command = [sys.executable, "-m", "tests.state.spender", f"valkey:{server.port}:{place}"]
    processes = [
        subprocess.Popen(
            [*command, name, str(count), str(pace)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for pace in paces
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


@pytest.mark.requirement("RPL-02", "P-B")
def test_of_two_processes_that_race_for_an_id_one_wins(
    valkey_server: ValkeyServer, prefix: str
) -> None:
    with spenders(valkey_server, prefix, ["upward", "downward"], count=RACES) as processes:
        won = [list[str](), list[str]()]
        start(processes)
        for _ in range(0, RACES, ROUND):
            for process, ids in zip(processes, won, strict=True):
                ids.extend(until_met(process))
            start(processes)
        for process, ids in zip(processes, won, strict=True):
            ids.extend(process.communicate()[0].split())

    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(won[0] + won[1]) == sorted(str(number) for number in range(RACES))
    assert min(map(len, won)) >= RACES // ROUND, "they were in every round together"


def until_met(process: subprocess.Popen[str]) -> list[str]:
    """The ids that a process says it won before it waits for the other."""
    won = []
    while (line := read_line(process)) != MET:
        assert line, "it ended"
        won.append(line)
    return won


@pytest.mark.requirement("RPL-02")
def test_of_64_callers_in_two_processes_one_wins_each_id(
    valkey_server: ValkeyServer, prefix: str
) -> None:
    with spenders(valkey_server, prefix, [32, 32], count=60) as processes:
        start(processes)
        outputs = [process.communicate()[0].split() for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    won = [jti for output in outputs for jti in output]
    assert sorted(won) == sorted(str(number) for number in range(60))


@pytest.mark.requirement("RPL-06")
@pytest.mark.parametrize("acknowledged", [1, 120])
def test_what_a_killed_process_had_acknowledged_stays_spent(
    valkey_server: ValkeyServer, prefix: str, acknowledged: int
) -> None:
    with spenders(valkey_server, prefix, [4], count=1_000_000, name="jti-") as (process,):
        start([process])
        told = [read_line(process) for _ in range(acknowledged)]
        process.kill()
        told += process.communicate()[0].split()

    state = open_here(valkey_server, prefix)
    assert [jti for jti in told if not is_spent(state, jti)] == []
    assert not is_spent(state, "never")
    state.close()


def is_spent(state: ValkeyState, jti: str) -> bool:
    one = OneTimeId("client_assertion", "agent-x", jti, NOW + 330, NOW - 30)
    return state.spend((one,)) == one


ANSWER = """
import sys
from broker.model import Party, PartyKind, Pedigree
from broker.state.valkey_keeper import StoreTerms
from tests.valkey import log_to_stderr, open_state, servers_at

log_to_stderr()
now = int(sys.argv[3])
terms = StoreTerms(sys.argv[2])
state = open_state(servers_at(int(sys.argv[1])), now=lambda: now, terms=terms)
print("ready", flush=True)
for line in sys.stdin:
    jti, parent, subject = line.split()
    party = Party(PartyKind.SUBJECT, subject)
    reason = state.reason_against(Pedigree(jti, now, frozenset({party}), (parent,)))
    print("counts" if reason is None else reason.code, flush=True)
"""


@pytest.mark.requirement("RPL-07")
def test_what_is_withdrawn_here_counts_at_once_in_another_process(
    valkey_server: ValkeyServer, prefix: str
) -> None:
    here = open_here(valkey_server, prefix)
    arguments = [str(valkey_server.port), prefix, str(NOW)]
    there = subprocess.Popen(
        [sys.executable, "-c", ANSWER, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def ask(jti: str, parent: str, subject: str) -> str:
        assert there.stdin is not None
        there.stdin.write(f"{jti} {parent} {subject}\n")
        there.stdin.flush()
        return read_line(there)

    try:
        assert read_line(there) == "ready"
        assert ask("child", "parent", "alice") == "counts"
        alice = Party(PartyKind.SUBJECT, "alice")
        here.withdraw(Withdrawal(alice, 0, NOW + 30, NOW + 86_460))
        assert ask("child", "parent", "alice") == "revoked"
        assert ask("child", "parent", "bob") == "counts"
        here.revoke("parent", NOW + 300)
        assert ask("child", "parent", "bob") == Reason.ANCESTOR_REVOKED.code
    finally:
        there.kill()
        there.communicate()
        here.close()


def test_a_process_that_was_forked_talks_over_connections_of_its_own(
    valkey_server: ValkeyServer, prefix: str
) -> None:
    """Two that read from one connection would take each other's answers."""
    state = open_here(valkey_server, prefix)
    assert not is_spent(state, "before")
    child = os.fork()
    if child == 0:
        is_right = is_spent(state, "before") and not is_spent(state, "child")
        os._exit(0 if is_right else 1)

    answers = [is_spent(state, f"parent-{number}") for number in range(50)]

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not any(answers)
    assert is_spent(state, "child")
    state.close()
