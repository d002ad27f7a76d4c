"""
A process that spends ids from one SQLite file, for tests that need several processes.

It opens the file, says ``ready``, waits for a line, and then each of its threads goes through all
ids from a place of its own. Every id that it won is told, on a line, once the store has said so.
"""

import os
import sys
import threading
from pathlib import Path

from broker.model import OneTimeId
from broker.state.sqlite import SqliteState

NOW = 1_800_000_000


def main(path: str, prefix: str, count: int, threads: int) -> None:
    state = SqliteState(Path(path), now=lambda: NOW, busy_timeout=10)
    _tell("ready")
    sys.stdin.readline()

    def spend_all(offset: int) -> None:
        for number in range(count):
            jti = f"{prefix}{(number + offset) % count}"
            if state.spend((OneTimeId("client_assertion", "agent-x", jti, NOW + 330),)) is None:
                _tell(jti)

    workers = [
        threading.Thread(target=spend_all, args=(offset * count // threads,))
        for offset in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _tell(line: str) -> None:
    os.write(1, line.encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
