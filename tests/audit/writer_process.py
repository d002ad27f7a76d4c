"""
A process that writes an audit log until it is killed, for tests that need one to die.

It opens the log, says ``ready``, waits for a line, and then each of its threads makes requests
without end. The id of every request is told, on a line, once it may be answered.
"""

import os
import sys
import threading
import time
from pathlib import Path

from broker.audit.log import FileAuditLog
from tests.audit.requests import try_to_write

_THREADS = 4


def main(directory: str, prefix: str) -> None:
    log = FileAuditLog(
        Path(directory), writer="w1", now=time.time, segment_bytes=20_000, write_timeout=30.0
    )
    os.write(1, b"ready\n")
    sys.stdin.readline()

    def request_without_end(thread: int) -> None:
        number = 0
        while True:
            event_id = f"{prefix}-{thread}-{number}"
            if try_to_write(log, event_id):
                os.write(1, event_id.encode() + b"\n")
            number += 1

    for thread in range(_THREADS):
        threading.Thread(target=request_without_end, args=(thread,)).start()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
