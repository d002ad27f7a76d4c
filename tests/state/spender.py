"""
A process that spends ids from one store, for tests that need several processes.

The store is a SQLite file, or ``valkey:PORT:PREFIX``. The process opens it, says ``ready``, waits for a
line, and then each of its threads goes through all ids from a place of its own. Every id that it won is
told, on a line, once the store has said so.
"""

import os
import sys
import threading
from pathlib import Path

from broker.model import OneTimeId
from broker.state.sqlite import SqliteState
from broker.state.valkey import ValkeyState
from broker.state.valkey_keeper import StoreTerms
from tests.valkey import log_to_stderr, open_state, servers_at

NOW = 1_800_000_000


def main(place: str, prefix: str, count: int, threads: int) -> None:
    log_to_stderr()
    state = _open(place, threads)
    _tell("ready")
    sys.stdin.readline()

    def spend_all(offset: int) -> None:
        for number in range(count):
            jti = f"{prefix}{(number + offset) % count}"
            one = OneTimeId("client_assertion", "agent-x", jti, NOW + 330, NOW - 30)
            if state.spend((one,)) is None:
                _tell(jti)

    workers = [
        threading.Thread(target=spend_all, args=(offset * count // threads,))
        for offset in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _open(place: str, threads: int) -> SqliteState | ValkeyState:
    if not place.startswith("valkey:"):
        return SqliteState(Path(place), now=lambda: NOW, busy_timeout=10)
    _, port, prefix = place.split(":")
    return open_state(
        servers_at(int(port)),
        now=lambda: NOW,
        terms=StoreTerms(prefix),
        deadline=10,
        connections=threads,
    )


def _tell(line: str) -> None:
    os.write(1, line.encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
