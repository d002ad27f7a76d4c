"""
A process that spends ids from one store, for tests that need several processes.

The store is a SQLite file, or ``valkey:PORT:PREFIX``. The process opens it, says ``ready``, waits for a
line, and then each of its threads goes through all ids from a place of its own. Every id that it won is
told, on a line, once the store has said so.

One that is told a direction instead of a number of threads goes through the ids in rounds, each upward or
downward. After the first id of a round it says ``met`` and waits for a line. Of two that go in opposite
directions, and wait for one another so, each wins that first id, and the rest of the round is a race.
"""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from broker.model import OneTimeId
from broker.state.sqlite import SqliteState
from broker.state.valkey import ValkeyState
from broker.state.valkey_keeper import StoreTerms
from tests.valkey import log_to_stderr, open_state, servers_at

NOW = 1_800_000_000
ROUND = 20
"""How many ids are raced for between two meetings."""

MET = "met"


def main(place: str, prefix: str, count: int, pace: str) -> None:
    log_to_stderr()
    threads = int(pace) if pace.isdigit() else 1
    state = _open(place, threads)
    _tell("ready")
    sys.stdin.readline()

    def spend(number: int) -> None:
        jti = f"{prefix}{number}"
        one = OneTimeId("client_assertion", "agent-x", jti, NOW + 330, NOW - 30)
        if state.spend((one,)) is None:
            _tell(jti)

    if pace.isdigit():
        _spend_in_threads(spend, count, threads)
    else:
        _spend_in_rounds(spend, count, pace)


def _spend_in_threads(spend: Callable[[int], None], count: int, threads: int) -> None:
    def spend_all(offset: int) -> None:
        for number in range(count):
            spend((number + offset) % count)

    workers = [
        threading.Thread(target=spend_all, args=(offset * count // threads,))
        for offset in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _spend_in_rounds(spend: Callable[[int], None], count: int, direction: str) -> None:
    for begin in range(0, count, ROUND):
        numbers = range(begin, min(begin + ROUND, count))
        first, *others = numbers if direction == "upward" else numbers[::-1]
        spend(first)
        _tell(MET)
        sys.stdin.readline()
        for number in others:
            spend(number)


def _open(place: str, threads: int) -> SqliteState | ValkeyState:
    if not place.startswith("valkey:"):
        return SqliteState(Path(place), now=lambda: NOW, busy_timeout=120)
    _, port, prefix = place.split(":")
    return open_state(
        servers_at(int(port)),
        now=lambda: NOW,
        terms=StoreTerms(prefix),
        deadline=60,
        connections=threads,
    )


def _tell(line: str) -> None:
    os.write(1, line.encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
