"""Ports of loopback, each for one test alone, whatever else runs on the machine."""

import fcntl
import os
import random
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

# Below those that the kernel gives to whoever asks for any.
_FIRST: Final = 20_000
_LAST: Final = 32_000
_BLOCK: Final = 50


def free_port() -> int:
    """
    A port that nobody uses, and that no other test is given as long as this process lives.

    Neither is the next, which some servers take for their own talk.
    """
    with _turn:
        for port in _own:
            with socket.socket() as probe, socket.socket() as beside, suppress(OSError):
                probe.bind(("127.0.0.1", port))
                beside.bind(("127.0.0.1", port + 1))
                return port
    raise AssertionError("There are no free ports.")


def _claimed() -> Iterator[int]:
    """The ports of one block after the other that no other process has."""
    folder = Path(tempfile.gettempdir()) / f"broker-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    blocks = list(range(_FIRST, _LAST, _BLOCK))
    random.SystemRandom().shuffle(blocks)
    for block in blocks:
        # The lock is held until the process ends, since what was started on a port may live as long.
        lock = os.open(folder / str(block), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        yield from range(block, min(block + _BLOCK, _LAST), 2)


_own: Final = _claimed()
_turn: Final = threading.Lock()
